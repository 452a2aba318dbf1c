"""One training loop for all programs; it knows no objective.

A run is a function of its flags: batches and keys depend on (seed, step) only, so one
that was killed and started again ends with the same bits as one that was not.
"""

from collections.abc import Mapping, Sequence
import contextlib
from pathlib import Path
import signal
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console import metrics, summary
from experiments.console.display import Display
from experiments.console.errors import RunFailed, UserError
from experiments.data import Dataset, describe, to_images
from experiments.engine import best as best_states
from experiments.engine import flags, run_folder, starting
from experiments.engine.best import Best, Progress
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
    free = flags.free_flags(groups)
    if settings.keep_best:
        best_states.check(system, dataset)
        free -= {"num_steps", "eval_every"}  # they decide which state is the best
    name = run_folder.short_name(program)
    folder = Path(settings.workdir or f"out/{name}-{dataset.name}")
    with claim(
        folder,
        program,
        flags.by_name(groups),
        free,
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
        if result and run_folder.is_finished(result, settings.num_steps):
            summary.write(f"{name}: finished before, nothing left to do\n")
            summary.write(summary.summary(result, folder))
            return 0
        loop = _make_loop(system, dataset, settings)
        summary.write(describe(dataset) + "\n")
        carry, best = _first_states(loop, checkpoints, groups)
        if first_step:
            summary.write(f"{name}: continues {folder} after step {first_step}\n")
        writer = MetricWriter(folder, first_step)
        stack.callback(writer.close)
        pace = Pace(loop.max_chunk)
        run = _Run(name, folder, settings, dataset, loop, checkpoints, writer, pace)
        with Signals() as signals:
            carry, best, step, valid = _train(run, carry, best, first_step, signals)
        if not _is_over(run, best, step):
            assert signals.received is not None
            summary.write(
                f"{name}: stopped by {signal.Signals(signals.received).name} after "
                f"step {step}; saved in {folder}, the same command continues\n"
            )
            return 128 + signals.received
        state = carry.state
        if best is not None:
            state, valid = loop.put(best.state), {}
        result = _result(run, state, valid, step, first_step, start)
        result |= _choice(run, best, step)
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


def _first_states(
    loop: DeviceLoop, checkpoints: Checkpoints, groups: Sequence[Any]
) -> tuple[Carry, Best | None]:
    """The states of the newest checkpoint, or those before the first step."""
    settings: Settings = groups[0]

    def no_best(state: Any) -> Best | None:
        if not settings.keep_best:
            return None
        return best_states.nothing(settings.num_seeds, state)

    step = checkpoints.latest_step()
    if step is not None:
        carry = loop.abstract()
        target = Progress(*carry, no_best(carry.state))
        stored = checkpoints.restore(step, target)
        return loop.put(stored.carry), stored.best
    carry = loop.init()
    if settings.start_from is None:
        carry = loop.started(carry)
    else:
        carry = loop.put(starting.started(carry, groups))
    best = no_best(carry.state)
    # The carry is donated to its first step.
    return carry, best and best._replace(state=best_states.on_host(carry.state))


def _result(
    run: _Run, state: Any, valid: _Metrics, step: int, first_step: int, start: float
) -> dict[str, Any]:
    """The result of a finished run, whose metrics on validation may be there."""
    final = (valid or _evaluated(run, state, "valid")) | _evaluated(run, state, "test")
    return {
        "program": run.name,
        "dataset": run.dataset.name,
        "data": run.dataset.source,
        "step": step,
        "seeds": run.settings.seeds,
        "steps_per_second": run.pace.rate,
        # Of this process, compilation and evaluation included; the time before
        # `first_step` of a run that was continued is not in it.
        "seconds": time.perf_counter() - start,
        "first_step": first_step,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "metrics": metrics.over_seeds(final),
    }


def _choice(run: _Run, best: Best | None, step: int) -> dict[str, Any]:
    """Of which steps the states of the result are, and whether the run ended early."""
    if best is None:
        return {}
    early = {"stopped_step": step} if step < run.settings.num_steps else {}
    return {"best_step": best.step.tolist()} | early


def _evaluated(run: _Run, state: Any, split: str) -> _Metrics:
    values = run.loop.evaluate(state, run.loop.examples(split))
    return {f"{split}/{name}": value for name, value in values.items()}


# ---- steps -----------------------------------------------------------------------


def _train(
    run: _Run, carry: Carry, best: Best | None, step: int, signals: Signals
) -> tuple[Carry, Best | None, int, _Metrics]:
    """Trains from ``step`` until the run is over, or a signal comes; saves at the end.

    Returns:
        The state, the best one, the step of the former, and its metrics on validation
        if there are any.
    """
    num_steps, saved = run.settings.num_steps, step
    valid: _Metrics = {}
    with Display(run.name, step, num_steps) as display:
        while not _is_over(run, best, step) and signals.received is None:
            num = min(_steps_to_next_stop(run.settings, step), run.pace.steps)
            carry = _advance(run, carry, step, num)
            step += num
            display.advance(num)
            due = _due(run.settings, step)
            carry, best, valid = _report(run, carry, best, step, due, display)
            if due.save:
                _save(run, carry, best, step)
                saved = step
        if step > saved:
            _save(run, carry, best, step)
    return carry, best, step, valid


def _is_over(run: _Run, best: Best | None, step: int) -> bool:
    """Whether all steps are done, or the last ones were in vain for too long."""
    settings = run.settings
    return step == settings.num_steps or best_states.is_over(
        best, step, settings.patience, settings.eval_every
    )


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
    run: _Run, carry: Carry, best: Best | None, step: int, due: _Due, display: Display
) -> tuple[Carry, Best | None, _Metrics]:
    """Writes the metrics and pictures that are due.

    Returns:
        The carry, the best state, and the metrics on validation if they are due.
    """
    scalars: _Metrics = {}
    valid: _Metrics = {}
    if due.log:
        carry, means = run.loop.drain(carry)
        scalars |= {f"train/{k}": v for k, v in means.items()}
        display.show({name: float(v.mean()) for name, v in means.items()})
    if due.evaluate:
        valid = _evaluated(run, carry.state, "valid")
        scalars |= valid
        if best is not None:
            best = best_states.updated(best, valid, step, carry.state)
    if scalars:  # before the checkpoint: its steps must be on disk
        run.writer.write_scalars(step, metrics.over_seeds(scalars))
    if due.evaluate:
        _draw(run, carry.state if best is None else best.state, step)
    return carry, best, valid


def _draw(run: _Run, state: Any, step: int) -> None:
    """Real images beside the samples of the first seed."""
    real = run.dataset.valid[:_NUM_PICTURES]
    columns = {"real": real, **run.loop.sample(state, len(real))}
    pictures = {t: to_images(run.dataset, levels) for t, levels in columns.items()}
    run.writer.write_images("samples", step, pictures)


def _save(run: _Run, carry: Carry, best: Best | None, step: int) -> None:
    """Saves, unless the state is broken in a way that no metric has shown yet."""
    broken = run.loop.seeds_with_nan(carry)
    if broken:
        raise RunFailed(
            f"the state is nan after step {step} (seed {broken[0]}); "
            + _kept(run.checkpoints)
        )
    run.checkpoints.save(step, Progress(*carry, best))


def _kept(checkpoints: Checkpoints) -> str:
    step = checkpoints.latest_step()
    if step is None:
        return "no checkpoint had been written"
    return f"the checkpoint of step {step} is kept"
