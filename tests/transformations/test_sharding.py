"""A batch over four devices is never gathered; only gradients are added up."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.transformations import functions

# Prints, for each function: which collectives its compiled gradient step has, and how
# far the mean gradient of devices is from that of one.
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
    params, one = circuit.init(jax.random.key(0)), functions.example(circuit)
    keys = jax.random.split(one.key, 8)
    batch = jax.tree.map(lambda a: np.tile(a, (8, *[1] * a.ndim)), one[:2])
    batch = functions.Example(*batch, keys)

    def values(params, batch):
        return jax.vmap(lambda e: functions.ROWS[name](circuit, params, e))(batch)

    def loss(params, batch):
        return jnp.mean(values(params, batch) ** 2)

    def step(params, batch):
        slope = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)

    exact = name in functions.EXACT
    placed = jax.device_put(params, whole), jax.device_put(batch, rows)
    text = jax.jit(values if exact else step).lower(*placed).compile().as_text()
    pattern = r" (all-\\S+|collective-\\S+|reduce-scatter\\S*)\\("
    collectives = sorted(set(re.findall(pattern, text)))

    def total(params, batch):
        return jax.lax.pmean(loss(params, batch), "batch")

    what = (lambda f: f) if exact else jax.grad
    split = jax.shard_map(
        what(total), mesh=mesh, in_specs=(P(), P("batch")), out_specs=P())
    there, here = (jax.jit(f)(params, batch) for f in (split, what(loss)))
    off = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), there, here)
    found[case] = collectives, max(jax.tree.leaves(off))
print(json.dumps(found))
"""

# Evidence, tables of values, a sample and its gradient.
FAST = ("discrete/sample_differentiable, straight_through, given",)
SLOW = (
    *("normal/log_prob", "discrete/log_prob, marginal"),
    "normal/sample_differentiable, gumbel_softmax",
    "normal/sample_differentiable, straight_through, given",
    *(
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
    ),
)


@pytest.mark.parametrize(
    "names", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"]
)
def test_a_sharded_batch_is_not_gathered(names):
    """By the compiler (``jit``), and mapped by hand (``shard_map``)."""
    for name, (collectives, off) in run(names).items():
        exact = name.split("/")[1] in functions.EXACT
        assert collectives == ([] if exact else ["all-reduce"]), name
        assert off < 1e-5, name


def run(names):
    """What the program prints, on four devices."""
    environment = os.environ | {
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=4",
    }
    words = [sys.executable, "-c", FOUR_DEVICES, *names]
    out = subprocess.run(words, env=environment, capture_output=True, check=True)
    found = json.loads(out.stdout)
    assert list(found) == list(names)
    return found
