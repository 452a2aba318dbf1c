"""Codecs against integrals over the noise, enumerated levels and derivatives."""

import itertools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dspc_jax.evaluation import (
    Codec,
    binary_codec,
    bits_per_dimension,
    dequantization,
    level_codec,
    logit_codec,
    uniform_codec,
)
from tests import cases

CODECS = {
    "levels": level_codec,
    "binary": binary_codec,
    "uniform": uniform_codec,
    "logit": logit_codec,
    "wide-logit": lambda num_values: logit_codec(num_values, alpha=0.4),
}
DENSITIES = {  # codecs of densities, and a density for each
    "uniform": (uniform_codec, stats.beta(2, 3)),
    "logit": (logit_codec, stats.norm(-0.5, 1.3)),
    "wide-logit": (CODECS["wide-logit"], stats.logistic(0.1, 0.2)),
}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # of [0, 1]


bits_per_example = cases.jit(dequantization.bits_per_example, static_argnums=0)
from_unit = cases.jit(lambda codec, u: codec.from_unit(u), static_argnums=0)
to_unit = cases.jit(lambda codec, x: codec.to_unit(x), static_argnums=0)
to_levels = cases.jit(lambda codec, x: codec.to_levels(x), static_argnums=0)
encoded = cases.jit(lambda codec, key, x: codec.encode(key, x), static_argnums=0)


def one_key() -> jax.Array:
    """The same at every call."""
    return jax.random.key(3)


def at_noise(codec: Codec, num_values: int):
    """``(level, noise) -> x``, the function that a codec evaluates at drawn noise."""
    return lambda level, noise: codec.from_unit((level + noise) / num_values)


@pytest.mark.parametrize("name", DENSITIES)
def test_encoding_is_the_function_at_uniform_noise(name):
    codec = DENSITIES[name][0](5)
    levels = np.arange(5, dtype=np.uint8)

    @cases.jit
    def both(key):
        noise = jax.random.uniform(jax.random.clone(key), (5,))
        expected = at_noise(codec, 5)(jnp.arange(5.0), noise)
        return codec.encode(key, levels), expected

    np.testing.assert_allclose(*both(one_key()), rtol=1e-6)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("num_values", [2, 5])
def test_probabilities_of_all_levels_add_up_to_the_mass(name, num_values):
    """Integrals over the noise: no mass is lost but that beyond the ends."""
    make, density = DENSITIES[name]
    codec = make(num_values)
    encode = at_noise(codec, num_values)

    @cases.jit
    @jax.vmap
    def of_level(level):
        x = encode(level, jnp.float32(NODES))
        return x, jax.vmap(codec.mean_log_slope)(x[:, None])

    x, slopes = of_level(np.arange(num_values, dtype=np.float32))
    total = np.sum(WEIGHTS * density.pdf(x) * np.exp(slopes))
    low, high = from_unit(codec, np.asarray([0, 1], np.float32))
    np.testing.assert_allclose(total, density.cdf(high) - density.cdf(low), rtol=1e-5)


@pytest.mark.parametrize("name", DENSITIES)
def test_the_slope_is_the_derivative_of_the_encoding(name):
    codec = DENSITIES[name][0](7)
    encode = at_noise(codec, 7)
    levels, noise = np.arange(7.0, dtype=np.float32), np.linspace(0.01, 0.99, 7)

    @cases.jit
    def both(levels, noise):
        derivatives = jax.vmap(jax.grad(encode))(levels, noise)
        return derivatives, codec.mean_log_slope(encode(levels, noise))

    derivatives, slope = both(levels, np.float32(noise))
    chex.assert_shape(slope, ())
    np.testing.assert_allclose(slope, np.log(derivatives).mean(), rtol=1e-5)


def test_bits_of_densities_are_an_upper_bound_on_those_of_the_levels():
    """Two values of three levels each, enumerated, under a correlated Gaussian."""
    covariance: Any = [[1.0, 0.6], [0.6, 1.5]]
    density = stats.multivariate_normal([0.3, -0.2], covariance)
    codec = logit_codec(3)
    ends = from_unit(codec, np.linspace(0, 1, 4, dtype=np.float32))
    num = 4000
    for levels in itertools.product(range(3), repeat=2):
        cell = density.cdf([ends[v + 1] for v in levels])
        cell -= density.cdf([ends[levels[0] + 1], ends[levels[1]]])
        cell -= density.cdf([ends[levels[0]], ends[levels[1] + 1]])
        cell += density.cdf([ends[v] for v in levels])
        x = encoded(codec, one_key(), np.tile(np.asarray(levels, np.uint8), (num, 1)))
        bits = bits_per_example(codec, x, np.float32(density.logpdf(x)))
        exact = -np.log2(cell) / 2
        error = np.std(bits) / num**0.5
        assert exact < bits.mean() + 4 * error
        assert bits.mean() < exact + 1.5  # a bound, and not a useless one
        # The mean of the probability itself is exact: importance weights of one term.
        mass = 2.0 ** (-2 * np.asarray(bits, np.float64))
        assert abs(mass.mean() - cell) < 4 * mass.std() / num**0.5


