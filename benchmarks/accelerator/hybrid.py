"""MMD on features beside the likelihood, against likelihood alone, from one start."""

import functools
import json
import pathlib
from typing import Any

from benchmarks.accelerator import mnist, programs
from benchmarks.accelerator.job import Job, Measurement

_JUDGE, _CRITICS = "hybrid_judge", "hybrid_critics"
_RUNS: dict[str, dict[str, Any]] = {
    "hybrid_likelihood": {"sample_weight": 0},
    "hybrid_mmd": {"balance": "norm", "mmd_kernel": "classifier"},
}


def measurements(job: Job) -> list[Measurement]:
    """The start, the classifiers, and the two runs with their distances."""
    return [
        Measurement("start", functools.partial(_start, job)),
        *(
            Measurement(name, functools.partial(_classifier, job, name))
            for name in (_JUDGE, _CRITICS)
        ),
        *(Measurement(name, functools.partial(_run, job, name)) for name in _RUNS),
    ]


def _start_folder(job: Job) -> pathlib.Path:
    """A run of the stage ``mnist`` where there is one, the last one first."""
    runs = [pathlib.Path(job.work) / name for name in (mnist.LAST, mnist.FIRST)]
    ended = [folder for folder in runs if (folder / "result.json").exists()]
    return ended[0] if ended else pathlib.Path(job.work) / "hybrid_start"


def _start(job: Job) -> dict[str, Any]:
    folder = _start_folder(job)
    if not folder.exists():
        flags = mnist.likelihood_flags(job, 3 if job.tiny else 330)
        programs.run(job, "ll", folder.name, flags, job.seconds / 4)
    return {"dataset": programs.mnist_flags(job)["dataset"], **programs.metrics(folder)}


def _classifier(job: Job, name: str) -> dict[str, Any]:
    several = {"seed": 1, "num_seeds": 4, "classifier_filters": 8}
    flags = {
        **programs.mnist_flags(job),
        "num_steps": 2 if job.tiny else 1000,
        **(several if name == _CRITICS else {}),
    }
    programs.run(job, "classifier", name, flags, job.seconds / 8)
    return {}


def _run(job: Job, name: str) -> dict[str, Any]:
    work = pathlib.Path(job.work)
    flags = {
        **mnist.circuit_flags(job),
        "batch_size": 16 if job.tiny else 128,
        "num_steps": 2 if job.tiny else 300,
        "start_from": _start_folder(job),
        "pretrain_steps": 0,
        "ll_weight": 1,
        "sampler_learning_rate": 0.001,
        **_RUNS[name],
    }
    if name == "hybrid_mmd":
        flags["mmd_classifier"] = work / _CRITICS
    folder = programs.run(job, "mmd", name, flags)
    evaluation = {
        "run": folder,
        "classifier": work / _JUDGE,
        "num_samples": 50 if job.tiny else 5000,
        "num_completions": 0,
        "cas_steps": 0,
    }
    programs.run(job, "evaluate", name, evaluation)
    return {
        "dataset": flags["dataset"],
        **programs.metrics(folder),
        **_distances(folder),
        **programs.keep_picture(job, folder, name),
    }


def _distances(folder: pathlib.Path) -> dict[str, Any]:
    """Frechet and kernel distance of samples, and of real images as the floor."""
    rows = json.loads((folder / "evaluation.json").read_text())["rows"]
    titles = {"": "sampled", "real_": "real, training set"}
    return {
        f"{prefix}{name}": rows[title][name]
        for prefix, title in titles.items()
        for name in ("fd_classifier", "kd_classifier")
        if title in rows
    }
