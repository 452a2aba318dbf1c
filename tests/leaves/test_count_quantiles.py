"""Draws of unbounded counts: the uniform grid falls apart as the distribution says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dspc_jax.leaves import count_quantiles
from tests import cases

GRID = 2**13
UNIFORM = np.float32((np.arange(GRID) + 0.5) / GRID)
POISSON = np.float32([1e-30, 1e-6, 0.3, 1.0, 2.5, 9.99, 20.3, 400.5, 2e4])
MEANS = np.float32([1e-20, 0.01, 1, 100, 1e4])

poisson, negative_binomial, geometric = map(
    cases.jit,
    (
        count_quantiles.poisson_quantile,
        count_quantiles.negative_binomial_quantile,
        count_quantiles.geometric_quantile,
    ),
)


def drawn_from(draw, uniform, *params):
    """Draws of numbers for the parameters of one leaf, all by one program."""
    padded = np.resize(np.float32(uniform), GRID)
    numbers = (np.full(GRID, p, np.float32) for p in params)
    return draw(padded, *numbers)[: len(uniform)]


def on_the_grid(draw, *params):
    """Draws ``[GRID]`` of each of the parameters ``[K]``."""
    return [drawn_from(draw, UNIFORM, *each) for each in zip(*params, strict=True)]


def assert_follows(drawn, distribution, most):
    """Every piece of the grid is off by at most so many points, and so are sums."""
    assert (drawn == drawn.round()).all()
    values, counts = np.unique(drawn.astype(float), return_counts=True)
    assert values[0] >= 0
    assert (np.abs(counts - GRID * distribution.pmf(values)) <= 1.1).all()
    below = np.abs(np.cumsum(counts) - GRID * distribution.cdf(values))
    assert below.max() <= most, below.max()


def test_poisson_draws():
    for row, rate in zip(on_the_grid(poisson, POISSON), POISSON, strict=True):
        # A sum of pieces is off as a random walk: each begins anywhere on the grid.
        assert_follows(row, stats.poisson(float(rate)), 1.1 + 1.5 * rate**0.25)


def test_poisson_draws_of_great_rates_are_quantiles():
    """Beyond the search; hardly a uniform number is at a cut that is off."""
    rates = np.float32([2e5, 3e6])
    for row, rate in zip(on_the_grid(poisson, rates), rates, strict=True):
        distribution = stats.poisson(float(rate))
        below, above = (distribution.cdf(row.astype(float) + d) for d in (-1, 0))
        wrong = (below >= UNIFORM) | (above < UNIFORM)
        assert wrong.mean() < 1e-3
        # Those are off by one.
        below, above = (distribution.cdf(row.astype(float) + d) for d in (-2, 1))
        assert ((below < UNIFORM) & (above >= UNIFORM)).all()


@pytest.mark.parametrize(
    ("concentration", "mean"),
    [
        pytest.param(0.01, 1, marks=pytest.mark.slow),
        *((0.5, 1e-20), (0.5, 0.01), (3, 30), (50, 100)),
        *((1000, 100), (1, 1000), (0.01, 1e4), (3, 1e4), (50, 1e4), (1000, 1e7)),
    ],
)
def test_negative_binomial_draws(concentration, mean):
    r, m = np.float32([concentration]), np.float32([mean])
    (row,) = on_the_grid(negative_binomial, m, r)
    r, m = float(r[0]), float(m[0])
    deviation = np.sqrt(m * (1 + m / r))
    most = 1.1 + 1.5 * min(deviation, 100) ** 0.5
    assert_follows(row, stats.nbinom(r, r / (r + m)), most)


def test_geometric_draws():
    for row, mean in zip(on_the_grid(geometric, MEANS), MEANS, strict=True):
        assert_follows(row, stats.nbinom(1, 1 / (1 + float(mean))), 1.1)


@pytest.mark.parametrize("mean", [0.0, np.nan])
def test_the_ends(mean):
    """Of a mean of 0 all draws are 0; of none the loop ends."""
    u = [2.0**-24, 0.5, 1 - 2.0**-24]
    for drawn in (
        drawn_from(poisson, u, mean),
        drawn_from(negative_binomial, u, mean, 2.0),
        drawn_from(geometric, u, mean),
    ):
        np.testing.assert_array_equal(drawn, [mean] * 3)


@pytest.mark.parametrize("rate", [0.1, 7.0, 5e3])
def test_extreme_numbers_fall_into_the_support(rate):
    drawn = drawn_from(poisson, [2.0**-24, 1e-6, 1 - 1e-6, 1 - 2.0**-24], rate)
    low, high = stats.poisson(rate).ppf([1e-9, 1 - 1e-9])
    assert ((drawn >= low) & (drawn <= high)).all()


def test_double_precision():
    with jax.enable_x64(True):
        u = jnp.asarray([1e-13, 0.5, 1 - 1e-13])
        rate = jnp.asarray([40.0] * 3)
        drawn = count_quantiles.poisson_quantile(u, rate)
        assert drawn.dtype == jnp.float64
        assert np.isfinite(np.asarray(drawn)).all()
        total = jax.grad(lambda r: jnp.sum(count_quantiles.poisson_quantile(u, r)))
        np.testing.assert_array_equal(np.asarray(total(rate)), 0)
