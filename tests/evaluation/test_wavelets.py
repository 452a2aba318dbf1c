"""Lossless wavelets are bijections; their ranges, and their codec."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.evaluation import (
    bits_per_example,
    inverse_wavelet_transform,
    num_wavelet_values,
    rgb_to_ycocg,
    wavelet_codec,
    wavelet_transform,
)

SIZES = [(1, 6), (5, 3), (7, 8)]
KINDS = ["haar", "legall"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_images_come_back(size, kind):
    rng = np.random.default_rng(0)
    image = rng.integers(-300, 300, (2, *size, 3))
    result = inverse_wavelet_transform(wavelet_transform(image, kind), kind)
    np.testing.assert_array_equal(result, image)
    x = jnp.asarray(image, jnp.float32)
    other = wavelet_transform(inverse_wavelet_transform(x, kind), kind)
    np.testing.assert_array_equal(other, x)


def test_a_block_by_hand():
    """Differences lie at the later pixel, means at the earlier one."""
    image = jnp.array([[7, 2], [4, 4]])[..., None]
    # Rows: differences -3, 2, means 7 + (-3 // 2) = 5 and 2 + 1 = 3; then columns.
    expected = [[5 + (3 - 5) // 2, 3 - 5], [-3 + (2 + 3) // 2, 2 + 3]]
    np.testing.assert_array_equal(wavelet_transform(image, "haar")[..., 0], expected)


def test_a_row_by_hand():
    """Four pixels of LeGall: two differences, two smooth values, once more."""
    image = jnp.array([9, 4, 6, 1])[None, :, None]
    first, second = 4 - (9 + 6) // 2, 1 - 6
    smooth = [9 + (first + first + 2) // 4, 6 + (first + second + 2) // 4]
    last = smooth[1] - smooth[0]
    expected = [smooth[0] + (last + last + 2) // 4, first, last, second]
    result = wavelet_transform(image, "legall")
    np.testing.assert_array_equal(result[0, :, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_even_slopes_have_small_coefficients(kind):
    flat = wavelet_transform(jnp.full((8, 8, 1), 9), kind)
    assert flat[0, 0, 0] == 9
    assert jnp.sum(jnp.abs(flat)) == 9
    slope = jnp.broadcast_to(jnp.arange(0, 64, 8)[:, None, None], (8, 8, 1))
    finest = wavelet_transform(slope, kind)[1:-1:2]
    assert jnp.all(finest[:, 0] == (0 if kind == "legall" else 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(8, 8), (7, 3)])
def test_the_images_of_greatest_coefficients_are_in_range(kind, size):
    """Each coefficient is at its ends for the signs of its filter."""
    num = size[0] * size[1]
    codec = wavelet_codec(*size, kind=kind)
    filters = jax.jit(jax.jacobian(lambda x: codec.from_unit(x[:, None])[:, 0]))(
        jnp.zeros(num)
    )
    signs = np.asarray(filters) > 0
    levels = np.concatenate([signs, ~signs]).astype(np.uint8)[..., None] * 255
    x = codec.encode(jax.random.key(0), levels)
    top = num_wavelet_values(kind) - 1
    assert x.min() >= 0
    assert x.max() <= top
    assert x.max() > (0.6 if kind == "haar" else 0.55) * top  # not far too wide
    np.testing.assert_array_equal(codec.to_levels(x), levels)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_colors_are_in_range(kind):
    """All extreme colors of 2 x 2 pixels: 12 bits."""
    bits = np.array(list(itertools.product([0, 255], repeat=12)), np.uint8)
    codec = wavelet_codec(2, 2, kind=kind, ycocg=True)
    x = codec.encode(jax.random.key(0), bits.reshape(-1, 4, 3))
    assert x.min() >= 0
    assert x.max() <= num_wavelet_values(kind, ycocg=True) - 1
    np.testing.assert_array_equal(codec.to_levels(x), bits.reshape(-1, 4, 3))


@pytest.mark.parametrize(("ycocg", "kind"), [(True, "haar"), (False, "legall")])
def test_the_units_of_the_codec(ycocg, kind):
    rng = np.random.default_rng(0)
    levels = jnp.asarray(rng.integers(0, 256, (3, 6, 3)), jnp.uint8)
    codec = wavelet_codec(2, 3, kind=kind, ycocg=ycocg)
    x = codec.encode(jax.random.key(0), levels)
    assert x.dtype == jnp.float32
    unit = codec.to_unit(x)
    np.testing.assert_allclose(unit, levels.astype(np.float32) / 255, atol=1e-6)
    np.testing.assert_array_equal(codec.from_unit(unit), x)
    image = levels.reshape(3, 2, 3, 3).astype(jnp.int32)
    expected = wavelet_transform(rgb_to_ycocg(image) if ycocg else image, kind)
    offset = (num_wavelet_values(kind, ycocg=ycocg) - 1) // 2
    np.testing.assert_array_equal(x, expected.reshape(3, 6, 3) + offset)
    # The derivatives are those of a linear map and of its inverse.
    forward = jax.jit(jax.jacobian(codec.from_unit))(unit[0]).reshape(18, 18)
    backward = jax.jit(jax.jacobian(codec.to_unit))(x[0]).reshape(18, 18)
    np.testing.assert_allclose(forward @ backward, np.eye(18), atol=1e-3)


def test_bits_are_those_of_the_pixels():
    """The mass of all images, of three levels each, is that of their coefficients."""
    codec = wavelet_codec(2, 2, num_values=3)
    levels = np.array(list(itertools.product(range(3), repeat=4)), np.uint8)[..., None]
    x = codec.encode(jax.random.key(0), levels)
    assert len(np.unique(np.asarray(x), axis=0)) == len(levels)
    leaf = pc.Categorical(num_wavelet_values(num_values=3))
    circuit = pc.build(pc.CircuitConfig(pc.QuadTree(2, 2), leaf, num_sums=2))
    params = circuit.init(jax.random.key(1), x)
    log_p = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, x)
    bits = bits_per_example(codec, x, log_p)
    np.testing.assert_allclose(bits, -log_p / 4 / np.log(2), rtol=1e-6)
    assert 0.1 < jnp.sum(2 ** (-4 * bits)) < 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"shape \[..., H, W, C\], got \(2, 3\)"):
        wavelet_transform(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"kind must be among \['haar', 'legall'\]"):
        wavelet_transform(jnp.zeros((2, 3, 1)), "db4")
    with pytest.raises(ValueError, match="num_values must be from 2 to 256, got 1"):
        wavelet_codec(2, 2, num_values=1)
