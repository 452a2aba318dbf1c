"""Runs the jobs of a study, each in a process of its own, one after the other."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import tqdm

from experiments.engine.run_folder import last_step
from experiments.study.plan import Job

_POLL_SECONDS = 0.5


class Outcome(NamedTuple):
    """The outcome of a job.

    Attributes:
        state: ``finished``, ``failed``, or ``not run``.
        reason: of a state other than ``finished``, one line; else empty.
        seconds: of the process in this session; None: there was none, since the job
            had been finished before or was not run.
    """

    state: str
    reason: str = ""
    seconds: float | None = None


def execute(
    jobs: Sequence[Job],
    root: Path,
    report: Callable[[Job, Outcome], None] = lambda job, outcome: None,
) -> dict[str, Outcome]:
    """Runs the jobs that are not finished yet.

    A job that fails stops only those that need it. ``logs/JOB.log`` keeps the output of
    a job. If this process is interrupted or asked to end, it asks the running job to
    end as well, which saves its state and continues from there in the next session.

    Args:
        jobs: in an order in which needs come first.
        root: folder of the study.
        report: called with each outcome as soon as it is known.

    Returns:
        Name to outcome.
    """
    outcomes: dict[str, Outcome] = {}
    logs = root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    bar = tqdm.tqdm(jobs, desc="study", unit="job", disable=not sys.stderr.isatty())
    for job in bar:
        missing = [n for n in job.needs if outcomes[n].state != "finished"]
        if missing:
            outcome = Outcome("not run", f"needs {', '.join(missing)}")
        elif job.is_done(root):
            outcome = Outcome("finished")
        else:
            outcome = _run(job, root, logs / f"{job.name.replace(' ', '-')}.log", bar)
        outcomes[job.name] = outcome
        report(job, outcome)
    return outcomes


def _run(job: Job, root: Path, log: Path, bar: Any) -> Outcome:
    """Runs one job in a process of its own."""
    start = time.perf_counter()
    with log.open("ab") as output, _ending_with_us():
        process = subprocess.Popen(
            [sys.executable, "-m", *job.command(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process alone, which passes it on
        )
        try:
            code = None
            while code is None:
                bar.set_postfix_str(job.name + _progress(job, root))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()  # it saves its state and ends
                process.wait()
    seconds = time.perf_counter() - start
    if code == 0 and job.is_done(root):
        return Outcome("finished", seconds=seconds)
    return Outcome("failed", _last_line(log) or f"exit code {code}", seconds)


@contextlib.contextmanager
def _ending_with_us() -> Iterator[None]:
    """Makes SIGTERM an exception, so that the running job is ended first."""

    def leave(number, frame):
        del frame
        raise SystemExit(128 + number)

    handler = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _progress(job: Job, root: Path) -> str:
    """The last step that a training job has logged, and the number of its steps."""
    if not job.trains:
        return ""
    step = last_step(job.folder(root))
    return "" if step is None else f" {step}/{job.flags.get('num_steps', '?')}"


def _last_line(path: Path) -> str:
    """The last line that is not blank; of a log it is the error."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
