"""What a run reports of its states: metrics and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console import metrics
from experiments.console.display import Display
from experiments.data import Dataset, to_images
from experiments.engine import best as best_states
from experiments.engine.best import Best
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.pace import Pace
from experiments.engine.saving import Saver

_NUM_PICTURES = 64  # images in a grid

Metrics = dict[str, np.ndarray]
"""Numbers by name, ``[S]`` each."""


class Run(NamedTuple):
    """The parts of a run that its steps share.

    Attributes:
        name: of the program, e.g. ``ll``.
        folder: of the run.
        settings: the shared flags.
        dataset: the images.
        loop: the steps on the devices.
        writer: of metrics and pictures.
        pace: of chunks of steps.
        display: of progress.
        saver: of states, in the folder.
        code: version and commit of this process's code, as it was at the start.
    """

    name: str
    folder: Path
    settings: Settings
    dataset: Dataset
    loop: DeviceLoop
    writer: MetricWriter
    pace: Pace
    display: Display
    saver: Saver
    code: Mapping[str, str | None]


class Due(NamedTuple):
    """Reports that are due after a step."""

    log: bool
    evaluate: bool
    save: bool


def evaluated(run: Run, state: Any, split: str) -> Metrics:
    """The metrics of a state on a split, ``[S]`` each."""
    values = run.loop.evaluate(state, run.loop.examples(split))
    return {f"{split}/{name}": value for name, value in values.items()}


def report(
    run: Run, carry: Carry, best: Best | None, step: int, due: Due
) -> tuple[Carry, Best | None, Metrics]:
    """Writes the metrics and pictures that are due.

    Returns:
        The carry, the best state, and the metrics on validation if they are due.
    """
    scalars: Metrics = {}
    valid: Metrics = {}
    if due.log:
        carry, means = run.loop.drain(carry)
        scalars |= {f"train/{k}": v for k, v in means.items()}
        run.display.show({name: float(v.mean()) for name, v in means.items()})
    if due.evaluate:
        with run.display.doing("evaluating"):
            valid = evaluated(run, carry.state, "valid")
        run.display.evaluated(in_words(valid))
        scalars |= valid
        if best is not None:
            best = best_states.updated(best, valid, step, carry.state)
    if scalars:  # before the checkpoint: its steps must be on disk
        run.writer.write_scalars(step, metrics.over_seeds(scalars))
    if due.evaluate:
        with run.display.doing("drawing"):
            draw(run, carry.state if best is None else best.state, step)
    return carry, best, valid


def in_words(valid: Metrics) -> str:
    """The first measure of a validation, for people; empty without one."""
    for name, unit in _MEASURES.items():
        values = valid.get(f"valid/{name}")
        if values is not None:
            return f"validation {float(np.mean(values)):.4g}{unit}"
    return ""


_MEASURES = {
    "bits_per_dim": " bits/dimension",
    "bits_per_dim_bound": " bits/dimension (a bound)",
    "negative_elbo": " nats/image (a bound)",
    "accuracy": " accuracy",
    "mmd2": " squared MMD",
}


def draw(run: Run, state: Any, step: int) -> None:
    """Real images beside the samples of the first seed."""
    real = run.dataset.valid[:_NUM_PICTURES]
    columns = {"real": real, **run.loop.sample(state, len(real))}
    pictures = {t: to_images(run.dataset, levels) for t, levels in columns.items()}
    run.writer.write_images("samples", step, pictures)
