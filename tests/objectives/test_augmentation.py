"""Differentiable augmentation: what it may change, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import AUGMENTATIONS, augment_images
from tests import cases

HEIGHT, WIDTH = 8, 16


def images(num: int, num_channels: int = 1, low: float = 0.2) -> jax.Array:
    shape = (num, HEIGHT * WIDTH, num_channels)
    return jax.random.uniform(jax.random.key(1), shape, minval=low)


compiled = cases.jit(augment_images, static_argnames=("height", "width", "policy"))


def augment(x: jax.Array, *policy: str, **options) -> np.ndarray:
    options = {"height": HEIGHT, "width": WIDTH, "policy": policy} | options
    out = compiled(jax.random.key(0), x, **options)
    return np.asarray(out).reshape(len(x), HEIGHT, WIDTH, -1)


def grid(x: jax.Array) -> np.ndarray:
    return np.asarray(x).reshape(len(x), HEIGHT, WIDTH, -1)


def test_translation_moves_by_whole_pixels_within_an_eighth():
    """Rows by -1 to 1, columns by -2 to 2; all 15 moves, each about as often."""
    x = images(600)
    wide = np.pad(grid(x), ((0, 0), (1, 1), (2, 2), (0, 0)))
    result = np.zeros((3, 5), int)
    for moved, padded in zip(augment(x, "translation"), wide, strict=True):
        matches = [
            (i, j)
            for i in range(3)
            for j in range(5)
            if np.array_equal(moved, padded[i : i + HEIGHT, j : j + WIDTH])
        ]
        assert len(matches) == 1
        result[matches[0]] += 1
    assert result.sum() == 600
    # Binomial(600, 1/15): mean 40, deviation 6.1; four deviations either way.
    assert result.min() > 40 - 25
    assert result.max() < 40 + 25


def test_cutout_sets_one_rectangle_to_the_background():
    x = images(300)
    out = augment(x, "cutout", fill=0.0)
    sizes = []
    for image, cut in zip(grid(x), out, strict=True):
        gone = cut[..., 0] == 0
        np.testing.assert_array_equal(cut[~gone], image[~gone])
        rows, columns = gone.any(1), gone.any(0)
        np.testing.assert_array_equal(gone, rows[:, None] & columns[None])
        sizes.append((rows.sum(), columns.sum()))
    assert max(s[0] for s in sizes) == HEIGHT // 2
    assert max(s[1] for s in sizes) == WIDTH // 2
    assert np.mean(out[:, HEIGHT // 2, WIDTH // 2] == 0) > 0.2  # reaches the middle
    assert np.mean(out[:, 0, 0] == 0) > 0.02  # and the corners


def test_color_is_affine_with_the_magnitudes_of_the_source():
    """One channel: ``a x + b`` for each image, with a in [1/2, 3/2]."""
    x = images(400)
    slopes, shifts = [], []
    for image, out in zip(grid(x), augment(x, "color"), strict=True):
        slope, offset = np.polyfit(image.ravel(), out.ravel(), 1)
        np.testing.assert_allclose(out, slope * image + offset, atol=1e-5)
        slopes.append(slope)
        shifts.append(out.mean() - image.mean())
    for values, low, high in ((slopes, 0.5, 1.5), (shifts, -0.25, 0.25)):
        assert low - 1e-4 <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high + 1e-4


def test_colour_images_change_their_saturation_too():
    x = images(200, 3)
    ratios = []
    for image, out in zip(grid(x), augment(x, "color"), strict=True):
        gray, out_gray = image.mean(-1, keepdims=True), out.mean(-1, keepdims=True)
        contrast = np.polyfit(gray.ravel(), out_gray.ravel(), 1)[0]
        clear = np.abs(image - gray) > 0.1  # where a quotient has few rounding errors
        ratio = (out - out_gray)[clear] / (image - gray)[clear] / contrast
        np.testing.assert_allclose(ratio, np.median(ratio), atol=0.02)
        ratios.append(np.median(ratio))
    assert min(ratios) < 0.1
    assert max(ratios) > 1.9


def test_gradients_pass():
    """Cut and moved pixels get none; the others, the factor of their image."""
    x = images(5)

    def total(x):
        return jnp.sum(
            augment_images(
                jax.random.key(0), x, height=HEIGHT, width=WIDTH, policy=("cutout",)
            )
        )

    cut = augment(x, "cutout") == 0
    slopes = cases.jit(jax.grad(total))(x)
    np.testing.assert_array_equal(grid(slopes), np.where(cut, 0.0, 1.0))

    def squares(x):
        out = augment_images(jax.random.key(0), x, height=HEIGHT, width=WIDTH)
        return jnp.sum(out**2)

    everything = np.asarray(cases.jit(jax.grad(squares))(x))
    assert np.all(np.isfinite(everything))
    assert np.any(everything != 0)


def test_equal_keys_augment_equally_and_none_changes_nothing():
    x = images(4)
    np.testing.assert_array_equal(
        augment(x, *AUGMENTATIONS), augment(x, *AUGMENTATIONS)
    )
    np.testing.assert_array_equal(augment(x), grid(x))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="policy must name some of .*, got 'flip'"):
        augment(images(2), "flip")
    with pytest.raises(ValueError, match=r"\[B, 64, C\], got \(2, 128, 1\)"):
        augment_images(jax.random.key(0), images(2), height=8, width=8)
