"""Whether circuits on this device are right: against enumeration and float64.

The oracle is that of the tests: NumPy, float64, node by node.
"""

from collections.abc import Callable
import functools
import importlib.metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import enumeration, measure
from benchmarks.accelerator import peaks
from benchmarks.accelerator.job import Job, Measurement
import dspc_jax as pc
from dspc_jax.ops import products
from tests import oracles

_CIRCUITS = ("trees, tucker", "trees, cp", "quad tree")  # those of discrete values
_LEAST_P_VALUE = 1e-5  # ten tests: a right device fails once in 10,000 runs
# Of a sum's terms. Float32 rounds to 6e-8, TF32 to 5e-4, bfloat16 to 4e-3.
_PRODUCT_ERROR = 3e-6
_LOG_PROB_ERROR = 1e-5  # relative, of log-likelihoods


def measurements(job: Job) -> list[Measurement]:
    """The checks, the most elementary first; each has ``ok``."""
    num_samples = 2000 if job.tiny else 100_000
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "device": _device,
        "peaks": _peaks,
        "float32 products": functools.partial(_products, 256 if job.tiny else 1024),
    }
    for name in _CIRCUITS[-1:] if job.tiny else _CIRCUITS:
        checks |= {
            f"log_prob: {name}": functools.partial(_log_prob, name),
            f"marginals: {name}": functools.partial(_marginals, name),
            f"samples: {name}": functools.partial(_samples, name, num_samples),
        }
    checks["log_prob: image"] = functools.partial(_image, job.tiny)
    return [Measurement(name, check) for name, check in checks.items()]


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    versions = {
        name: importlib.metadata.version(name) for name in ("jaxlib", "numpy", "optax")
    }
    return {
        **measure.machine(),
        **versions,
        "platform": device.platform,
        "num_devices": len(jax.devices()),
        "memory_gib": stats.get("bytes_limit", 0) / 2**30,
        "compiler": device.client.platform_version.split("\n")[0],
    }


def _peaks() -> dict[str, Any]:
    rates = peaks.measured()
    sheet = peaks.data_sheet(jax.devices()[0].device_kind)
    return {
        "measured_gflops": rates.gflops,
        "measured_gbs": rates.gbs,
        "data_sheet_gflops": sheet.gflops if sheet else None,
        "data_sheet_gbs": sheet.gbs if sheet else None,
    }


def _products(size: int) -> dict[str, Any]:
    """The library's product, ``highest`` and the default, against float64."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, size, size)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a).astype(np.float64) @ np.abs(b)
    ways = {
        "library": products.contract,
        "highest": functools.partial(jnp.matmul, precision="highest"),
        "default": jnp.matmul,
    }
    errors = {
        f"{name}_error": float(np.max(np.abs(jax.jit(way)(a, b) - exact) / scale))
        for name, way in ways.items()
    }
    return {**errors, "ok": errors["library_error"] < _PRODUCT_ERROR}


@functools.cache
def _tabulated(name: str) -> tuple[pc.Circuit, Any, oracles.Table]:
    circuit = pc.build(enumeration.CIRCUITS[name])
    params = enumeration.parameters(circuit)
    return circuit, params, oracles.tabulate(circuit, params)


def _compared(log_p: jax.Array, exact: np.ndarray) -> dict[str, Any]:
    errors = np.abs(np.asarray(log_p, np.float64) - exact)
    relative = float(np.max(errors / np.maximum(1.0, np.abs(exact))))
    return {
        "relative_error": relative,
        "nats_error": float(np.max(errors)),
        "ok": relative < _LOG_PROB_ERROR,
    }


def _log_prob(name: str) -> dict[str, Any]:
    circuit, params, table = _tabulated(name)
    log_prob = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))
    x = jnp.asarray(table.values, jnp.float32)
    return _compared(log_prob(params, x), np.log(table.probs))


def _marginals(name: str) -> dict[str, Any]:
    """All masks of one value, the last."""
    circuit, params, table = _tabulated(name)
    x = table.values[-1]
    masks = np.array(list(np.ndindex((2,) * len(x))), bool)
    log_prob = jax.jit(jax.vmap(circuit.log_prob, (None, None, 0)))
    exact = np.log([table.marginal(x, mask) for mask in masks])
    return _compared(log_prob(params, jnp.asarray(x, jnp.float32), masks), exact)


def _samples(name: str, num: int) -> dict[str, Any]:
    """Frequencies of samples, and of samples given the first variable."""
    circuit, params, table = _tabulated(name)
    keys, more_keys = jax.random.split(jax.random.key(0), (2, num))
    samples = jax.jit(jax.vmap(circuit.sample, (0, None)))(keys, params)
    x = table.values[-1]
    observed = np.arange(len(x)) == 0

    def fill(key, x):
        return circuit.sample(key, params, x=x, observed=observed)

    filled = jax.jit(jax.vmap(fill, (0, None)))(more_keys, jnp.asarray(x, jnp.float32))
    p_values = {
        "p_value": oracles.law_p_value(table, np.asarray(samples), table.probs),
        "conditional_p_value": oracles.law_p_value(
            table, np.asarray(filled), table.conditional(x, observed)
        ),
    }
    return {**p_values, "ok": min(p_values.values()) > _LEAST_P_VALUE}


def _image(tiny: bool) -> dict[str, Any]:
    """Random images under a quad tree whose sums are as wide as in use."""
    side, units = (4, 4) if tiny else (16, 64)
    config = pc.CircuitConfig(
        pc.QuadTree(side, side),
        pc.Categorical(256),
        num_leaves=units,
        num_sums=units,
        sum_layer="cp_t",
    )
    circuit = pc.build(config)
    params = jax.jit(circuit.init)(jax.random.key(0))
    x = np.random.default_rng(0).integers(0, 256, (32, side * side, 1))
    exact = oracles.Oracle(circuit, params).log_prob(x.astype(np.float64))
    log_prob = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))
    return _compared(log_prob(params, jnp.asarray(x, jnp.float32)), exact)
