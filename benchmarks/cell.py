"""One cell of the benchmark: one task at one size, measured in a process of its own.

Used by `benchmarks.circuit` as ``python -m benchmarks.cell '{"task": "train", ...}'``;
prints one JSON object.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.tasks import DIFFERENTIABLE, Cell, make_task
import dspc_jax as pc


def run(cell: Cell) -> dict[str, Any]:
    """Measures a cell.

    Returns:
        The cell's fields, the machine's, the times of `measure.time_calls`, and
        ``params`` and ``weights`` (their numbers, of all and of the sums),
        ``build_s`` (structure and initial parameters), ``first_call_s``
        (compilation included), ``peak_rss_mib`` and ``run_rss_mib``
        (peak above the memory before the first call, with compilation and without),
        `measure.compiled_mib`, `measure.compiled_work`, ``device_peak_mib``,
        ``reference_gflops``, ``batched_gflops`` and the ``load`` of the machine,
        processes waiting included.

    Raises:
        FloatingPointError: the result, or a gradient, is not finite.
        ValueError: no gradient reaches one of the parameters.
    """
    load = os.getloadavg()[0]
    start = time.perf_counter()
    circuit = pc.build(cell.config())
    params = jax.block_until_ready(jax.jit(circuit.init)(jax.random.key(0)))
    build_s = time.perf_counter() - start
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(params.sums))
    function, state, data = make_task(cell, circuit, params)
    del params  # the state is donated
    keys = itertools.cycle(list(jax.random.split(jax.random.key(1), 64)))
    key = jax.block_until_ready(next(keys))
    measure.reset_peak_rss()
    base = measure.peak_rss_mib()

    start = time.perf_counter()
    compiled = function.lower(state, key, data).compile()
    state, result = jax.block_until_ready(compiled(state, key, data))
    first_call_s = time.perf_counter() - start
    _check(cell.task, state, result)
    del result
    peak = measure.peak_rss_mib()
    can_reset = measure.reset_peak_rss()

    def call():
        nonlocal state
        state, result = compiled(state, next(keys), data)
        return result

    times = measure.time_calls(call, seconds=cell.seconds)
    run_peak = measure.peak_rss_mib()
    return {
        **dataclasses.asdict(cell),
        "shape": cell.shape,
        "params": num_params,
        "weights": num_weights,
        "build_s": build_s,
        "first_call_s": first_call_s,
        **times,
        "peak_rss_mib": max(peak, run_peak) - base,
        "run_rss_mib": run_peak - base if can_reset else None,
        **measure.compiled_mib(compiled),
        **measure.compiled_work(compiled),
        "device_peak_mib": measure.device_peak_mib(),
        "reference_gflops": measure.reference_gflops(),
        "batched_gflops": measure.batched_gflops(cell.num_units, cell.batch),
        "load": load,
        **measure.machine(),
    }


def _check(task: str, state: Any, result: Any) -> None:
    """Raises where the result is wrong: its time is no measurement."""
    for leaf in jax.tree.leaves((state, result)):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise FloatingPointError(f"the result of {task} must be finite, got others")
    if task in DIFFERENTIABLE:
        _, gradient = result
        for path, leaf in jax.tree.leaves_with_path(gradient):
            # One class has one weight, 1, and nothing to learn.
            if leaf.size > 1 and not bool(jnp.any(leaf != 0)):
                name = jax.tree_util.keystr(path)
                raise ValueError(
                    f"the gradient of {task} must reach params{name}, got zeros"
                )


if __name__ == "__main__":
    print(json.dumps(run(Cell(**json.loads(sys.argv[1])))))
