"""What users get wrong: each mistake ends in one short line that names the argument."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax
from dspc_jax.flows import ladder
from dspc_jax.objectives import mmd2_unbiased

pc: Any = dspc_jax  # called with wrong types
mmd2: Any = mmd2_unbiased

V = 4
CONFIG = pc.CircuitConfig(pc.RandomBinaryTrees(V, 1, 2), pc.Normal(), 1, 2, 2)
CIRCUIT = pc.build(CONFIG)
PARAMS = CIRCUIT.init(jax.random.key(0))
X = np.zeros((3, V, 1))


def key():
    return jax.random.key(1)


OTHER = pc.build(pc.CircuitConfig(pc.QuadTree(2, 2), pc.Normal(), 1, 2, 2))
MISTAKES = {
    "config must be a CircuitConfig, got RandomBinaryTrees": lambda: pc.build(
        pc.RandomBinaryTrees(V, 1)
    ),
    "config must be a CircuitConfig, got the class": lambda: pc.build(pc.CircuitConfig),
    "config must be a CircuitConfig, got ['": lambda: pc.build(["circuit"]),
    "structure must be RandomBinaryTrees(...)": lambda: pc.CircuitConfig(
        pc.QuadTree, pc.Normal()
    ),
    "structure must be a structure such as": lambda: pc.with_latents(pc.QuadTree, 2),
    "leaf must be a leaf family such as Normal(), or a tuple of them, got the class": (
        lambda: pc.CircuitConfig(pc.QuadTree(2, 2), pc.Normal)
    ),
    "leaf must be a family or a tuple of 4": lambda: pc.CircuitConfig(
        pc.QuadTree(2, 2), [pc.Normal()]
    ),
    "x must be an array of real numbers, got CircuitParams(leaves": (
        lambda: CIRCUIT.log_prob(X[0], PARAMS)
    ),
    "x must be an array of real numbers, got None": lambda: CIRCUIT.log_prob(
        PARAMS, None
    ),
    "x must have shape [V, C] = (4, 1)": lambda: CIRCUIT.log_prob(PARAMS, X),
    "key must be one typed key, as from jax.random.key (batch with jax.vmap), got C": (
        lambda: CIRCUIT.sample(PARAMS, key())
    ),
    "key must be one typed key, as from jax.random.key (batch with jax.vmap), got 0": (
        lambda: CIRCUIT.sample(0, PARAMS)
    ),
    "data must have shape [N, V, C] = (N, 4, 1) (all examples in one call), got (3": (
        lambda: CIRCUIT.init(key(), X[..., :2, 0])
    ),
    "data must have shape [N, V, C] = (N, 4, 1)": lambda: CIRCUIT.init(key(), X[0]),
    "data must be smaller than 1e+15 in size": lambda: CIRCUIT.init(
        key(), 1e18 * (1 + X)
    ),
    "data must hold at least one example": lambda: CIRCUIT.init(key(), X[:0]),
    "params must have the structure of this circuit's, got CircuitParams(": lambda: (
        OTHER.log_prob(PARAMS, X[0])
    ),
    "params must have the structure of this circuit's, got {'": lambda: (
        CIRCUIT.log_prob({"params": PARAMS}, X[0])
    ),
    "params must be a CircuitParams, got Circuit(config": lambda: pc.given_class(
        CIRCUIT, 0
    ),
    "method must be one of ('max_product', 'sum_product', 'best'), got 'sum'": lambda: (
        CIRCUIT.mpe(PARAMS, method="sum")
    ),
    "temperature must be a finite number, got 'hot'": lambda: (
        CIRCUIT.sample_differentiable(key(), PARAMS, temperature="hot")
    ),
    "temperature must be positive, got -1.0": lambda: CIRCUIT.sample_differentiable(
        key(), PARAMS, temperature=jnp.array(-1.0)
    ),
    "circuit must be a Circuit, got 0.5": lambda: pc.em(0.5),
    "circuit must be a Circuit, got CircuitParams(": lambda: pc.expected_counts(
        PARAMS, CIRCUIT, X
    ),
    "step_size must be a finite number, got CircuitParams(": lambda: pc.em(
        CIRCUIT, step_size=PARAMS
    ),
    "flow must be a Flow, got None": lambda: pc.transform(CIRCUIT, None),
    "circuit must be a Circuit, got Flow(name": lambda: pc.transform(
        ladder.identity_flow(2, 2), CIRCUIT
    ),
    "config must be a CircuitConfig, got Circuit(config": lambda: pc.save(
        "unused.npz", CIRCUIT, PARAMS
    ),
    "config must be a CircuitConfig, got CircuitParams(": lambda: pc.save(
        "unused.npz", PARAMS, CONFIG
    ),
    "path must be the path of a file, got CircuitConfig(": lambda: pc.save(
        CONFIG, CONFIG, PARAMS
    ),
    "kernel must be a Kernel such as": lambda: mmd2(
        jnp.asarray(X), jnp.asarray(X), jnp.exp
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are below)
        MISTAKES[words]()
    message = str(caught.value)
    assert message.startswith(words)
    assert "\n" not in message
    assert len(message) < 220
