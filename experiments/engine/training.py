"""One training loop for all programs; it knows no objective.

A run is a function of its flags: batches and keys depend on (seed, step) only, so one
that was killed and started again ends with the same bits as one that was not.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import json
from pathlib import Path
import signal
import sys
import threading
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import tqdm

from experiments.console import summary
from experiments.console.errors import RunFailed, UserError
from experiments.data import Dataset, describe
from experiments.engine import flags as flags_lib
from experiments.engine import starting
from experiments.engine.checkpointing import Checkpoints
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.system import Carry, System
from experiments.engine.workdir import claim, write_atomically
from experiments.models.preprocessing import to_images

_NUM_PICTURES = 64  # images in a grid
_CHUNK_SECONDS = 0.5  # how long a signal or the progress bar may have to wait


def run(program: str, system: System, dataset: Dataset, groups: Sequence[Any]) -> int:
    """Trains ``system``, or continues, or reports that there is nothing left to do.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        system: what is trained.
        dataset: on what.
        groups: all flags of the program, `Settings` first.

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
    name = program.removeprefix("experiments.")
    workdir = Path(settings.workdir or f"out/{name}-{settings.dataset}")
    values = {k: v for group in groups for k, v in dataclasses.asdict(group).items()}
    failure = workdir / "failure.json"
    with claim(workdir, program, values, flags_lib.free_flags(groups)):
        failure.unlink(missing_ok=True)
        try:
            return _run(name, system, dataset, groups, workdir)
        except RunFailed as error:
            write_atomically(failure, json.dumps({"reason": str(error)}) + "\n")
            raise


def _run(
    name: str, system: System, dataset: Dataset, groups: Sequence[Any], workdir: Path
) -> int:
    settings: Settings = groups[0]
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints")
        stack.callback(checkpoints.close)
        step = first_step = checkpoints.latest_step() or 0
        if step > settings.num_steps:
            raise UserError(
                f"--num_steps must be at least {step}, the steps that {str(workdir)!r} "
                f"already has, got {settings.num_steps}"
            )
        if step == settings.num_steps and _report_again(name, workdir, step):
            return 0
        loop = DeviceLoop(
            system,
            dataset,
            settings.seed,
            settings.num_seeds,
            settings.batch_size,
            Mesh(np.array(jax.devices()), ("batch",)),
            _resident_bytes(),
            flip=settings.flip == "horizontal",
        )
        summary.write(describe(dataset) + "\n")
        if step:
            carry = loop.put(checkpoints.restore(step, loop.abstract()))
            summary.write(f"{name}: continues {workdir} after step {step}\n")
        else:
            carry = loop.init()
            if settings.start_from is not None:
                carry = loop.put(starting.started(carry, groups))
        writer = MetricWriter(workdir, step)
        stack.callback(writer.close)
        pace = _Pace(loop.max_chunk)
        with _Signals() as signals:
            carry, step = _train(
                name,
                loop,
                carry,
                step,
                settings,
                dataset,
                writer,
                checkpoints,
                pace,
                signals,
            )
        if step < settings.num_steps:
            assert signals.received is not None
            summary.write(
                f"{name}: stopped by {signal.Signals(signals.received).name} after "
                f"step {step}; saved in {workdir}, the same command continues\n"
            )
            return 128 + signals.received
        final = {
            f"{split}/{k}": v
            for split in ("valid", "test")
            for k, v in loop.evaluate(carry.state, loop.examples(split)).items()
        }
        result = {
            "program": name,
            "dataset": dataset.name,
            "data": dataset.source,
            "step": step,
            "seeds": list(range(settings.seed, settings.seed + settings.num_seeds)),
            "steps_per_second": pace.rate,
            # Of this process, compilation and evaluation included: what a run that was
            # continued took before `first_step` is not in it.
            "seconds": time.perf_counter() - start,
            "first_step": first_step,
            "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
            "metrics": summary.over_seeds(final),
        }
        writer.write_result(result)
    summary.write(summary.summary(result, workdir))
    return 0


def _report_again(name: str, workdir: Path, step: int) -> bool:
    """Shows the result of a run that has finished; False if it has not."""
    try:
        result = json.loads((workdir / "result.json").read_text())
    except FileNotFoundError:
        return False
    if result["step"] != step:
        return False
    summary.write(f"{name}: finished before, nothing left to do\n")
    summary.write(summary.summary(result, workdir))
    return True


