"""Bits per dimension."""

import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.evaluation import bits_per_dimension


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
