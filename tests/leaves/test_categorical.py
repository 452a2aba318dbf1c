"""Categorical leaves: the derivative of normalization and look-up, by definition."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.leaves import categorical
from tests import cases

G, K, M, N = 3, 2, 5, 7
LEAF = pc.Categorical(M)


def table() -> np.ndarray:
    """Logits with a common offset, forbidden values, and one leaf of nothing else."""
    logits = cases.normal(0, G, K, M) + 50.0
    logits[0, 1, 2] = logits[1, 0, 0] = -np.inf
    logits[2, 1] = -np.inf
    return logits


def values() -> np.ndarray:
    """Some twice, and in the last region some outside of the support."""
    x = np.random.default_rng(1).integers(0, M, (G, N)).astype(np.float32)
    x[2, :3] = (-1, M, 1.5)
    return x


@cases.jit
def answers(logits, x, seed):
    def log_prob(logits):
        natural = LEAF.natural(categorical.CategoricalParams(logits))
        return LEAF.log_prob(natural, x)

    def total(logits):
        log_p = log_prob(logits)
        return jnp.sum(jnp.where(log_p == -jnp.inf, 0.0, log_p) * seed)

    return log_prob(logits), jax.grad(total)(logits)


def test_log_prob_and_its_gradient():
    logits, x, seed = table(), values(), cases.normal(2, G, K, N)
    exact = logits.astype(np.float64)
    top = np.where(np.isfinite(exact), exact, 0).max(-1, keepdims=True)
    weights = np.exp(exact - top)
    mass = weights.sum(-1, keepdims=True)
    p = weights / np.where(mass > 0, mass, 1)
    hit = x[:, None, :, None] == np.arange(M)  # [G, 1, N, M]
    probs = np.sum(hit * p[:, :, None], -1)
    log_p = np.log(probs, out=np.full_like(probs, -np.inf), where=probs > 0)
    weight = np.where(probs > 0, seed, 0)[..., None]
    gradient = np.sum(weight * (hit - p[:, :, None]), 2)
    result = answers(logits, x, seed)
    np.testing.assert_allclose(result[0], log_p, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result[1], gradient, rtol=1e-5, atol=1e-6)


def test_a_nan_stays_one():
    """The log-likelihood of a NaN, and every logit of its leaves behind it."""
    x, seed = values(), np.ones((G, K, N), np.float32)
    x[0, 0] = seed[0, :, 0] = np.nan
    log_p, gradient = answers(table(), x, seed)
    assert np.isnan(log_p[0, :, 0]).all()
    assert not np.isnan(log_p[1:]).any()
    assert np.isnan(gradient[0]).all()
    assert not np.isnan(gradient[1:]).any()


def test_both_ways_to_count_are_the_same():
    """Rows are added on the CPU, a matrix product is taken elsewhere."""
    g, index = cases.normal(3, G, K, N), values().clip(0, M - 1).astype(np.int32)
    ways = (categorical._count, categorical._product)
    rows, product = (cases.jit(way, static_argnums=2)(g, index, M) for way in ways)
    np.testing.assert_allclose(rows, product, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_values", [9, np.array([9, 4])])
def test_spread_counts_keep_their_mass_and_range(num_values):
    """Against the matrix of the kernel, each column's mass being 1."""
    leaf = pc.Categorical(9)
    sizes = np.broadcast_to(num_values, 2)
    if isinstance(num_values, np.ndarray):
        leaf = copy.copy(leaf)
        object.__setattr__(leaf, "num_values", num_values)
    rng = np.random.default_rng(0)
    counts = np.where(np.arange(9) < sizes[:, None], rng.random((2, 9)), 0)
    (result,) = leaf.spread((jnp.asarray(counts, jnp.float32),), 1.2)
    for row, wanted, size in zip(result, counts, sizes, strict=True):
        places = np.arange(size)
        distance = places[:, None] - places
        kernel = np.exp(-0.5 * (distance / 1.2) ** 2) * (abs(distance) <= 4)
        kernel /= kernel.sum(axis=0)
        np.testing.assert_allclose(row[:size], kernel @ wanted[:size], rtol=1e-5)
        assert (row[size:] == 0).all()
    np.testing.assert_allclose(result.sum(1), counts.sum(1), rtol=1e-5)
