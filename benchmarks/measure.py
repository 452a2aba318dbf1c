"""Clocks and memory gauges: medians of many calls, peaks, a reference product."""

from collections.abc import Callable
import contextlib
import ctypes
import gc
import os
import pathlib
import platform
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

_MIB = 2**20
_STATUS = pathlib.Path("/proc/self/status")
_REFERENCE_SIZE = 2048  # 17 GFLOP: long enough to time, short beside any cell


def time_calls(
    call: Callable[[], Any], *, seconds: float, min_calls: int = 10, warm_up: int = 3
) -> dict[str, float]:
    """Times ``call`` until both ``seconds`` and ``min_calls`` are reached.

    Args:
        call: does the work; the result is waited for.
        seconds: the least time of measuring, without the warm-up.
        min_calls: the least number of measured calls.
        warm_up: calls before the first measured one.

    Returns:
        ``median_ms``, ``min_ms``, ``max_ms`` and ``calls``.
    """
    for _ in range(warm_up):
        jax.block_until_ready(call())
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "calls": len(times),
    }


def reference_gflops() -> float:
    """Float32 ``[2048, 2048]`` matrix product at full precision, in GFLOP/s.

    A number for the machine as it was at that moment: two runs are compared after
    dividing by it.
    """
    a = jnp.full((_REFERENCE_SIZE, _REFERENCE_SIZE), 0.5, jnp.float32)
    full = jax.lax.Precision.HIGHEST
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=full))
    times = time_calls(lambda: product(a, a), seconds=0.3)
    return 2 * _REFERENCE_SIZE**3 / times["median_ms"] / 1e6


def batched_gflops(num_units: int, batch: int) -> float:
    """Batched float32 products of the shape that circuits have, in GFLOP/s.

    The limit of a circuit's steps: ``[64, K, K]`` times ``[64, K, B]``, in the cache.

    Args:
        num_units: K.
        batch: B.
    """
    matrices = jnp.full((64, num_units, num_units), 0.5, jnp.float32)
    columns = jnp.full((64, num_units, batch), 0.5, jnp.float32)
    product = jax.jit(lambda a, b: jnp.einsum("bkd,bdn->bkn", a, b))
    times = time_calls(lambda: product(matrices, columns), seconds=0.3)
    return 2 * 64 * num_units**2 * batch / times["median_ms"] / 1e6


def peak_rss_mib() -> float:
    """Peak resident memory of this process since its start or `reset_peak_rss`.

    Linux's own gauge where there is one: there ``getrusage`` includes the process that
    started this one.
    """
    if _STATUS.exists():
        _, _, remainder = _STATUS.read_text().partition("VmHWM:")
        return int(remainder.split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)


def reset_peak_rss() -> bool:
    """Makes the present memory the peak; False where the system cannot.

    It first gives back the memory that the compiler has freed and the allocator holds.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # only in glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def compiled_mib(compiled: Any) -> dict[str, float]:
    """Memory of a compiled function by XLA's account, in MiB.

    Args:
        compiled: the result of ``jax.jit(...).lower(...).compile()``.

    Returns:
        ``xla_temp_mib`` (scratch), ``xla_output_mib`` (results, where not written over
        a donated argument) and ``xla_argument_mib``; empty where XLA does not say.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return {}
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "xla_temp_mib": memory.temp_size_in_bytes / _MIB,
        "xla_output_mib": output / _MIB,
        "xla_argument_mib": memory.argument_size_in_bytes / _MIB,
    }


def compiled_work(compiled: Any) -> dict[str, float]:
    """Work of one call of a compiled function by XLA's account.

    Args:
        compiled: the result of ``jax.jit(...).lower(...).compile()``.

    Returns:
        ``xla_gflop`` and ``xla_gb`` (bytes read and written, 10^9); those that XLA does
        not know are absent. The body of a loop counts once.
    """
    cost = compiled.cost_analysis() or {}
    names = {"xla_gflop": "flops", "xla_gb": "bytes accessed"}
    return {
        name: cost[theirs] / 1e9
        for name, theirs in names.items()
        if cost.get(theirs, 0) > 0
    }


def device_peak_mib() -> float | None:
    """Peak memory of the first accelerator; None on the CPU, which has no gauge."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / _MIB if stats else None


def machine() -> dict[str, Any]:
    """Date and machine of a measurement."""
    info = pathlib.Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    device = jax.devices()[0]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
