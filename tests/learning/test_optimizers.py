"""Optimizers of optax on a graph whose mixtures are padded: parameters stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from tests import cases

CIRCUIT = pc.build(cases.DISCRETE["nested"])


@pytest.fixture(scope="module")
def start():
    return cases.jit(CIRCUIT.init)(jax.random.key(0))


def padding(params):
    mixtures = zip(CIRCUIT.layout.graph.levels, params.mixtures, strict=True)
    return [
        np.asarray(logits)[np.broadcast_to((level.mixture < 0)[:, None], logits.shape)]
        for level, logits in mixtures
        if level.mixture is not None
    ]


@cases.jit
def value_and_grad(params):
    x = jnp.asarray([[[0.0], [1.0], [1.0], [0.0]], [[1.0], [1.0], [0.0], [0.0]]])

    def loss(params):
        return -jax.vmap(CIRCUIT.log_prob, (None, 0))(params, x).mean()

    return jax.value_and_grad(loss)(params)


def test_there_is_padding_and_all_parameters_are_finite(start):
    assert sum(len(part) for part in padding(start))
    assert np.isfinite(cases.jit(optax.tree.norm)(start))


@pytest.mark.optax
@pytest.mark.parametrize(
    "name", cases.parameters(["adamw", "lamb", "adafactor"], ["adamw"])
)
def test_parameters_stay_finite_and_learn(start, name):
    optimizer = getattr(optax, name)(0.01)

    @cases.jit
    def step(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, params, losses = cases.jit(optimizer.init)(start), start, []
    for _ in range(4):
        loss, grads = value_and_grad(params)
        losses.append(float(loss))
        params, state = step(grads, state, params)
    average = cases.jit(optax.incremental_update)(params, start, np.float32(0.1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, average)))
    assert losses[-1] < losses[0]


def test_padding_counts_for_nothing(start):
    loss, grads = value_and_grad(start)
    assert all((part == 0).all() for part in padding(grads))
    moved = start._replace(
        mixtures=tuple(
            logits
            if level.mixture is None
            else np.where((level.mixture < 0)[:, None], np.float32(7), logits)
            for level, logits in zip(
                CIRCUIT.layout.graph.levels, start.mixtures, strict=True
            )
        )
    )
    assert value_and_grad(moved)[0] == loss
