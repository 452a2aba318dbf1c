"""CIFAR-10 from its archive, by ``experiments.ade``: a circuit, one behind a flow."""

import functools
from typing import Any

from benchmarks.accelerator import programs
from benchmarks.accelerator.job import Job, Measurement, Skipped

_FLOWS: dict[str, dict[str, Any]] = {
    "circuit": {"flow": "colour"},
    "flow and circuit": {"flow": "multi_scale", "preprocess": "logit"},
}
_SECONDS = 60.0


def measurements(job: Job) -> list[Measurement]:
    """A run for each flow."""
    return [
        Measurement(name, functools.partial(_run, job, name, flow))
        for name, flow in _FLOWS.items()
    ]


def _run(job: Job, name: str, flow: dict[str, Any]) -> dict[str, Any]:
    names = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
    if job.file(*names, *(f"cifar10/{each}" for each in names)) is None:
        raise Skipped(f"no {names[0]} in --data_dir={job.data_dir}")
    units = 2 if job.tiny else 64
    flags = {
        "dataset": "cifar10",
        "data_dir": job.data_dir,
        "data_source": "files",
        "num_sums": units,
        "num_leaves": units,
        "batch_size": 4 if job.tiny else 128,
        "pretrain_steps": 0,
        "sample_weight": 0,
        "num_steps": 2 if job.tiny else 1_000_000,
        "eval_every": 2 if job.tiny else 250,
        "checkpoint_every": 1_000_000,
        **flow,
        **({"image_size": 8} if job.tiny else {}),
    }
    seconds = None if job.tiny else min(_SECONDS, job.seconds / 2 - 10)
    folder = programs.run(job, "ade", name.replace(" ", "_"), flags, seconds)
    picture = programs.keep_picture(job, folder, f"cifar10_{name.replace(' ', '_')}")
    return {"dataset": "cifar10", **programs.metrics(folder), **picture}
