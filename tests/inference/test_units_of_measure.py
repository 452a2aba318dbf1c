"""Shifting and scaling the columns of a table changes nothing but the constant."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.leaves.normal import NormalParams
from tests import cases

NUM_VARIABLES = 6
# Scopes of 6 variables, and of 3: sums over them are a loop, or unrolled.
DEPTHS = {"long scopes": 0, "short scopes": 1}


class Answers(NamedTuple):
    """What a circuit that EM has fitted says of its data."""

    log_prob: Any
    posterior: Any
    gradient: Any
    mean: Any


@functools.cache
def circuit(depth: int) -> pc.Circuit:
    trees = pc.RandomBinaryTrees(NUM_VARIABLES, depth, 2)
    return pc.build(pc.CircuitConfig(trees, pc.Normal(), 1, 2, 2, num_classes=2))


@functools.partial(cases.jit, static_argnums=0)
def ask(depth, x, observed):
    model = circuit(depth)
    m_step = pc.em(model)

    def step(params: Any, _):
        counts = pc.expected_counts(model, params, x)
        update, _ = m_step.update(counts, optax.EmptyState(), params)
        return optax.apply_updates(params, update), None

    params, _ = jax.lax.scan(step, model.init(jax.random.key(0), x), length=3)

    def total(x):
        return jax.vmap(model.log_prob, (None, 0))(params, x).sum()

    return Answers(
        jax.vmap(model.log_prob, (None, 0))(params, x),
        jax.vmap(model.class_posterior, (None, 0, 0))(params, x, observed),
        jax.grad(total)(x),
        jax.vmap(model.mean, (None, 0, 0))(params, x, observed),
    )


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Two clusters; whole 64ths, so that a shift by 10,000 loses no digit."""
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 2, (512, 1)) * 4.0
    values = clusters + rng.normal(size=(512, NUM_VARIABLES))
    return (np.round(64 * values) / 64).astype(np.float32)[..., None]


@pytest.mark.optax
@pytest.mark.parametrize(
    "depth", [0, pytest.param(1, marks=pytest.mark.slow)], ids=DEPTHS
)
@pytest.mark.parametrize(
    "unit", ["far from zero", "columns of other units"], ids=["shift", "scale"]
)
def test_units_change_nothing_but_the_constant(table, depth, unit):
    observed = np.arange(NUM_VARIABLES) % 3 > 0
    observed = np.broadcast_to(observed, table.shape[:2])
    shift, scale = 0.0, np.ones((NUM_VARIABLES, 1), np.float32)
    if unit == "far from zero":
        shift = 10_000.0
    else:
        powers = np.array([-9, 17, 0, 9, -3, 5], np.float32)
        scale = np.exp2(powers)[:, None]
    plain, other = (
        jax.tree.map(np.asarray, ask(depth, x, observed))
        for x in (table, scale * table + shift)
    )
    constant = np.log(scale).sum()
    np.testing.assert_allclose(other.log_prob + constant, plain.log_prob, atol=0.02)
    np.testing.assert_allclose(other.posterior, plain.posterior, atol=0.01)
    np.testing.assert_allclose(other.gradient * scale, plain.gradient, atol=0.05)
    np.testing.assert_allclose((other.mean - shift) / scale, plain.mean, atol=0.01)
    assert np.mean(plain.log_prob) > -11  # EM has found the clusters


def test_units_many_deviations_apart_are_summed_one_by_one():
    """Narrow leaves of one scope at 0 and at 1000: no polynomial has these digits."""
    model = circuit(0)
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    shape = params.leaves[0].mean.shape  # [2, 2, V, 1]
    mean = 1000 * rng.integers(0, 2, shape) + rng.random(shape)
    mean = mean.astype(np.float32)
    scale = np.full(shape, 0.01)
    log_excess = np.float32(np.log(scale - pc.Normal().min_scale))
    leaves = NormalParams(jnp.asarray(mean), jnp.asarray(log_excess))
    params = params._replace(leaves=(leaves,))
    near = mean[0] + 0.01 * rng.normal(size=shape[1:])
    x = near.astype(np.float32)
    each = stats.norm.logpdf(x.astype(np.float64), mean[:, :, None], scale[:, :, None])
    each = each.sum((-2, -1))  # [G, K, N]
    weights = special.log_softmax(np.float64(params.sums[0][0]), -1)  # [P, O, K]
    parts = special.logsumexp(weights[..., None] + each[:, None], axis=2)
    weights = special.log_softmax(np.float64(params.mixtures[0][0]), -1)  # [O, P]
    roots = special.logsumexp(weights.T[..., None] + parts, axis=0)
    exact = special.logsumexp(roots, axis=0) - np.log(2)
    log_p = cases.jit(jax.vmap(model.log_prob, (None, 0)))(params, x)
    np.testing.assert_allclose(log_p, exact, atol=0.1)
    assert (exact > 0).all()


def test_a_value_far_away_is_impossible_and_has_no_gradients():
    """A fill value of 1e30 in a cell that counts."""
    for depth in DEPTHS.values():
        model = circuit(depth)
        params = model.init(jax.random.key(0))
        x = np.full((NUM_VARIABLES, 1), 1e30, np.float32)
        value, grads = cases.jit(jax.value_and_grad(model.log_prob))(params, x)
        assert value == -np.inf
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
