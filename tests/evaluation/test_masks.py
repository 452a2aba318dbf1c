"""Masks for inpainting: stripes, and pixels at random."""

import jax
import numpy as np
import pytest

from dspc_jax.evaluation import random_masks, stripe_masks


def test_four_stripes_of_a_square_image():
    masks = np.asarray(stripe_masks(8, 8)).reshape(8, 8, 8)
    for i in range(4):
        expected = np.ones((8, 8), bool)
        expected[2 * i : 2 * i + 2] = False
        np.testing.assert_array_equal(masks[i], expected)
        np.testing.assert_array_equal(masks[4 + i], expected.T)


@pytest.mark.parametrize("shape", [(4, 4), (7, 5), (10, 13), (28, 28)])
@pytest.mark.parametrize("num_stripes", [1, 3, 4])
def test_every_pixel_is_missing_once_per_axis(shape, num_stripes):
    masks = np.asarray(stripe_masks(*shape, num_stripes=num_stripes))
    assert masks.shape == (2 * num_stripes, shape[0] * shape[1])
    assert masks.dtype == bool
    for half, other in ((masks[:num_stripes], 1), (masks[num_stripes:], 0)):
        np.testing.assert_array_equal((~half).sum(0), 1)
        sizes = (~half).sum(1) / shape[other]
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("missing", [0, 0.3, 0.5, 1])
def test_random_masks_miss_the_same_number_each(key, missing):
    masks = np.asarray(random_masks(key, 50, 20, missing=missing))
    assert masks.shape == (50, 20)
    np.testing.assert_array_equal((~masks).sum(1), round(20 * missing))


def test_random_masks_are_even_over_pixels_and_differ(key):
    """2000 masks miss each pixel 600 times, give or take 20 (one sigma)."""
    masks = np.asarray(random_masks(key, 2000, 10, missing=0.3))
    np.testing.assert_allclose((~masks).sum(0), 600, atol=100)
    assert len(np.unique(masks, axis=0)) > 110  # of the 120 sets of three pixels
    other = np.asarray(random_masks(jax.random.key(1), 2000, 10, missing=0.3))
    assert (masks != other).any()


def test_bad_arguments_are_refused(key):
    with pytest.raises(ValueError, match="num_stripes must be at most .* 4 for 28x3"):
        stripe_masks(28, 3)
    with pytest.raises(ValueError, match="num_stripes must be at least 1, got 0"):
        stripe_masks(28, 28, num_stripes=0)
    with pytest.raises(ValueError, match="missing must be between 0 and 1, got 1.5"):
        random_masks(key, 1, 4, missing=1.5)
    with pytest.raises(ValueError, match="num_variables must be at least 1"):
        random_masks(key, 1, 0, missing=0.5)
