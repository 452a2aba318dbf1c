"""Folders of runs, whole or not; runs that are seeds of one setting."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.console.metrics import as_number
from experiments.engine import run_folder
from experiments.engine.run_folder import Unreadable

# Flags that say nothing of what is learned. Runs that differ in nothing else are seeds
# of one setting.
IRRELEVANT = frozenset(
    ("workdir", "data_dir", "seed", "num_seeds")
    + ("checkpoint_every", "eval_every", "log_every", "sharpness")
)


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of the folder of a run.

    Attributes:
        name: short and unique in the report.
        folder: where it is.
        program: e.g. ``ll``.
        flags: by name, from ``config.json``.
        lines: of ``metrics.jsonl``, each with a number as ``step``.
        result: of ``result.json``; None: not there or not readable.
        evaluations: content of every ``evaluation*.json``, by name.
        pictures: ``evaluation*.png`` and the newest of each kind in ``samples``.
        failure: why it stopped; None: it did not.
        remarks: reasons why a file cannot be read.
        defaults: of the program's flags today; a flag that an older run did not know
            counts as at its default.
    """

    name: str
    folder: Path
    program: str
    flags: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    evaluations: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, Path]
    failure: str | None
    remarks: Sequence[str]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """Name of the data set, ``?`` if it is not said."""
        return str(self.flags.get("dataset", "?"))

    @property
    def step(self) -> int:
        """The last step of which anything is known."""
        steps = [int(line["step"]) for line in self.lines]
        if self.result is not None:
            steps.append(int(as_number(self.result.get("step")) or 0))
        return max(steps, default=0)

    @property
    def num_steps(self) -> int | None:
        """The steps that the run was to have."""
        wanted = as_number(self.flags.get("num_steps"))
        closing = as_number(self.flags.get("em_closing_steps")) or 0
        return None if wanted is None else int(wanted) + int(closing)

    @property
    def state(self) -> str:
        """``finished``, ``unfinished`` (or still running) or ``failed``."""
        if run_folder.is_finished(self.result or {}, self.num_steps or 0):
            return "finished"
        return "unfinished" if self.failure is None else "failed"

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of every list over seeds."""
        written = (self.result or {}).get("seeds")
        if isinstance(written, list) and all(isinstance(s, int) for s in written):
            return written
        first, num = (as_number(self.flags.get(n)) for n in ("seed", "num_seeds"))
        return list(range(int(first or 0), int(first or 0) + int(num or 1)))

    def key(self, *without: str) -> tuple[str, str]:
        """Equal for runs that differ in flags ``without`` or irrelevant ones only."""
        irrelevant = set(IRRELEVANT)
        if self.flags.get("keep_best"):
            irrelevant.remove("eval_every")  # it decides which state is the best
        flags = {
            name: value
            for name, value in {**self.defaults, **self.flags}.items()
            if name not in irrelevant and name not in without
        }
        return self.program, json.dumps(flags, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only.

    Attributes:
        runs: at least one.
    """

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run that stands for all where they cannot differ."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """Of all runs."""
        return ", ".join(run.name for run in self.runs)


def settings_of(runs: Iterable[Run]) -> list[Setting]:
    """Joins runs that differ in their seeds only; order of the first of each."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.key(), []).append(run)
    return [Setting(tuple(group)) for group in groups.values()]


def read_run(folder: Path, name: str) -> Run | None:
    """Reads the folder of a run. Nothing in it is trusted to be whole, or ours.

    Args:
        folder: of a run.
        name: of the run.

    Returns:
        Its content; None where it is not the folder of a run.

    Raises:
        Unreadable: its configuration cannot be read.
        OSError: the folder cannot be read.
    """
    config = run_folder.read_config(folder)
    if config is None:
        return None
    remarks: list[str] = []
    failure = _read(folder / run_folder.FAILURE, remarks)
    lines, problem = run_folder.read_lines(folder)
    evaluations = _evaluations(folder, remarks)
    remarks += [problem] if problem else []
    return Run(
        name,
        folder,
        config.program,
        config.flags,
        lines,
        _read(folder / run_folder.RESULT, remarks),
        evaluations,
        run_folder.newest_pictures(folder),
        run_folder.failure_reason(failure),
        tuple(remarks),
    )


def _read(path: Path, remarks: list[str]) -> dict[str, Any] | None:
    """The content of a file; None, with a remark, where it cannot be read."""
    try:
        return run_folder.read_object(path)
    except Unreadable as error:
        remarks.append(str(error))
        return None


def _evaluations(folder: Path, remarks: list[str]) -> dict[str, dict[str, Any]]:
    """The evaluations that have rows of metrics, by the name of their file."""
    evaluations = {}
    for path in run_folder.evaluation_files(folder):
        content = _read(path, remarks)
        if content is None:
            continue
        rows = content.get("rows")
        if isinstance(rows, dict) and all(isinstance(r, dict) for r in rows.values()):
            evaluations[path.stem] = content
        else:
            remarks.append(f"{path.name} has no rows of metrics")
    return evaluations
