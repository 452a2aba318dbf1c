"""One training loop for all programs; it knows no objective.

A run is a function of its flags: batches and keys depend on (seed, step) only, so one
that was killed and started again ends with the same bits as one that was not.
"""

from collections.abc import Mapping, Sequence
import contextlib
from pathlib import Path
import signal
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console import metrics, summary
from experiments.console.display import Display
from experiments.console.errors import RunFailed, UserError
from experiments.data import Dataset, describe
from experiments.engine import best as best_states
from experiments.engine import code_version, flags, run_folder, starting
from experiments.engine.best import Best, Progress
from experiments.engine.checkpointing import Checkpoints
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.pace import Pace
from experiments.engine.reports import (
    Due,
    Metrics,
    Run,
    draw,
    evaluated,
    in_words,
    report,
)
from experiments.engine.saving import Saver, closed_steps
from experiments.engine.signals import Signals
from experiments.engine.system import System
from experiments.engine.workdir import claim


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
    if settings.em_closing_steps:
        if system.closing is None:
            raise UserError(
                "--em_closing_steps must be 0 with this program, got "
                f"{settings.em_closing_steps}"
            )
        free -= {"num_steps"}  # after the closing steps there are no others
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
        if first_step > settings.all_steps:
            raise UserError(
                f"--num_steps must be at least {first_step}, the steps that "
                f"{str(folder)!r} already has, got {settings.num_steps}"
            )
        result = run_folder.finished_result(folder, first_step)
        if result and run_folder.is_finished(result, settings.all_steps):
            summary.write(f"{name}: finished before, nothing left to do\n")
            summary.write(summary.summary(result, folder))
            return 0
        loop = _make_loop(system, dataset, settings)
        summary.write(describe(dataset) + "\n")
        if first_step:
            summary.write(f"{name}: continues {folder} after step {first_step}\n")
        display = Display(name, first_step, settings.all_steps, loop.units)
        stack.enter_context(display)
        with display.doing("starting"):
            carry, best, num_closed = _first_states(loop, checkpoints, groups)
        writer = MetricWriter(folder, first_step)
        stack.callback(writer.close)
        pace = Pace(loop.max_chunk)
        code = {
            "version": code_version.version(),
            "commit": code_version.commit_of_code(),
        }
        run = Run(
            *(name, folder, settings, dataset, loop, writer, pace, display),
            Saver(checkpoints, loop, settings),
            code,
        )
        num_trained, valid = first_step - num_closed, {}
        with Signals(last_words=lambda: _last_words(run)) as signals:
            if not num_closed:
                carry, best, num_trained, valid = _train(
                    run, carry, best, num_trained, signals
                )
            is_over = num_closed > 0 or _is_over(run, best, num_trained)
            if is_over and settings.em_closing_steps:
                carry, best, num_closed, valid = _close(
                    run, carry, best, num_trained, num_closed, signals
                )
                is_over = num_closed == settings.em_closing_steps
        step = num_trained + num_closed
        if not is_over:
            assert signals.received is not None
            display.close()
            summary.write(
                f"{name}: stopped by {signal.Signals(signals.received).name} after "
                f"step {step}; saved in {folder}, the same command continues\n"
            )
            return 128 + signals.received
        state = carry.state
        if best is not None:
            state, valid = loop.put(best.state), {}
        with display.doing("evaluating"):
            result = _result(run, state, valid, step, first_step, start)
        result |= _choice(best, step, num_trained < settings.num_steps)
        writer.write_result(result)
    summary.write(summary.summary(result, folder))
    return 0


def _last_words(run: Run) -> str:
    """What is said where a long step, or the compiler, does not let a run end."""
    return (
        f"{run.name}: stopped within a step, or before one; {run.saver.kept()} in "
        f"{run.folder}, the same command continues"
    )


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
) -> tuple[Carry, Best | None, int]:
    """The states of the newest checkpoint, or those before the first step.

    With them the number of closing steps that they have.
    """
    settings: Settings = groups[0]

    def no_best(state: Any) -> Best | None:
        if not settings.keep_best:
            return None
        return best_states.nothing(settings.num_seeds, state)

    step = checkpoints.latest_step()
    if step is not None:
        carry = loop.abstract()
        target = Progress(*carry, no_best(carry.state), closed_steps(settings, 0))
        stored = checkpoints.restore(step, target)
        return loop.put(stored.carry), stored.best, int(stored.num_closed or 0)
    carry = loop.init()
    if settings.start_from is None:
        carry = loop.started(carry)
    else:
        carry = loop.put(starting.started(carry, groups))
    best = no_best(carry.state)
    # The carry is donated to its first step.
    return carry, best and best._replace(state=best_states.on_host(carry.state)), 0


