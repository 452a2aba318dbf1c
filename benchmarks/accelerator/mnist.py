"""MNIST to the best bits in three minutes, by ``experiments.ll``."""

import functools
import pathlib
from typing import Any

from benchmarks.accelerator import programs
from benchmarks.accelerator.job import Job, Measurement

FIRST, LAST = "mnist_first", "mnist_last"
_SECONDS = 180.0
_START = 25.0  # seconds of a program before its first step: a guess, no device yet
# Step size of Adam, and the share of the time: far with large steps, then settle.
_PHASES = {FIRST: (0.01, 0.7), LAST: (0.001, 0.3)}


def circuit_flags(job: Job) -> dict[str, Any]:
    """The data and the circuit, the same in all stages with MNIST."""
    units = 4 if job.tiny else 256
    return {
        **programs.mnist_flags(job),
        "structure": "quad_tree",
        "leaf": "categorical",
        "sum_layer": "cp_t",
        "num_sums": units,
        "num_leaves": units,
    }


def measurements(job: Job) -> list[Measurement]:
    """A run for each phase, the second from where the first stopped."""
    watch = programs.Stopwatch()
    total = min(_SECONDS, job.seconds - 20)
    return [
        Measurement(name, functools.partial(_phase, job, name, total, watch))
        for name in _PHASES
    ]


def _phase(job: Job, name: str, total: float, watch: programs.Stopwatch) -> dict:
    rate, share = _PHASES[name]
    flags = {
        **circuit_flags(job),
        "batch_size": 32 if job.tiny else 256,
        "learning_rate": rate,
        "num_steps": 6 if job.tiny else 1_000_000,
        "eval_every": 3 if job.tiny else 500,
        "log_every": 3 if job.tiny else 100,
        "checkpoint_every": 1_000_000,
    }
    first = pathlib.Path(job.work) / FIRST
    if name == LAST and first.exists():
        flags["start_from"] = first
    if "start_from" in flags and not job.tiny:
        # As many steps as fit, so that it ends by itself and meets the test images.
        steps, ratio = programs.metrics(first)["steps"], share / _PHASES[FIRST][1]
        flags["num_steps"] = max(1, int(steps * _fits(total, ratio)))
    seconds = total - watch.seconds if name == LAST else share * total
    folder = programs.run(job, "ll", name, flags, None if job.tiny else seconds)
    return {
        "dataset": flags["dataset"],
        "learning_rate": rate,
        **programs.metrics(folder),
        "since_start_s": watch.seconds,
        **programs.keep_picture(job, folder, name),
    }


def _fits(total: float, ratio: float) -> float:
    """Steps of the second phase over those of the first, each after its start."""
    first = total / (1 + ratio)
    return 0.9 * max(ratio * first - _START, 1.0) / max(first - _START, 1.0)
