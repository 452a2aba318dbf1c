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

# Prints, for each function, how far the mean gradient of devices is from that of one.
SHARD_MAP = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from tests.transformations import functions

mesh = Mesh(np.array(jax.devices()), ("batch",))
found = {}
for case in sys.argv[1:]:
    circuit_name, name = case.split("/")
    circuit = functions.circuits()[circuit_name]
    params, one = circuit.init(jax.random.key(0)), functions.example(circuit)
    batch = jax.tree.map(lambda a: jnp.broadcast_to(a, (8, *a.shape)), one)
    batch = batch._replace(key=jax.random.split(one.key, 8))

    def loss(params, batch):
        draw = lambda e: functions.ROWS[name](circuit, params, e)
        return jnp.mean(jax.vmap(draw)(batch) ** 2)

    def total(params, batch):
        return jax.lax.pmean(loss(params, batch), "batch")

    what = (lambda f: f) if name in functions.EXACT else jax.grad
    split = jax.shard_map(
        what(total), mesh=mesh, in_specs=(P(), P("batch")), out_specs=P())
    pairs = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))),
        jax.jit(split)(params, batch), jax.jit(what(loss))(params, batch))
    found[case] = max(jax.tree.leaves(pairs))
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
    found = run(FOUR_DEVICES, names)
    for name, collectives in found.items():
        exact = name.split("/")[1] in ("sample", "sample, given", "mpe")
        assert collectives == ([] if exact else ["all-reduce"]), name


@pytest.mark.parametrize(
    "names",
    [(FAST[0], FAST[3]), pytest.param(SLOW, marks=pytest.mark.slow)],
    ids=["fast", "slow"],
)
def test_shard_map_with_its_defaults(names):
    for name, difference in run(SHARD_MAP, names).items():
        assert difference < 1e-5, name


def run(program, names):
    """What the program prints, on four devices."""
    environment = os.environ | {
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=4",
    }
    words = [sys.executable, "-c", program, *names]
    out = subprocess.run(words, env=environment, capture_output=True, check=True)
    found = json.loads(out.stdout)
    assert list(found) == list(names)
    return found
