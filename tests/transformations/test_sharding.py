"""A batch over four devices is never gathered; only gradients are added up."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# Prints, for each function, which collectives its compiled gradient step has.
FOUR_DEVICES = """
import json, re, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.transformations import functions

mesh = Mesh(np.array(jax.devices()), ("batch",))
whole, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("batch"))
found = {}
for case in sys.argv[1:]:
    circuit_name, name = case.split("/")
    circuit = functions.circuits()[circuit_name]
    params = jax.device_put(circuit.init(jax.random.key(0)), whole)
    one = functions.example(circuit)
    batch = jax.tree.map(lambda a: jnp.broadcast_to(a, (8, *a.shape)), one)
    batch = batch._replace(key=jax.random.split(one.key, 8))
    batch = jax.device_put(batch, rows)

    def values(params, batch):
        return jax.vmap(lambda e: functions.ROWS[name](circuit, params, e))(batch)

    def step(params, batch):
        loss = lambda p: jnp.mean(values(p, batch) ** 2)
        slope = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)

    step = values if name in functions.EXACT else step
    text = jax.jit(step).lower(params, batch).compile().as_text()
    pattern = r" (all-\\S+|collective-\\S+|reduce-scatter\\S*)\\("
    found[case] = sorted(set(re.findall(pattern, text)))
print(json.dumps(found))
"""

FAST = (
    "normal/log_prob",
    "discrete/log_prob, marginal",
    "normal/sample_differentiable, gumbel_softmax",
    "normal/sample_differentiable, straight_through, given",
)
SLOW = tuple(
    f"{circuit}/{name}"
    for circuit, relaxations in (
        ("normal", ("dense", "implicit", "gumbel_rao", "reinmax")),
        ("discrete", ("straight_through", "simple")),
    )
    for name in (
        *("class_posterior", "mean", "sample", "sample, given", "mpe"),
        *(
            f"sample_differentiable, {r}{e}"
            for r in relaxations
            for e in ("", ", given")
        ),
    )
)


@pytest.mark.parametrize(
    "names", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"]
)
def test_a_sharded_batch_is_not_gathered(names):
    environment = os.environ | {
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    words = [sys.executable, "-c", FOUR_DEVICES, *names]
    out = subprocess.run(words, env=environment, capture_output=True, check=True)
    found = json.loads(out.stdout)
    assert list(found) == list(names)
    for name, collectives in found.items():
        exact = name.split("/")[1] in ("sample", "sample, given", "mpe")
        assert collectives == ([] if exact else ["all-reduce"]), name
