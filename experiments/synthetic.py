"""The two-dimensional study: ``python -m experiments.synthetic``.

Mixtures of Gaussians learn six sets by likelihood, by the MMD of samples, by the exact
MMD and against a discriminator; the truth is known, and so is every density.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
from pathlib import Path
import time
from typing import Any, NoReturn

import jax
import numpy as np

from experiments.console import summary
from experiments.console.errors import RunFailed, UserError
from experiments.console.jobs import Jobs
from experiments.engine import app, flags
from experiments.two_dimensional import data as synthetic_data
from experiments.two_dimensional import report as synthetic_report
from experiments.two_dimensional import terms, training
from experiments.two_dimensional.settings import TrainingSettings, numbers

_PROGRAM = "experiments.synthetic"

_PAPER: dict[str, Any] = {
    "batch_size": 128,
    "init": "random",
    "relaxation": "gumbel_softmax",
    "temperature": 1.0,
    "bandwidths": "2,4,8,16",
    "kernel_slope": 0.0,
    "mmd_power": 1,
    "adv_discriminator": "mlp",
    "adv_hidden": "8,2",
    "adv_steps": 1,
    "adv_learning_rate": 2e-4,
    "adv_sampler_learning_rate": 2e-4,
    "adv_r1_weight": 0.0,
    "adv_average": 0.0,
}
_RATES = {"adv_learning_rate": 2e-3, "adv_sampler_learning_rate": 0.02}
PRESETS: dict[str, dict[str, Any]] = {
    "ours": {},
    "paper": _PAPER,
    "paper_bandwidths": _PAPER | {"bandwidths": "0.05,0.1,0.2,0.5,1"},
    "paper_relaxation": _PAPER | {"relaxation": "score_pathwise"},
    "paper_init": _PAPER | {"init": "data"},
    "paper_rates": _PAPER | _RATES,
    "paper_discriminator": _PAPER | _RATES | {"adv_hidden": "128,128"},
    "many_discriminator_steps": {"adv_steps": 30, "adv_learning_rate": 0.1},
    "small_batch": {"batch_size": 4},
    "soft_samples": {"relaxation": "gumbel_softmax"},
}


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What is compared."""

    sets: str = flags.flag(
        ",".join(synthetic_data.RECIPES), "sets of points, with commas"
    )
    objectives: str = flags.flag(
        "ll,mmd,exact_mmd,adv", "objectives, with commas; the first is the reference"
    )
    preset: str = flags.flag(
        "ours",
        "defaults of the other flags: ours, the paper's, the paper's with one thing "
        "changed, or a known way to fail: " + ", ".join(PRESETS),
        flags.one_of(*PRESETS),
    )
    workdir: str | None = flags.flag(
        None,
        "folder for results, table and figure; finished models are not trained again "
        "(default: out/synthetic-PRESET)",
        kind=flags.local_path,
    )


def _names(flag: str, text: str, known: Any) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(
                f"--{flag} must be some of {', '.join(known)}, got {name!r}"
            )
    return names


def _one(
    settings: TrainingSettings, objective: str, points: synthetic_data.PointSet
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains and measures; the density is that of the median seed."""
    start = time.perf_counter()
    outcome = jax.block_until_ready(training.train(settings, objective, points))
    circuit = training.make_circuit(points)
    measures = synthetic_report.measure(circuit, outcome.params, points, settings.seed)
    if not np.isfinite(measures.test_ll).all():
        raise RunFailed(
            f"{points.name}, {objective}: log-likelihood {measures.test_ll}"
        )
    middle = int(np.argsort(measures.test_ll)[len(measures.test_ll) // 2])
    params = jax.tree.map(lambda p: p[middle], outcome.params)
    result = {
        "set": points.name,
        "objective": objective,
        "settings": dataclasses.asdict(settings),
        **{k: v.tolist() for k, v in measures._asdict().items()},
        "train": {k: np.asarray(v).tolist() for k, v in outcome.metrics.items()},
        "seconds": time.perf_counter() - start,
    }
    return result, synthetic_report.density(circuit, params, points)


def _in_words(result: Mapping[str, Any]) -> str:
    """The outcome of a model for people."""
    return f"test log-likelihood {np.mean(result['test_ll']):.3f} nats a point"


def _load(path: Path, settings: TrainingSettings) -> dict[str, Any] | None:
    """A finished model's result, if there is one."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    if result["settings"] != dataclasses.asdict(settings):
        raise UserError(
            f"--workdir must be empty or of the same settings, got {str(path.parent)!r}"
        )
    return result


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, path)


parse = app.parser(
    _PROGRAM,
    "Compares objectives on two-dimensional sets, where the truth is known.",
    StudySettings,
    TrainingSettings,
    presets=lambda values: PRESETS[values["preset"]],
    example="--sets=moons,circles --objectives=ll,mmd --num_seeds=2",
)


def main(groups: list[Any]) -> int:
    """Runs the study.

    Args:
        groups: the flags: `StudySettings`, `TrainingSettings`.

    Returns:
        The exit code.
    """
    study, settings = groups
    sets = _names("sets", study.sets, synthetic_data.RECIPES)
    objectives = _names("objectives", study.objectives, terms.OBJECTIVES)
    for flag in ("bandwidths", "adv_hidden"):
        _check_numbers(flag, getattr(settings, flag))
    folder = Path(study.workdir or f"out/synthetic-{study.preset}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir must be a folder to write to: {error}") from error
    results, densities, points_of = [], {}, {}
    pairs = [(s, o) for s in sets for o in objectives]
    path_of = {pair: folder / f"{'-'.join(pair)}.json" for pair in pairs}
    num_missing = sum(not path.exists() for path in path_of.values())
    with contextlib.closing(Jobs("synthetic", len(pairs), num_missing)) as display:
        for name, objective in pairs:
            points = points_of.setdefault(name, synthetic_data.load(name))
            path = path_of[name, objective]
            result = _load(path, settings)
            image = path.with_suffix(".npy")
            if result is None:
                with display.running(f"{name} {objective}") as say:
                    result, density = _one(settings, objective, points)
                    say(_in_words(result))
                np.save(image, density.astype(np.float32))
                _write(path, json.dumps(result, indent=1).encode())
            else:
                display.passed()
            results.append(result)
            densities[name, objective] = np.load(image, allow_pickle=False)
    text = synthetic_report.table(results)
    _write(folder / "table.md", (text + "\n").encode())
    synthetic_report.figure(
        folder / "densities.png", list(points_of.values()), densities, objectives
    )
    summary.write(f"{text}\n\ntable and figure are in {folder}\n")
    return 0


def _check_numbers(flag: str, text: str) -> None:
    try:
        values = numbers(text, int if flag == "adv_hidden" else float)
    except ValueError:
        values = ()
    if not values or min(values) <= 0:
        raise UserError(f"--{flag} must be positive numbers with commas, got {text!r}")


def run() -> NoReturn:
    """Runs the program on the command line."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
