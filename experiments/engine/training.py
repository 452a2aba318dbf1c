"""One training loop for all programs; it knows no objective.

A run is a function of its flags: batches and keys depend on (seed, step) only, so one
that was killed and started again ends with the same bits as one that was not.
"""

from collections.abc import Mapping, Sequence
import contextlib
from pathlib import Path
import signal
import sys
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np
import tqdm

from dspc_jax.learning.loop import Carry
from experiments.console import metrics, summary
from experiments.console.errors import RunFailed, UserError
from experiments.data import Dataset, describe, to_images
from experiments.engine import flags, run_folder, starting
from experiments.engine.checkpointing import Checkpoints
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.pace import Pace
from experiments.engine.signals import Signals
from experiments.engine.system import System
from experiments.engine.workdir import claim

_NUM_PICTURES = 64  # images in a grid

_Metrics = dict[str, np.ndarray]


class _Run(NamedTuple):
    """The parts of a run that its steps share.

    Attributes:
        name: of the program, e.g. ``ll``.
        folder: of the run.
        settings: the shared flags.
        dataset: the images.
        loop: the steps on the devices.
        checkpoints: in the folder.
        writer: of metrics and pictures.
        pace: of chunks of steps.
    """

    name: str
    folder: Path
    settings: Settings
    dataset: Dataset
    loop: DeviceLoop
    checkpoints: Checkpoints
    writer: MetricWriter
    pace: Pace


class _Due(NamedTuple):
    """Reports that are due after a step."""

    log: bool
    evaluate: bool
    save: bool


def run(
    program: str,
    system: System,
    dataset: Dataset,
    groups: Sequence[Any],
    defaults: Mapping[str, Any] | None = None,
) -> int:
    """Trains ``system``, or continues, or reports that there is nothing left to do.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        system: the functions that are trained.
        dataset: the images.
        groups: all flags of the program, `Settings` first.
        defaults: the program's own defaults for flags, by name: what those flags were
            in a run that is older than they are.

    Returns:
        The exit code: 0 finished, 128 + signal number stopped by that signal.

    Raises:
        UserError: the workdir or a flag does not fit; nothing has been trained.
        RunFailed: a metric was not finite; the last good checkpoint is kept.
    """
    settings: Settings = groups[0]
    num_devices = len(jax.devices())
    if settings.batch_size % num_devices:
        raise UserError(
            f"--batch_size must be a multiple of the {num_devices} devices, "
            f"got {settings.batch_size}"
        )
    if settings.start != "examples":
        if system.start is None:
            raise UserError(
                f"--start must be examples with this program, got {settings.start!r}"
            )
        if settings.start_from is not None:
            raise UserError(
                "--start must be examples with --start_from, whose circuit it would "
                f"replace, got {settings.start!r}"
            )
    name = run_folder.short_name(program)
    folder = Path(settings.workdir or f"out/{name}-{dataset.name}")
    with claim(
        folder,
        program,
        flags.by_name(groups),
        flags.free_flags(groups),
        flags.defaults_of(groups, defaults),
    ):
        run_folder.clear_failure(folder)
        try:
            return _run(name, folder, system, dataset, groups)
        except RunFailed as error:
            run_folder.write_failure(folder, str(error))
            raise


def _run(
    name: str, folder: Path, system: System, dataset: Dataset, groups: Sequence[Any]
) -> int:
    settings: Settings = groups[0]
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(folder)
        stack.callback(checkpoints.close)
        first_step = checkpoints.latest_step() or 0
        if first_step > settings.num_steps:
            raise UserError(
                f"--num_steps must be at least {first_step}, the steps that "
                f"{str(folder)!r} already has, got {settings.num_steps}"
            )
        result = run_folder.finished_result(folder, first_step)
        if first_step == settings.num_steps and result:
            summary.write(f"{name}: finished before, nothing left to do\n")
            summary.write(summary.summary(result, folder))
            return 0
        loop = _make_loop(system, dataset, settings)
        summary.write(describe(dataset) + "\n")
        carry = _first_carry(loop, checkpoints, groups)
        if first_step:
            summary.write(f"{name}: continues {folder} after step {first_step}\n")
        writer = MetricWriter(folder, first_step)
        stack.callback(writer.close)
        pace = Pace(loop.max_chunk)
        run = _Run(name, folder, settings, dataset, loop, checkpoints, writer, pace)
        with Signals() as signals:
            carry, step, valid = _train(run, carry, first_step, signals)
        if step < settings.num_steps:
            assert signals.received is not None
            summary.write(
                f"{name}: stopped by {signal.Signals(signals.received).name} after "
                f"step {step}; saved in {folder}, the same command continues\n"
            )
            return 128 + signals.received
        result = _result(run, carry, valid, first_step, start)
        writer.write_result(result)
    summary.write(summary.summary(result, folder))
    return 0


def _make_loop(system: System, dataset: Dataset, settings: Settings) -> DeviceLoop:
    return DeviceLoop(
        system,
        dataset,
        settings.seed,
        settings.num_seeds,
        settings.batch_size,
        Mesh(np.array(jax.devices()), ("batch",)),
        _resident_bytes(),
        flip=settings.flip == "horizontal",
    )