@pytest.mark.parametrize("name", CODECS)
def test_bits_are_those_of_a_direct_computation(name):
    codec = CODECS[name](17)
    levels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) % np.uint8(17)
    x = encoded(codec, one_key(), levels)
    log_probs = np.asarray([-3.0, 10.0, -200.0, 0.5], np.float32)
    bits = bits_per_example(codec, x, log_probs)
    chex.assert_shape(bits, (4,))
    slope = np.zeros((4, 5, 3))
    if name == "uniform":
        slope -= np.log(17)
    elif "logit" in name:
        alpha = 0.4 if name == "wide-logit" else 0.05
        y = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
        slope = np.log((1 - 2 * alpha) / 17 / (y * (1 - y)))
    total = np.asarray(log_probs, np.float64) + slope.sum((1, 2))
    np.testing.assert_allclose(bits, -total / 15 / math.log(2), rtol=1e-5)


def test_bits_are_those_of_a_bin_width():
    """For every codec of one slope, `bits_per_dimension` of each example alone."""
    log_probs = np.asarray([-30.0, 5.0], np.float32)
    for make, width in ((level_codec, 1.0), (uniform_codec, 1 / 256)):
        x = encoded(make(256), one_key(), np.zeros((2, 12, 1), np.uint8))
        bits = bits_per_example(make(256), x, log_probs)
        expected = [bits_per_dimension(p[None], 12, bin_width=width) for p in log_probs]
        np.testing.assert_allclose(bits, expected, rtol=2e-7)  # an ulp


def test_an_impossible_example_costs_infinitely_many_bits():
    for make in CODECS.values():
        zeros = np.zeros((2, 3), np.float32)
        bits = bits_per_example(make(4), zeros, np.asarray([-np.inf, 0], np.float32))
        assert bits[0] == np.inf
        assert np.isfinite(bits[1])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("num_values", [2, 17, 256])
def test_levels_survive_the_way_to_leaf_values_and_back(name, num_values):
    codec = CODECS[name](num_values)
    levels = np.arange(num_values, dtype=np.uint8).reshape(1, -1, 1)

    @cases.jit
    def there_and_back(key, levels):
        x = codec.encode(key, levels)
        gray = codec.to_unit(x)
        return x, gray, codec.from_unit(gray), codec.to_levels(x)

    x, gray, again, back = there_and_back(one_key(), levels)
    chex.assert_type(x, jnp.float32)
    chex.assert_equal_shape([x, levels])
    assert gray.min() >= -1e-6
    assert gray.max() <= 1 + 1e-6
    chex.assert_type(back, jnp.uint8)
    top = num_values - 1
    if name == "binary":
        assert set(np.unique(x)) == {0.0, 1.0}
        levels = np.where(np.asarray(levels) > top / 2, top, 0)
    np.testing.assert_array_equal(back, levels)
    beyond = to_levels(codec, np.asarray([-30.0, 1e6], np.float32))
    np.testing.assert_array_equal(beyond, [0, top])
    np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-4)


def test_noise_is_uniform_within_the_cell_and_uses_the_key():
    num = 20000
    levels = np.full((num,), 2, np.uint8)
    for codec in (uniform_codec(4), logit_codec(4)):
        unit = to_unit(codec, encoded(codec, one_key(), levels))
        assert unit.min() + 1e-6 >= 0.5
        assert unit.min() < 0.501
        assert 0.749 < unit.max() < 0.75 + 1e-6
        assert abs(unit.mean() - 0.625) < 4 * (0.25 / 12**0.5) / num**0.5
        other = to_unit(codec, encoded(codec, jax.random.key(1), levels))
        assert np.abs(unit - other).max() > 0.2
    for codec in (level_codec(4), binary_codec(4)):
        again = encoded(codec, jax.random.key(1), levels)
        np.testing.assert_array_equal(encoded(codec, one_key(), levels), again)


def with_slopes(function):
    return cases.jit(jax.vmap(jax.value_and_grad(function)))


def test_gray_values_of_discrete_leaves_are_the_nearest_with_a_slope():
    gray = np.asarray([-0.2, 0.24, 0.26, 1.7], np.float32)
    for codec, expected, slope in (
        (level_codec(17), [0, 4, 4, 16], 16),
        (binary_codec(17), [0, 0, 0, 1], 1),
    ):
        values, slopes = with_slopes(codec.from_unit)(gray)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(slopes, slope)


def test_gray_values_beyond_the_ends_are_the_ends_of_the_logit():
    codec = logit_codec(4, alpha=0.1)
    gray = np.asarray([-1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
    expected = [-math.log(9), -math.log(9), 0, math.log(9), math.log(9)]
    values, slopes = with_slopes(codec.from_unit)(gray)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(slopes)
    np.testing.assert_array_equal(slopes[[0, 4]], [0, 0])
    # The slope stays finite wherever a density may put its mass.
    far = np.asarray([-200.0, 200.0], np.float32)
    chex.assert_tree_all_finite(with_slopes(codec.mean_log_slope)(far))


def test_bad_input_is_refused():
    for make in CODECS.values():
        for num_values in (1, 257):
            with pytest.raises(
                ValueError,
                match=f"^num_values must be from 2 to 256, got {num_values}$",
            ):
                make(num_values)
    for alpha in (0.0, 0.5):
        with pytest.raises(
            ValueError, match=f"^alpha must be between 0 and 0.5, got {alpha}$"
        ):
            logit_codec(4, alpha=alpha)
    codec = level_codec(4)
    for x, log_probs in (
        (jnp.zeros((2, 3)), jnp.zeros(3)),
        (jnp.zeros(2), jnp.zeros(2)),
        (jnp.zeros((2, 0)), jnp.zeros(2)),
    ):
        with pytest.raises(ValueError, match=r"^x and log_probs must .*, got \(2,"):
            bits_per_example(codec, x, log_probs)
