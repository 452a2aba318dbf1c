"""Categorical leaves: the derivative of normalization and look-up, by definition."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.leaves import categorical, family
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


def test_moments_and_their_gradient():
    """Against a softmax, to second order; a forbidden value has no gradient."""
    logits = table()[:2, :, None, None]

    def by_definition(logits):
        p = jax.nn.softmax(logits, -1)
        values = jnp.arange(M, dtype=p.dtype).reshape(1, 1, 1, 1, -1)
        mean = jnp.sum(p * values, -1)
        variance = jnp.sum(p * (values - mean[..., None]) ** 2, -1)
        return mean, jnp.sqrt(variance)

    def by_leaf(logits):
        return LEAF.moments(categorical.CategoricalParams(logits))

    seeds = [jnp.asarray(cases.normal(n, G - 1, K, 1, 1)) for n in (4, 5)]
    direction = jnp.asarray(cases.normal(6, *logits.shape))

    @cases.jit
    def answers(logits):
        out = []
        for function in (by_leaf, by_definition):
            value, pull = jax.vjp(function, logits)
            out.append((value, pull(tuple(seeds))))
        return out

    @cases.jit
    def second(logits):
        def gradient(function):
            return lambda at: jax.vjp(function, at)[1](tuple(seeds))[0]

        return [
            jax.jvp(gradient(f), (logits,), (direction,))[1]
            for f in (by_leaf, by_definition)
        ]

    leaf, definition = answers(logits)
    for one, other in zip(
        jax.tree.leaves(leaf), jax.tree.leaves(definition), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
    assert (leaf[1][0][np.isinf(logits)] == 0).all()
    finite = np.where(np.isinf(logits), -5.0, logits - 50.0)
    one, other = second(finite.astype(np.float32))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_draw_has_the_gradient_of_its_moments():
    """``mean + std * noise`` with the noise held fixed, of the rows that are chosen."""
    rng = np.random.default_rng(7)
    params = categorical.CategoricalParams(jnp.asarray(cases.normal(8, G, K, 1, 1, M)))
    index = tuple(jnp.asarray(rng.integers(0, n, (4, 3))) for n in (G, K, 1))
    uniform = jnp.asarray(rng.random((4, 3, 1)), jnp.float32)

    def looked_up(params):
        def chosen(params, index):
            return tuple(a[index] for a in LEAF.moments(params))

        draw = LEAF.draw_at(uniform, params, index)
        return family.with_moments(chosen, draw, params, index)

    def drawn(params):
        components = tuple(a[index] for a in LEAF.components(params))
        return LEAF.draw(uniform, components)

    @cases.jit
    def answers(params):
        def both(function):
            value, pull = jax.vjp(function, params)
            tangent = jax.jvp(function, (params,), (params,))[1]
            return value, pull(jnp.ones_like(value) + value)[0].logits, tangent

        return both(looked_up), both(drawn)

    for one, other in zip(*answers(params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
