"""MNIST to the best bits in three minutes, by the recipe of ``experiments.ll``."""

import functools
import pathlib
from typing import Any

from benchmarks.accelerator import programs
from benchmarks.accelerator.job import Job, Measurement, Skipped

FIRST, LAST = "mnist_first", "mnist_last"
_SECONDS = 180.0
_FIRST_STEPS = 330  # three epochs
_MOST_STEPS = 6600  # sixty


def circuit_flags(job: Job) -> dict[str, Any]:
    """The data and the circuit, the same in all stages with MNIST."""
    return {
        **programs.mnist_flags(job),
        "recipe": "none",
        "structure": "quad_graph",
        "leaf": "categorical",
        "sum_layer": "cp",
        "num_sums": 4 if job.tiny else 256,
        "num_leaves": 4 if job.tiny else 64,
    }


def likelihood_flags(job: Job, num_steps: int) -> dict[str, Any]:
    """Those of a run of ``experiments.ll`` of so many steps."""
    return {
        **circuit_flags(job),
        "start": "distill",
        "optimizer": "em",
        "em_rescale": "true",
        "em_pseudocount": 1,
        "em_leaf_pseudocount": 4,
        "em_decay_steps": num_steps,
        "num_steps": num_steps,
        "batch_size": 32 if job.tiny else 500,
        "eval_every": max(num_steps // 10, 1),
        "checkpoint_every": 1_000_000,
        "keep_best": "true",
    }


def measurements(job: Job) -> list[Measurement]:
    """Three epochs, and then as many as the time of the stage allows."""
    watch = programs.Stopwatch()
    total = min(_SECONDS, job.seconds - 20)
    return [
        Measurement(FIRST, functools.partial(_first, job, total, watch)),
        Measurement(LAST, functools.partial(_last, job, total, watch)),
    ]


def _first(job: Job, total: float, watch: programs.Stopwatch) -> dict[str, Any]:
    return _run(job, FIRST, 3 if job.tiny else _FIRST_STEPS, total, watch)


def _last(job: Job, total: float, watch: programs.Stopwatch) -> dict[str, Any]:
    """A run from nothing, as long as the first one's speed lets it be."""
    if job.tiny:
        return _run(job, LAST, 6, total, watch)
    first = programs.metrics(pathlib.Path(job.work) / FIRST)
    speed = first["steps_per_second"]
    start = watch.seconds - first["steps"] / speed
    steps = int(0.9 * speed * (_SECONDS - start))
    left = job.seconds - watch.seconds - 10
    steps = min(steps, int(0.9 * speed * (left - start)), _MOST_STEPS)
    if steps <= _FIRST_STEPS:
        raise Skipped(f"no more than {max(steps, 0)} steps would fit")
    return _run(job, LAST, steps, left, watch)


def _run(job, name, num_steps, seconds, watch) -> dict[str, Any]:
    flags = likelihood_flags(job, num_steps)
    folder = programs.run(job, "ll", name, flags, None if job.tiny else seconds)
    return {
        "dataset": flags["dataset"],
        **programs.metrics(folder),
        "since_start_s": watch.seconds,
        **programs.keep_picture(job, folder, name),
    }
