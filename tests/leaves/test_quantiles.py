"""Exact discrete draws: the uniform grid must fall apart as the distribution says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dspc_jax.leaves import quantiles

GRID = 2**14
"""Midpoints of a uniform grid: a distribution's counts on it are off by less than one
per piece of the unit interval, so no test here is statistical."""
UNIFORM = (jnp.arange(GRID) + 0.5) / GRID


@functools.cache
def draws(num_trials):
    """Counts ``[P, num_trials + 1]`` of all draws, for probabilities ``[P]``."""

    def one(p):
        return quantiles.binomial_quantile(UNIFORM, num_trials, jnp.full(GRID, p))

    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("num_trials", [1, 2, 16, 255])
def test_binomial_distribution(num_trials):
    p = np.array([1e-30, 1e-7, 0.01, 0.2, 0.5, 0.50001, 0.9, 1 - 1e-3])
    result = np.asarray(draws(num_trials)(jnp.asarray(p, jnp.float32)))
    assert (result == result.round()).all()
    assert (result >= 0).all()
    assert (result <= num_trials).all()
    for row, probability in zip(result, p, strict=True):
        counts = np.bincount(row.astype(int), minlength=num_trials + 1)
        distribution = stats.binom.pmf(
            np.arange(num_trials + 1), num_trials, probability
        )
        # One piece of the interval for each value: at most one count at either end,
        # and float32 sums that are off by a few 1e-7 of the grid's 1.6e4 points.
        assert (np.abs(counts - GRID * distribution) <= 1.1).all()


@pytest.mark.parametrize("num_trials", [1, 255])
def test_binomial_ends(num_trials):
    """Nothing at p = 0, everything at p = 1."""
    result = draws(num_trials)(jnp.array([0.0, 1e-38, 1.0]))
    expected = np.array([0, 0, num_trials])[:, None]
    np.testing.assert_array_equal(result, expected * np.ones(GRID))


def test_binomial_draws_are_symmetric():
    """Exchanging successes and failures exchanges the draws."""
    p = jnp.array([2.0**-10, 0.25, 0.375])  # 1 - p is exact in float32
    np.testing.assert_array_equal(draws(16)(p), 16 - draws(16)(1 - p))


def test_binomial_is_not_differentiated():
    def total(p):
        return quantiles.binomial_quantile(jnp.array(0.3), 5, p)

    assert jax.grad(total)(jnp.array(0.4)) == 0


@pytest.mark.parametrize("num_trials", [255, np.array([[255], [3], [255], [60]])])
def test_log_binomial_coefficients(num_trials):
    k = np.minimum(np.arange(256), num_trials)
    table = quantiles.log_choose(num_trials, jnp.asarray(k, jnp.float32))
    exact = stats.binom.logpmf(k, num_trials, 0.5) + num_trials * np.log(2)
    np.testing.assert_allclose(table, exact, rtol=1e-6, atol=1e-6)


def test_binomial_draws_of_several_sizes():
    """Side by side the draws are those of each size alone."""
    sizes, p = np.array([1, 255, 16]), jnp.array([0.3, 0.97, 0.5])
    uniform = jnp.broadcast_to(UNIFORM, (3, GRID))
    rows = jnp.broadcast_to(p[:, None], uniform.shape)
    result = jax.jit(lambda p: quantiles.binomial_quantile(uniform, sizes, p))(rows)
    for row, n, share in zip(result, sizes, p, strict=True):
        alone = draws(int(n))(share[None])[0]
        assert np.count_nonzero(row != alone) <= 2 * n  # rounding, at a piece's ends


@pytest.mark.parametrize(
    "p", [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [1e-3, 2e-3, 2.997]]
)
def test_categorical_distribution(p):
    """Zero probabilities never come up; the table need not add up to 1."""
    distribution = np.array(p) / np.sum(p)
    rows = jnp.broadcast_to(jnp.asarray(p, jnp.float32), (GRID, 3))
    result = np.asarray(quantiles.categorical_quantile(UNIFORM, rows)).astype(int)
    counts = np.bincount(result, minlength=3)
    assert (np.abs(counts - GRID * distribution) <= 1.1).all()
    assert (counts[distribution == 0] == 0).all()


@pytest.mark.parametrize("u", [2.0**-24, 1 - 2.0**-24])
def test_categorical_ends(u):
    """The outermost numbers of the generator stay inside the possible values."""
    rng = np.random.default_rng(0)
    p = np.exp(3 * rng.normal(size=(200, 7)))
    p[:, [0, -1]] = 0
    p = jnp.asarray(p / p.sum(axis=1, keepdims=True), jnp.float32)
    result = np.asarray(quantiles.categorical_quantile(jnp.full(200, u), p))
    assert (result >= 1).all()
    assert (result <= 5).all()


@pytest.mark.parametrize("size", [5, 8, 255])
@pytest.mark.parametrize("count", [60, 4])
def test_tables_give_the_same_draws(size, count):
    """Probabilities of 0 at both ends and inside, rows chosen more than once.

    Blocks are made of the whole table, or of the rows that are chosen if those are few.
    """
    rng = np.random.default_rng(size)
    table = rng.dirichlet(np.full(size, 0.3), (3, 2, 4, 2))
    table = np.where(rng.random(table.shape) < 0.3, 0, table) + np.eye(size)[0] * 1e-3
    logits = jnp.log(jnp.asarray(table, jnp.float32))
    index = tuple(jnp.asarray(rng.integers(0, n, (5, count))) for n in (3, 2, 4))
    uniform = jnp.asarray(rng.random((5, count, 2)), jnp.float32)
    result = jax.jit(quantiles.table_quantile)(uniform, logits, index)
    rows = jnp.asarray(table, jnp.float32)[index]
    wanted = quantiles.categorical_quantile(uniform, rows)
    np.testing.assert_array_equal(result, wanted)


def test_ends_of_the_unit_interval_in_a_table():
    """No value without mass comes up, also where blocks at the ends have none."""
    p = np.zeros((3, 1, 40))
    p[:, :, 8:30] = np.random.default_rng(0).dirichlet(np.full(22, 0.2), (3, 1))
    p[:, :, [14, 21]] = 0
    logits = jnp.log(jnp.asarray(p, jnp.float32))
    for u in (2.0**-24, 1 - 2.0**-24):
        index = (jnp.arange(3).repeat(4),)
        uniform = jnp.full((12, 1), u, jnp.float32)
        draw = np.asarray(quantiles.table_quantile(uniform, logits, index), int)
        assert (p[np.asarray(index[0]), 0, draw[:, 0]] > 0).all()


def test_a_table_with_a_nan_draws_one():
    logits = jnp.asarray([[[0.0, 1.0, jnp.nan]], [[0.0, 1.0, -jnp.inf]]])
    index = (jnp.asarray([0, 1]),)
    draw = quantiles.table_quantile(jnp.full((2, 1), 0.5), logits, index)
    assert np.isnan(draw[0, 0])
    assert draw[1, 0] == 1