def _result(
    run: Run, state: Any, valid: Metrics, step: int, first_step: int, start: float
) -> dict[str, Any]:
    """The result of a finished run, whose metrics on validation may be there."""
    final = (valid or evaluated(run, state, "valid")) | evaluated(run, state, "test")
    return {
        "program": run.name,
        **run.code,
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


def _choice(best: Best | None, step: int, is_early: bool) -> dict[str, Any]:
    """Of which steps the states of the result are, and whether the run ended early."""
    if best is None:
        return {}
    early = {"stopped_step": step} if is_early else {}
    return {"best_step": best.step.tolist()} | early


# ---- steps -----------------------------------------------------------------------


def _train(
    run: Run, carry: Carry, best: Best | None, step: int, signals: Signals
) -> tuple[Carry, Best | None, int, Metrics]:
    """Trains from ``step`` until the run is over, or a signal comes; saves at the end.

    Returns:
        The state, the best one, the step of the former, and its metrics on validation
        if there are any.
    """
    saved = step
    valid: Metrics = {}
    while not _is_over(run, best, step) and signals.received is None:
        num = min(_steps_to_next_stop(run.settings, step), run.pace.steps)
        with run.display.steps(num):
            carry = _advance(run, carry, step, num)
        step += num
        due = _due(run.settings, step)
        carry, best, valid = report(run, carry, best, step, due)
        if due.save or run.saver.is_overdue():
            run.saver.save(carry, best, 0, step)
            saved = step
    if step > saved:
        run.saver.save(carry, best, 0, step)
    return carry, best, step, valid


def _close(
    run: Run, carry: Carry, best: Best | None, step: int, num: int, signals: Signals
) -> tuple[Carry, Best | None, int, Metrics]:
    """The full-batch steps, from the best state where it is kept; saves after each.

    Args:
        run: the parts of the run.
        carry: after the last of the steps.
        best: so far.
        step: how many steps there were.
        num: closing steps done before.
        signals: ask it to end.

    Returns:
        The state, the best one, the closing steps done, and the metrics on validation
        if there are any.
    """
    closing = run.loop.closing
    assert closing is not None
    valid: Metrics = {}
    if best is not None and not num:
        carry = carry._replace(state=run.loop.put(best.state))
    while num < run.settings.em_closing_steps:
        with run.display.doing("in a step on all images"):
            state = closing.step(carry.state, num, lambda: signals.received is not None)
        if state is None:
            break
        run.display.advance(1)
        num, carry = num + 1, carry._replace(state=state)
        with run.display.doing("evaluating"):
            valid = evaluated(run, state, "valid")
        run.display.evaluated(in_words(valid))
        if best is not None:
            best = best_states.updated(best, valid, step + num, state)
        run.writer.write_scalars(step + num, metrics.over_seeds(valid))
        if num == run.settings.em_closing_steps:
            draw(run, state if best is None else best.state, step + num)
        run.saver.save(carry, best, num, step + num)
    return carry, best, num, valid


def _is_over(run: Run, best: Best | None, step: int) -> bool:
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


def _due(settings: Settings, step: int) -> Due:
    is_last = step == settings.num_steps
    return Due(*(is_last or step % every == 0 for every in _intervals(settings)))


def _advance(run: Run, carry: Carry, step: int, num: int) -> Carry:
    """Takes ``num`` steps after ``step``."""
    with run.pace.measure(num):
        carry, failure = run.loop.run(carry, step, num)
    if failure is not None:
        raise RunFailed(
            f"{failure.metric} is {failure.value} at step {failure.step} "
            f"(seed {failure.seed}); {run.saver.kept()}"
        )
    return carry
