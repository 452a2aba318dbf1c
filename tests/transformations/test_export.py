"""Exported functions are files that need no ``dspc_jax``, for a batch of any size."""

import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from tests import cases
from tests.transformations import functions

# Runs every artifact where the library cannot be imported.
SERVER = """
import pathlib, sys
sys.modules["dspc_jax"] = None
import jax, jax.export, jax.numpy as jnp, numpy as np
for path in map(pathlib.Path, sys.argv[1:]):
    with np.load(path.with_suffix(".npz")) as data:
        x, observed, numbers = data["x"], data["observed"], data["numbers"]
    saved = jax.export.deserialize(bytearray(path.read_bytes()))
    out = saved.call(x, observed, jax.random.wrap_key_data(numbers))
    np.save(path.with_suffix(".npy"), out)
"""

FAST = (
    "discrete/sample, given",
    "normal/sample_differentiable, gumbel_softmax",
)
SLOW = tuple(functions.CASES)


@pytest.mark.parametrize(
    "names", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"]
)
def test_artifacts_run_without_the_library(names, tmp_path):
    (size,) = jax.export.symbolic_shape("n")
    expected = {}
    for number, name in enumerate(names):
        circuit, row = functions.case(name)
        params, one = functions.params_of(circuit, 0), functions.example(circuit)

        def function(x, observed, key, row=row, params=params):
            return jax.vmap(lambda *case: row(params, functions.Example(*case)))(
                x, observed, key
            )

        kinds = [jax.ShapeDtypeStruct((size, *a.shape), a.dtype) for a in one]
        # JAX's check takes parts of an array of unknown size for one key. The call with
        # three examples, below, is checked.
        with jax.debug_key_reuse(False):
            saved = jax.export.export(jax.jit(function))(*kinds).serialize()
        path = tmp_path / f"{number}.bin"
        path.write_bytes(saved)
        batch = [np.stack([a] * 3) for a in one[:2]]
        keys = jax.random.split(jax.random.key(1), 3)
        np.savez(
            path.with_suffix(".npz"),
            x=batch[0],
            observed=batch[1],
            numbers=jax.random.key_data(keys),
        )
        expected[path] = jax.jit(function)(
            *batch, jax.random.split(jax.random.key(1), 3)
        )
    words = [sys.executable, "-c", SERVER, *map(str, expected)]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
    for path, right in expected.items():
        out = np.load(path.with_suffix(".npy"))
        np.testing.assert_allclose(out, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["log_prob", "sample, given", "mpe"])
def test_a_batch_of_none(name):
    circuit = functions.circuits()["normal"]
    params, one = circuit.init(jax.random.key(0)), functions.example(circuit)
    none = [np.zeros((0, *a.shape), a.dtype) for a in one[:2]]

    @jax.vmap
    def rows(*case):
        return functions.ROWS[name](circuit, params, functions.Example(*case))

    out = cases.jit(rows)(*none, jax.random.split(jax.random.key(0), 0))
    assert out.shape == ((0,) if name == "log_prob" else (0, 2, 1))
