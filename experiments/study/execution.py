"""Runs the jobs of a study, each in a process of its own, one after the other."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from experiments.console.jobs import Jobs
from experiments.engine.run_folder import last_step
from experiments.study.plan import Job


class Outcome(NamedTuple):
    """The outcome of a job.

    Attributes:
        state: ``finished``, ``failed``, ``not run``, ``stopped`` (with this process),
            or ``running``: a process that was killed leaves that, too.
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
    started: Callable[[Job], None] = lambda job: None,
) -> dict[str, Outcome]:
    """Runs the jobs that are not finished yet.

    A job that fails stops only those that need it. ``logs/JOB.log`` keeps the output of
    a job. If this process is interrupted or asked to end, it asks the running job to
    end as well, which saves its state and continues from there in the next session.

    Args:
        jobs: in an order in which needs come first.
        root: folder of the study.
        report: called with each outcome as soon as it is known, and with that of the
            running job, ``stopped``, where this process is asked to end.
        started: called with each job that is run, before.

    Returns:
        Name to outcome.
    """
    outcomes: dict[str, Outcome] = {}
    logs = root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    display = Jobs("study", len(jobs), sum(not job.is_done(root) for job in jobs))
    with contextlib.closing(display):
        for job in jobs:
            missing = [n for n in job.needs if outcomes[n].state != "finished"]
            if missing:
                display.passed()
                outcome = Outcome("not run", f"needs {', '.join(missing)}")
            elif job.is_done(root):
                display.passed()
                outcome = Outcome("finished")
            else:
                started(job)
                with display.running(job.name, lambda job=job: _progress(job, root)):
                    outcome = _run(job, root, logs, report)
            outcomes[job.name] = outcome
            report(job, outcome)
    return outcomes


def _run(
    job: Job, root: Path, logs: Path, report: Callable[[Job, Outcome], None]
) -> Outcome:
    """Runs one job in a process of its own."""
    start = time.perf_counter()
    log = logs / f"{job.name.replace(' ', '-')}.log"
    with log.open("ab") as output, _ending_with_us():
        process = subprocess.Popen(
            [sys.executable, "-m", *job.command(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process alone, which passes it on
        )
        try:
            code = process.wait()
        except (SystemExit, KeyboardInterrupt) as stop:
            process.terminate()  # it saves its state and ends
            process.wait()
            name = "Ctrl-C" if isinstance(stop, KeyboardInterrupt) else "SIGTERM"
            reason = f"by {name} {_progress(job, root)}".rstrip()
            report(job, Outcome("stopped", reason, time.perf_counter() - start))
            raise
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
    if step is None:
        return ""
    return f"at step {step} of {job.flags.get('num_steps', '?')}"


def _last_line(path: Path) -> str:
    """The last line that is not blank; of a log it is the error."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
