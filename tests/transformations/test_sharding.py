"""A batch over four devices is never gathered; only gradients are added up.

Whether axes of the mesh are the compiler's (`AxisType.Auto`) or explicit ones, where
every operation says how its result lies.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.transformations import functions

# Prints, for each function: which collectives its compiled gradient step has, how far
# the mean gradient of devices is from that of one, and how the values lie.
FOUR_DEVICES = """
import json, re, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.transformations import functions

results = {}
for words in sys.argv[1:]:
    kind, case = words.split(" ", 1)
    mesh = jax.make_mesh((4,), ("batch",), (getattr(AxisType, kind),))
    whole, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("batch"))
    circuit, row = functions.case(case)
    params, one = functions.params_of(circuit, 0), functions.example(circuit)
    keys = jax.random.split(one.key, 8)
    batch = jax.tree.map(lambda a: np.tile(a, (8, *[1] * a.ndim)), one[:2])
    batch = functions.Example(*batch, keys)

    def values(params, batch):
        return jax.vmap(lambda e: row(params, e))(batch)

    def loss(params, batch):
        return jnp.mean(values(params, batch) ** 2)

    def step(params, batch):
        slope = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)

    exact = case.split("/")[1] in functions.EXACT
    placed = jax.device_put(params, whole), jax.device_put(batch, rows)
    text = jax.jit(values if exact else step).lower(*placed).compile().as_text()
    pattern = r" (all-\\S+|collective-\\S+|reduce-scatter\\S*)\\("
    collectives = sorted(set(re.findall(pattern, text)))

    def total(params, batch):
        return jax.lax.pmean(loss(params, batch), "batch")

    what = (lambda f: f) if exact else jax.grad
    here, spec = jax.jit(what(loss))(params, batch), None
    if kind == "Auto":
        split = jax.shard_map(
            what(total), mesh=mesh, in_specs=(P(), P("batch")), out_specs=P())
        there = jax.jit(split)(params, batch)
    else:
        there = jax.jit(what(loss))(*placed)
        kind = jax.eval_shape(values, *placed)
        spec = kind.sharding.spec[0]
    off = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - b).max() / max(1, np.abs(b).max())),
        *(there, here))
    results[words] = collectives, max(jax.tree.leaves(off)), spec
print(json.dumps(results))
"""

# Evidence, tables of values, a sample and its gradient.
FAST = (
    "Auto discrete/sample_differentiable, straight_through, given",
    "Explicit normal/sample, given",
)
ROWS = (
    "flow/sample, given",
    "flow/log_prob, marginal",
    "affine/mean",
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


# In parts: each case takes a process of four devices some ten seconds.
SLOW = [
    tuple(f"{kind} {name}" for name in ROWS[start::4])
    for kind in ("Auto", "Explicit")
    for start in range(4)
]


@pytest.mark.parametrize(
    "names", [FAST, *(pytest.param(names, marks=pytest.mark.slow) for names in SLOW)]
)
def test_a_sharded_batch_is_not_gathered(names):
    """By the compiler (``jit``), and mapped by hand (``shard_map``)."""
    for name, (collectives, off, spec) in run(FOUR_DEVICES, names).items():
        exact = name.split("/")[1] in functions.EXACT
        assert collectives == ([] if exact else ["all-reduce"]), name
        assert off < 1e-5, name
        assert spec == (None if name.startswith("Auto") else "batch"), name


# Sums over the batch, on an explicit mesh: prints how far each is from that of one
# device. Pairs of a batch are gathered, whoever places them.
SUMS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import dspc_jax as pc
from dspc_jax import objectives
from tests.transformations import functions

mesh = jax.make_mesh((4,), ("batch",), (AxisType.Explicit,))
circuit = functions.circuits()["normal"]
params = functions.params_of(circuit, 0)
x = np.random.default_rng(0).normal(size=(8, 2, 1)).astype(np.float32)
kernel = objectives.gaussian_kernel([1.0])

def sample(keys, params):
    return jax.vmap(circuit.sample_differentiable, (0, None))(keys, params)

def mmd(params, x, estimator):
    key = jax.random.key(0)
    return objectives.mmd_loss(
        params, key, x, sample=sample, kernel=kernel, estimator=estimator)[0]

sums = {
    "counts": lambda p, x: pc.expected_counts(circuit, p, x),
    "counts in parts": lambda p, x: pc.expected_counts(circuit, p, x, batch_size=3),
    "likelihood": lambda p, x: objectives.negative_log_likelihood(
        p, None, x, log_prob=circuit.log_prob)[0],
    "unbiased": jax.grad(lambda p, x: mmd(p, x, "unbiased")),
    "biased": jax.grad(lambda p, x: mmd(p, x, "biased")),
}
results = {}
for name in sys.argv[1:]:
    function = jax.jit(sums[name])
    here = function(params, x)
    placed = [jax.device_put(a, NamedSharding(mesh, P(*s)))
              for a, s in ((params, ()), (x, ("batch",)))]
    off = []
    with jax.set_mesh(mesh):
        eager = sums[name](*placed)
    for there in (function(*placed), eager):
        off += jax.tree.leaves(jax.tree.map(
            lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
            there, here))
    results[name] = max(off)
print(json.dumps(results))
"""


@pytest.mark.slow
def test_sums_over_an_explicit_mesh():
    names = ("counts", "counts in parts", "likelihood", "unbiased", "biased")
    for name, off in run(SUMS, names).items():
        assert off < 1e-5, name


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
    results = json.loads(out.stdout)
    assert list(results) == list(names)
    return results