def _train(
    name: str,
    loop: DeviceLoop,
    carry: Carry,
    step: int,
    settings: Settings,
    dataset: Dataset,
    writer: MetricWriter,
    checkpoints: Checkpoints,
    pace: "_Pace",
    signals: "_Signals",
) -> tuple[Carry, int]:
    """Trains from ``step`` to the last step, or until a signal; saves at the end."""
    saved = step
    intervals = (settings.log_every, settings.eval_every, settings.checkpoint_every)
    with tqdm.tqdm(
        total=settings.num_steps,
        initial=step,
        desc=name,
        unit="step",
        disable=not sys.stderr.isatty(),
    ) as bar:
        while step < settings.num_steps and signals.received is None:
            stops = [(step // every + 1) * every for every in intervals]
            num = min(settings.num_steps - step, min(stops) - step, pace.steps)
            with pace.measure(num):
                carry, failure = loop.run(carry, step, num)
            if failure is not None:
                raise RunFailed(
                    f"{failure.metric} is {failure.value} at step {failure.step} "
                    f"(seed {failure.seed}); {_kept(checkpoints)}"
                )
            step += num
            bar.update(num)
            log, evaluate, save = (
                step == settings.num_steps or step % every == 0 for every in intervals
            )
            scalars: dict[str, np.ndarray] = {}
            if log:
                carry, means = loop.drain(carry)
                scalars |= {f"train/{k}": v for k, v in means.items()}
                bar.set_postfix({k: f"{v.mean():.4g}" for k, v in means.items()})
            if evaluate:
                metrics = loop.evaluate(carry.state, loop.examples("valid"))
                scalars |= {f"valid/{k}": v for k, v in metrics.items()}
            if scalars:  # before the checkpoint: its steps must be on disk
                writer.write_scalars(step, summary.over_seeds(scalars))
            if evaluate:
                _draw(writer, loop, carry, dataset, step)
            if save:
                _save(checkpoints, loop, carry, step)
                saved = step
        if step > saved:
            _save(checkpoints, loop, carry, step)
    return carry, step


def _save(checkpoints: Checkpoints, loop: DeviceLoop, carry: Carry, step: int) -> None:
    """Saves, unless the state is broken in a way that no metric has shown yet."""
    broken = loop.seeds_with_nan(carry)
    if broken:
        raise RunFailed(
            f"the state is nan after step {step} (seed {broken[0]}); "
            + _kept(checkpoints)
        )
    checkpoints.save(step, carry)


def _kept(checkpoints: Checkpoints) -> str:
    step = checkpoints.latest_step()
    if step is None:
        return "no checkpoint had been written"
    return f"the checkpoint of step {step} is kept"


def _draw(
    writer: MetricWriter, loop: DeviceLoop, carry: Carry, dataset: Dataset, step: int
) -> None:
    """Real images beside the samples of the first seed."""
    real = dataset.valid[:_NUM_PICTURES]
    columns = {"real": real, **loop.sample(carry.state, len(real))}
    pictures = {
        title: to_images(levels, dataset.height, dataset.width, dataset.num_values)
        for title, levels in columns.items()
    }
    writer.write_images("samples", step, pictures)


def _resident_bytes() -> int:
    """Training sets up to this size are kept on the devices."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 8 * 2**30) // 4  # the rest is for training


class _Pace:
    """Chooses chunks of about `_CHUNK_SECONDS`, and keeps the rate."""

    def __init__(self, max_chunk: int):
        self._max, self._compiled = max_chunk, False
        self._steps, self._seconds = 0, 0.0
        self.steps = 1

    def measure(self, num: int) -> "_Pace":
        self._num = num
        return self

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        seconds = time.perf_counter() - self._start
        if not self._compiled:  # the first chunk's time is the compiler's
            self._compiled = True
            return
        self._steps, self._seconds = self._steps + self._num, self._seconds + seconds
        wanted = _CHUNK_SECONDS * self._num / max(seconds, 1e-9)
        self.steps = int(np.clip(wanted, 1, min(self._max, 4 * self.steps)))

    @property
    def rate(self) -> float | None:
        """Steps a second after the first chunk; None if there were none."""
        return self._steps / self._seconds if self._steps else None


class _Signals:
    """Remembers the first SIGTERM or SIGINT; a second one acts as without us."""

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_):
        self._restore()
