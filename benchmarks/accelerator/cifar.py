"""CIFAR-10 from its archive, by ``experiments.ade``: a circuit, one behind a flow."""

import functools
from typing import Any

from benchmarks.accelerator import programs
from benchmarks.accelerator.job import Job, Measurement, Skipped

# The flags, and the share of the time: a flow takes longer to compile.
_FLOWS: dict[str, tuple[dict[str, Any], float]] = {
    "circuit": ({"flow": "colour"}, 1 / 3),
    "flow and circuit": ({"flow": "multi_scale", "preprocess": "logit"}, 2 / 3),
}
_TINY = {
    "circuit": {},
    "flow and circuit": {"flow_levels": 1, "flow_steps": 1, "flow_filters": 2},
}
_SECONDS = 120.0
_SAVING = 20.0


def measurements(job: Job) -> list[Measurement]:
    """A run for each flow."""
    return [Measurement(name, functools.partial(_run, job, name)) for name in _FLOWS]


def _run(job: Job, name: str) -> dict[str, Any]:
    names = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
    if job.file(*names, *(f"cifar10/{each}" for each in names)) is None:
        raise Skipped(f"--data_dir has no {names[0]}")
    units = 2 if job.tiny else 64
    flow, share = _FLOWS[name]
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
        "eval_every": 2 if job.tiny else 100,
        "checkpoint_every": 1_000_000,
        **flow,
        **({"image_size": 8, **_TINY[name]} if job.tiny else {}),
    }
    total = min(_SECONDS, job.seconds - len(_FLOWS) * _SAVING)
    seconds = None if job.tiny else share * total
    folder = programs.run(job, "ade", name.replace(" ", "_"), flags, seconds)
    picture = programs.keep_picture(job, folder, f"cifar10_{name.replace(' ', '_')}")
    return {"dataset": "cifar10", **programs.metrics(folder), **picture}
