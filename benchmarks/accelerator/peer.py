"""PyJuice on the same structure, data and device, where it is installed.

It needs torch, Triton and an NVIDIA GPU. Its own best settings by its examples: blocks
as large as the units allow, and forward and backward passes recorded as CUDA graphs.
"""

import functools
import importlib
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.accelerator.job import Job, Measurement, Skipped
from dspc_jax.structure.image_families import QuadTree
from dspc_jax.structure.region_graph import RegionGraph

_BATCH, _SIDE, _NUM_VALUES = 512, 28, 256


def measurements(job: Job) -> list[Measurement]:
    """The three tasks for every number of units; the circuit is compiled once."""
    widths = (32,) if job.tiny else (256, 64, 512)
    circuits = functools.lru_cache(maxsize=1)(_build)
    tasks = {"log_prob": _log_prob, "em": _em, "sample": _sample}
    return [
        Measurement(
            f"quad_tree categorical K={units} {name}",
            functools.partial(_measure, task, circuits, units),
        )
        for units in widths
        for name, task in tasks.items()
    ]


def _measure(task: Any, circuits: Any, units: int) -> dict[str, Any]:
    torch, juice = _import("torch"), _import("pyjuice")
    if not torch.cuda.is_available():
        raise Skipped("PyJuice needs a GPU that torch can use")
    circuit, x = circuits(units)
    start = time.perf_counter()
    call = task(juice, circuit, x)
    call()
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    params = sum(p.numel() for p in circuit.parameters())
    return {"params": params, "first_call_s": first, **_times(torch, call)}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(f"{name} is not installed: {error}") from error


def _times(torch: Any, call: Any) -> dict[str, float]:
    """Medians as `measure.time_calls` takes them, on the clock of the other library."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times = []
    begin = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - begin < 0.7:
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "calls": len(times),
    }


def _build(units: int) -> tuple[Any, Any]:
    """The compiled circuit, and images ``[512, 784]``, on the GPU."""
    torch, juice = _import("torch"), _import("pyjuice")
    root = nodes(juice, QuadTree(_SIDE, _SIDE).region_graph(), units)
    root.init_parameters(perturbation=2.0)
    circuit = juice.compile(root).to(torch.device("cuda:0"))
    x = np.random.default_rng(0).integers(0, _NUM_VALUES, (_BATCH, _SIDE**2))
    return circuit, torch.from_numpy(x).to(torch.device("cuda:0"))


def nodes(juice: Any, graph: RegionGraph, units: int) -> Any:
    """The root of the circuit of a tree: products of equal units, then dense sums."""
    block = min(units & -units, 64)  # the largest power of two that divides units
    wide = {"num_node_blocks": units // block, "block_size": block}
    made: dict[int, Any] = {}
    for region in np.argsort(graph.heights, kind="stable"):
        numbers = graph.partitions_of[region]
        if numbers:
            (number,) = numbers
            children = [made[child] for child in graph.partitions[number].children]
            is_root = region == graph.root
            size = {"num_node_blocks": 1, "block_size": 1} if is_root else wide
            made[region] = juice.summate(juice.multiply(*children), **size)
        else:
            (variable,) = graph.scopes[region]
            dist = juice.distributions.Categorical(num_cats=_NUM_VALUES)
            made[region] = juice.inputs(var=variable, dist=dist, **wide)
    return made[graph.root]


def _log_prob(juice: Any, circuit: Any, x: Any) -> Any:
    del juice
    circuit(x, record_cudagraph=True)
    return lambda: circuit(x)


def _em(juice: Any, circuit: Any, x: Any) -> Any:
    settings = {"lr": 0.1, "pseudocount": 0.1, "method": "EM"}
    optimizer = juice.optim.CircuitOptimizer(circuit, **settings)
    circuit(x, record_cudagraph=True).mean().backward()

    def step():
        optimizer.zero_grad()
        circuit(x).mean().backward()
        optimizer.step()

    return step


def _sample(juice: Any, circuit: Any, x: Any) -> Any:
    return lambda: juice.queries.sample(circuit, num_samples=len(x))
