"""The outputs of a study: its state, and one table."""

from collections.abc import Mapping, Sequence
from importlib import metadata
import json
from pathlib import Path
import platform
from typing import Any

from experiments.engine.code_version import commit_of_code
from experiments.engine.files import write_atomically
from experiments.engine.run_folder import Unreadable
from experiments.measuring import last_values
from experiments.measuring.runs import Setting, read_run
from experiments.report.document import MISSING
from experiments.report.values import spread, title_of
from experiments.study.execution import Outcome
from experiments.study.plan import Job

_STATE = "study.json"
_COLUMNS = (
    *("bits_per_dim", "bits_per_dim_bound", "fid", "kid"),
    *("fd_classifier", "kd_classifier", "mmd2"),
    *("reconstruction_bce", "num_params", "accuracy"),
)


class Record:
    """``study.json``: command, outcome and commit of every job, over all sessions."""

    def __init__(self, root: Path, settings: Mapping[str, Any]):
        self._root, self._path = root, root / _STATE
        self._settings = dict(settings)
        try:
            jobs = json.loads(self._path.read_text("utf-8"))["jobs"]
            self._jobs = {name: dict(job) for name, job in jobs.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._jobs = {}

    def add(self, job: Job, outcome: Outcome) -> None:
        """Notes an outcome; the seconds of all sessions add up."""
        entry = self._jobs.get(job.name, {})
        seconds = (entry.get("seconds") or 0) + (outcome.seconds or 0)
        commit = entry.get("commit") if outcome.seconds is None else commit_of_code()
        self._jobs[job.name] = {
            "label": job.label,
            "command": " ".join(["python", "-m", *job.command(Path("out"))]),
            "state": outcome.state,
            "reason": outcome.reason,
            "seconds": round(seconds, 1) or None,
            "commit": commit,
        }
        content = {**self._settings, **_machine(), "jobs": self._jobs}
        write_atomically(self._path, json.dumps(content, indent=1) + "\n")


def _machine() -> dict[str, str]:
    versions = {n: metadata.version(n) for n in ("jax", "jaxlib", "flax")}
    return {"python": platform.python_version(), **versions}


def table(jobs: Sequence[Job], outcomes: Mapping[str, Outcome], root: Path) -> str:
    """The numbers of all training jobs as one Markdown table, with a last newline.

    Args:
        jobs: the plan.
        outcomes: by name.
        root: folder of the study.

    Returns:
        A row a job, a column a metric that any job has; test split, and distances of
        samples with leaf noise.
    """
    rows = []
    for job in jobs:
        if not job.trains:
            continue
        outcome = outcomes[job.name]
        values = _values(job, root) if outcome.state == "finished" else {}
        rows.append((job, outcome, values))
    names = [n for n in _COLUMNS if any(n in values for _, _, values in rows)]
    cells = [["", *map(title_of, names), "state"]]
    for job, outcome, values in rows:
        texts = [str(values.get(n, MISSING)) for n in names]
        cells.append([job.label or job.name, *texts, outcome.state])
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|---|" + "---:|" * len(names) + "---|")
    failed = [(n, o) for n, o in outcomes.items() if o.state != "finished"]
    lines += ["", *(f"- {name}: {o.state}: {o.reason}" for name, o in failed)]
    return "\n".join(lines).rstrip() + "\n"


def _values(job: Job, root: Path) -> dict[str, str]:
    """The metrics of a job's run as text."""
    try:
        run = read_run(job.folder(root), job.name)
    except Unreadable:
        return {}
    if run is None:
        return {}
    setting = Setting((run,))
    values = {
        name: last_values.of_setting(setting, name)
        or last_values.distance(setting, name)
        for name in _COLUMNS
    }
    return {name: spread(v) for name, v in values.items() if v is not None}
