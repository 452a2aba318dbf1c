"""Bits per dimension and the estimate of the MMD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.evaluation import bits_per_dimension, mmd_estimate
from dspc_jax.objectives import gaussian_kernel, mmd2_unbiased

KERNEL = gaussian_kernel((1.0, 2.0))


def test_the_uniform_code_has_eight_bits():
    """A mass of 1/256 per level, or the density 1/256 on cells of width 1 ..."""
    log_probs = jnp.full((5,), -10 * 3 * jnp.log(256.0))
    np.testing.assert_allclose(bits_per_dimension(log_probs, 30), 8, rtol=1e-6)
    # ... or as the density 1 on [0, 1] with cells of width 1/256.
    bits = bits_per_dimension(jnp.zeros((5,)), 30, bin_width=1 / 256)
    np.testing.assert_allclose(bits, 8, rtol=1e-6)


def test_bits_do_not_depend_on_the_units():
    """A Normal density of 255 x instead of x: log p changes by D log 255."""
    log_probs = jnp.asarray([3.0, 5.0, 11.0])
    scaled = log_probs - 7 * jnp.log(255.0)
    np.testing.assert_allclose(
        bits_per_dimension(log_probs, 7, bin_width=1 / 255),
        bits_per_dimension(scaled, 7),
        rtol=1e-5,
    )


def test_impossible_examples_cost_infinitely_many_bits():
    assert bits_per_dimension(jnp.asarray([0.0, -jnp.inf]), 4) == jnp.inf


def test_bad_dimensions_are_refused():
    with pytest.raises(ValueError, match="num_dimensions must be at least 1, got 0"):
        bits_per_dimension(jnp.zeros(2), 0)
    with pytest.raises(ValueError, match="bin_width must be positive, got 0"):
        bits_per_dimension(jnp.zeros(2), 4, bin_width=0)


def _points(seed, num_points, shift=0.0):
    return jax.random.normal(jax.random.key(seed), (num_points, 2, 1)) + shift


def test_one_block_is_the_unbiased_estimator():
    x, y = _points(0, 30), _points(1, 20)
    estimate = mmd_estimate(x, y, kernel=KERNEL, num_blocks=1)
    np.testing.assert_allclose(estimate.mmd2, mmd2_unbiased(x, y, KERNEL), atol=1e-6)
    assert jnp.isnan(estimate.standard_error)


def test_blocks_are_averaged_and_their_spread_is_the_error():
    x, y = _points(0, 403), _points(1, 205, shift=0.2)
    estimate = mmd_estimate(x, y, kernel=KERNEL, num_blocks=4)
    parts = [
        mmd2_unbiased(x[100 * i : 100 * (i + 1)], y[51 * i : 51 * (i + 1)], KERNEL)
        for i in range(4)
    ]
    np.testing.assert_allclose(estimate.mmd2, np.mean(parts), atol=1e-6)
    np.testing.assert_allclose(
        estimate.standard_error, np.std(parts, ddof=1) / 2, atol=1e-6
    )


def test_the_error_covers_equal_laws_and_tells_different_ones():
    same = mmd_estimate(_points(0, 2000), _points(1, 2000), kernel=KERNEL)
    assert abs(same.mmd2) < 4 * same.standard_error
    other = mmd_estimate(_points(0, 2000), _points(1, 2000, 0.3), kernel=KERNEL)
    assert other.mmd2 > 4 * other.standard_error


def test_sets_too_small_for_their_blocks_are_refused():
    with pytest.raises(ValueError, match="y must hold two points in each of 10 blocks"):
        mmd_estimate(_points(0, 20), _points(1, 19), kernel=KERNEL)
    with pytest.raises(ValueError, match="num_blocks must be at least 1, got 0"):
        mmd_estimate(_points(0, 20), _points(1, 19), kernel=KERNEL, num_blocks=0)
