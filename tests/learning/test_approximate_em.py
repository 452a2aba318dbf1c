"""EM that fits discretized logistic leaves by moments."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax.leaves.moment_fitting import moment_fitted
from tests import cases


def logistic(rng: Any, location: float, scale: float, size: int, top: int) -> Any:
    draws = np.round(rng.logistic(location, scale, size))
    return np.clip(draws, 0, top).astype(np.float32)


def stepper(circuit: pc.Circuit, x: Any, **options: Any) -> Any:
    em = pc.em(circuit, approximate=True, **options)

    @cases.jit
    def step(params, state):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x)
        counts: Any = pc.expected_counts(circuit, params, x, approximate=True)
        change, state = em.update(counts, state, params)
        return jnp.mean(log_p), optax.apply_updates(params, change), state

    return step, em.init


def test_a_wide_leaf_has_the_moments_of_its_data():
    """One leaf: exactly those, and within 3% of what the data were drawn from."""
    x = logistic(np.random.default_rng(0), 110.0, 9.0, 20_000, 255)
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(1, 0, 1), pc.DiscretizedLogistic(256), 1, 1, 1
    )
    circuit = pc.build(config)
    params = circuit.init(jax.random.key(0))
    step, init = stepper(circuit, x[:, None, None])
    before, new, state = step(params, init(params))
    location, scale = circuit.layout.blocks[0].leaf.components(new.leaves[0])
    np.testing.assert_allclose(location.item(), x.mean(), rtol=1e-4)
    wanted = x.std() * np.sqrt(3) / np.pi
    np.testing.assert_allclose(scale.item(), wanted, rtol=1e-3)
    np.testing.assert_allclose(location.item(), 110.0, rtol=0.01)
    np.testing.assert_allclose(scale.item(), 9.0, rtol=0.03)
    after, again, _ = step(new, state)
    assert after > before + 0.5
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


# Joined leaves, of other numbers of values, beside one with a closed form; repetitions.
MIXED = pc.CircuitConfig(
    pc.RandomBinaryTrees(3, 1, 2),
    (pc.DiscretizedLogistic(64), pc.DiscretizedLogistic(100, 0.1), pc.Categorical(3)),
    *(1, 3, 2),
)


@functools.cache
def rows() -> np.ndarray:
    """Two kinds of rows, at opposite ends."""
    rng = np.random.default_rng(1)
    columns = [
        np.concatenate([logistic(rng, a, 3.0, 100, top) for a in places])
        for places, top in (((14, 45), 63), ((80, 30), 99))
    ]
    kind = np.repeat([0, 1], 100) + rng.integers(2, size=200)
    return np.stack([*columns, kind.astype(np.float32)], 1)[..., None]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {
                **{"step_size": 0.5, "momentum": 0.3, "rescale": True},
                **{"pseudocount": 0.5, "smooth_towards": "uniform"},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"pseudocount": 0.5, "smooth_towards": "marginal"}, marks=pytest.mark.slow
        ),
    ],
    ids=["plain", "uniform", "marginal"],
)
def test_a_mixture_becomes_better(options):
    circuit = pc.build(MIXED)
    params = circuit.init(jax.random.key(0), rows())
    step, init = stepper(circuit, rows(), **options)
    state, totals = init(params), []
    for _ in range(12):
        log_p, params, state = step(params, state)
        totals.append(float(log_p))
    assert totals[-1] > totals[0] + 0.5
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(params))


def test_counts_are_posterior_weighted_moments():
    """Against responsibilities of a mixture, in NumPy."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(1, 0, 1), pc.DiscretizedLogistic(64), 1, 3, 3
    )
    circuit = pc.build(config)
    params = circuit.init(jax.random.key(1))
    x = rows()[::4, :1]
    count = functools.partial(pc.expected_counts, circuit, approximate=True)
    (((first, second), mass),) = cases.jit(count)(params, x).leaves
    leaf: Any = circuit.layout.blocks[0].leaf
    natural = jax.tree.map(lambda a: a[:, :, 0, 0], leaf.natural(params.leaves[0]))
    density = np.exp(leaf.log_prob(natural, x[:, 0, 0][None]))[0]
    weights = jax.nn.softmax(params.sums[0][0][0, 0])
    joint = np.asarray(weights)[:, None] * density
    share = joint / joint.sum(0)
    location, _ = leaf.components(params.leaves[0])
    distance = x[:, 0, 0] - np.asarray(location)[0, :, 0]
    np.testing.assert_allclose(mass[0, :, 0, 0], share.sum(1), rtol=1e-3)
    wanted = (share * distance).sum(1)
    np.testing.assert_allclose(first[0, :, 0, 0], wanted, rtol=1e-3, atol=1e-3)
    wanted = (share * distance**2).sum(1)
    np.testing.assert_allclose(second[0, :, 0, 0], wanted, rtol=1e-3)


@pytest.mark.slow
def test_narrow_leaves_stay_within_their_bounds():
    """All values are the greatest one: the least scale that is finite."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 0, 1),
        *(pc.DiscretizedLogistic(16, 0.2), 1, 2, 2),
        tie_leaves="all",
    )
    circuit = pc.build(config)
    params = circuit.init(jax.random.key(0))
    step, init = stepper(circuit, np.full((8, 2, 1), 15.0))
    _, new, _ = step(params, init(params))
    location, scale = circuit.layout.leaf_blocks[0].leaf.components(new.leaves[0])
    np.testing.assert_allclose(location, 15.0, rtol=1e-5)
    np.testing.assert_allclose(scale, 0.4, rtol=1e-3)


def test_only_who_asks_is_approximated():
    circuit = pc.build(MIXED)
    message = "got Discretized.*fit them by moments with approximate=True, or train"
    for call in (pc.em, lambda c: pc.expected_counts(c, None, None)):
        with pytest.raises(ValueError, match=message):
            call(circuit)
    with pytest.raises(ValueError, match="approximate must be True or False, got 1"):
        pc.em(circuit, approximate=1)
    leaf = pc.Bernoulli()
    assert moment_fitted(leaf) is leaf