def _resident_bytes() -> int:
    """Training sets up to this size are kept on the devices."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 8 * 2**30) // 4  # the rest is for training


def _first_carry(
    loop: DeviceLoop, checkpoints: Checkpoints, groups: Sequence[Any]
) -> Carry:
    """The state of the newest checkpoint, or that before the first step."""
    step = checkpoints.latest_step()
    if step is not None:
        return loop.put(checkpoints.restore(step, loop.abstract()))
    carry = loop.init()
    if groups[0].start_from is None:
        return loop.started(carry)
    return loop.put(starting.started(carry, groups))


def _result(
    run: _Run, carry: Carry, valid: _Metrics, first_step: int, start: float
) -> dict[str, Any]:
    """The result of a finished run, whose metrics on validation are there already."""
    final = (valid or _evaluated(run, carry, "valid")) | _evaluated(run, carry, "test")
    return {
        "program": run.name,
        "dataset": run.dataset.name,
        "data": run.dataset.source,
        "step": run.settings.num_steps,
        "seeds": run.settings.seeds,
        "steps_per_second": run.pace.rate,
        # Of this process, compilation and evaluation included; the time before
        # `first_step` of a run that was continued is not in it.
        "seconds": time.perf_counter() - start,
        "first_step": first_step,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "metrics": metrics.over_seeds(final),
    }


def _evaluated(run: _Run, carry: Carry, split: str) -> _Metrics:
    values = run.loop.evaluate(carry.state, run.loop.examples(split))
    return {f"{split}/{name}": value for name, value in values.items()}


# ---- steps -----------------------------------------------------------------------


def _train(
    run: _Run, carry: Carry, step: int, signals: Signals
) -> tuple[Carry, int, _Metrics]:
    """Trains from ``step`` to the last step, or until a signal; saves at the end.

    Returns:
        The state, its step, and the metrics on validation if they are of this state.
    """
    num_steps, saved = run.settings.num_steps, step
    valid: _Metrics = {}
    with tqdm.tqdm(
        total=num_steps,
        initial=step,
        desc=run.name,
        unit="step",
        disable=not sys.stderr.isatty(),
    ) as bar:
        while step < num_steps and signals.received is None:
            num = min(_steps_to_next_stop(run.settings, step), run.pace.steps)
            carry = _advance(run, carry, step, num)
            step += num
            bar.update(num)
            due = _due(run.settings, step)
            carry, valid = _report(run, carry, step, due, bar)
            if due.save:
                _save(run, carry, step)
                saved = step
        if step > saved:
            _save(run, carry, step)
    return carry, step, valid


def _intervals(settings: Settings) -> tuple[int, int, int]:
    return settings.log_every, settings.eval_every, settings.checkpoint_every


def _steps_to_next_stop(settings: Settings, step: int) -> int:
    """Steps until something is due."""
    stops = [(step // every + 1) * every for every in _intervals(settings)]
    return min(settings.num_steps, *stops) - step


def _due(settings: Settings, step: int) -> _Due:
    is_last = step == settings.num_steps
    return _Due(*(is_last or step % every == 0 for every in _intervals(settings)))


def _advance(run: _Run, carry: Carry, step: int, num: int) -> Carry:
    """Takes ``num`` steps after ``step``."""
    with run.pace.measure(num):
        carry, failure = run.loop.run(carry, step, num)
    if failure is not None:
        raise RunFailed(
            f"{failure.metric} is {failure.value} at step {failure.step} "
            f"(seed {failure.seed}); {_kept(run.checkpoints)}"
        )
    return carry


def _report(
    run: _Run, carry: Carry, step: int, due: _Due, bar: tqdm.tqdm
) -> tuple[Carry, _Metrics]:
    """Writes the metrics and pictures that are due; returns those on validation."""
    scalars: _Metrics = {}
    valid: _Metrics = {}
    if due.log:
        carry, means = run.loop.drain(carry)
        scalars |= {f"train/{k}": v for k, v in means.items()}
        bar.set_postfix({k: f"{v.mean():.4g}" for k, v in means.items()})
    if due.evaluate:
        valid = _evaluated(run, carry, "valid")
        scalars |= valid
    if scalars:  # before the checkpoint: its steps must be on disk
        run.writer.write_scalars(step, metrics.over_seeds(scalars))
    if due.evaluate:
        _draw(run, carry, step)
    return carry, valid


def _draw(run: _Run, carry: Carry, step: int) -> None:
    """Real images beside the samples of the first seed."""
    real = run.dataset.valid[:_NUM_PICTURES]
    columns = {"real": real, **run.loop.sample(carry.state, len(real))}
    pictures = {t: to_images(run.dataset, levels) for t, levels in columns.items()}
    run.writer.write_images("samples", step, pictures)


def _save(run: _Run, carry: Carry, step: int) -> None:
    """Saves, unless the state is broken in a way that no metric has shown yet."""
    broken = run.loop.seeds_with_nan(carry)
    if broken:
        raise RunFailed(
            f"the state is nan after step {step} (seed {broken[0]}); "
            + _kept(run.checkpoints)
        )
    run.checkpoints.save(step, carry)


def _kept(checkpoints: Checkpoints) -> str:
    step = checkpoints.latest_step()
    if step is None:
        return "no checkpoint had been written"
    return f"the checkpoint of step {step} is kept"
