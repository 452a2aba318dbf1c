"""Runs stages in processes of their own, one at a time, each within its time.

A process that crashes, or says nothing for too long, is stopped with all its children
and begun again after the measurement that it was at. This process never touches JAX:
the device belongs to the stage.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.accelerator.job import Job
from benchmarks.accelerator.record import Record
from benchmarks.accelerator.stages import Stage

_LEAST = 10.0  # seconds: a process that could do less is not begun
_GRACE = 5.0  # seconds between asking a process to end and ending it


def run_stage(
    stage: Stage, job: Job, record: Record, command: Sequence[str] | None = None
) -> None:
    """Runs a stage to its end or its limit; what is not measured is recorded as such.

    Args:
        stage: its limits.
        job: the order to its process; ``job.seconds`` is the time that is left.
        record: where results go.
        command: in place of the worker's, for tests.
    """
    end = time.monotonic() + min(stage.seconds, job.seconds)
    done: list[str] = list(job.done)
    missing = ["(all)"]
    while missing:
        left = end - time.monotonic()
        if left < _LEAST:
            record.add(job.stage, name=", ".join(missing), skipped="no time was left")
            return
        order = dataclasses.replace(job, seconds=left, done=tuple(done))
        process = _Process(order, command or _command())
        plan, fault = _follow(process, order, record, done, end, stage.silence)
        if fault is None:
            return
        running = next((name for name in plan if name not in done), None)
        record.add(job.stage, name=running or "(start)", error=fault)
        if running is None or process.begun is None:
            return
        done.append(running)
        missing = [name for name in plan if name not in done]


def _command() -> list[str]:
    return [sys.executable, "-m", "benchmarks.accelerator.worker"]


def _follow(
    process: "_Process",
    job: Job,
    record: Record,
    done: list[str],
    end: float,
    silence: float,
) -> tuple[list[str], str | None]:
    """Records the results of a process; its plan, and why it did not end well."""
    plan: list[str] = []
    try:
        while True:
            wait = min(end - time.monotonic(), silence)
            try:
                line = process.lines.get(timeout=max(wait, 0.0))
            except queue.Empty:
                limit = "the stage's time was over"
                return plan, limit if wait < silence else f"silent for {silence:.0f} s"
            if line is None:
                return plan, process.fault()
            message: dict[str, Any] = json.loads(line)
            if "plan" in message:
                plan = message["plan"]
            elif "begin" in message:
                process.begun = message["begin"]
            else:
                record.add(job.stage, **message)
                done.append(message["name"])
    finally:
        process.stop()


class _Process:
    """A worker, its lines as they come, and its log.

    Attributes:
        lines: of its output; None at their end.
        begun: the measurement that it began last.
    """

    def __init__(self, job: Job, command: Sequence[str]):
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.begun: str | None = None
        self._log = pathlib.Path(job.out) / f"{job.stage}.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, job.to_json()],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # a group: programs that it runs end with it
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def fault(self) -> str | None:
        """None if it ended well, else its code and the last line of its log."""
        code = self._process.wait()
        if code == 0:
            return None
        lines = self._log.read_text(errors="replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return f"{how}: {lines[-1] if lines else ''}"[:300]

    def stop(self) -> None:
        """Ends it and all that it began, whether it still runs or not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:  # nobody is left
                break
        self._process.wait()
        self._reader.join(_GRACE)
