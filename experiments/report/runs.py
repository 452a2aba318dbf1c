"""Reads the folders of runs. Nothing in them is trusted to be whole, or ours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import json
from pathlib import Path
import re
from typing import Any

from experiments.report.values import as_number

# Flags that say nothing of what is learned. Runs that differ in nothing else are seeds
# of one setting.
IRRELEVANT = frozenset(
    ("workdir", "data_dir", "seed", "num_seeds")
    + ("checkpoint_every", "eval_every", "log_every")
)


class Unreadable(Exception):
    """A folder is no run; the message says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What the folder of one run holds.

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
        remarks: what could not be read, and why.
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
        return None if wanted is None else int(wanted)

    @property
    def state(self) -> str:
        """``finished``, ``unfinished`` (or still running) or ``failed``."""
        done = None if self.result is None else as_number(self.result.get("step"))
        if done is not None and done >= (self.num_steps or 0):
            return "finished"
        return "unfinished" if self.failure is None else "failed"

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of every list over seeds."""
        found = (self.result or {}).get("seeds")
        if isinstance(found, list) and all(isinstance(s, int) for s in found):
            return found
        first, num = (as_number(self.flags.get(n)) for n in ("seed", "num_seeds"))
        return list(range(int(first or 0), int(first or 0) + int(num or 1)))

    def key(self, *without: str) -> tuple[str, str]:
        """Equal for runs that differ in flags ``without`` or irrelevant ones only."""
        flags = {
            name: value
            for name, value in {**self.defaults, **self.flags}.items()
            if name not in IRRELEVANT and name not in without
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
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault(run.key(), []).append(run)
    return [Setting(tuple(group)) for group in found.values()]


@dataclasses.dataclass(frozen=True)
class Study:
    """What the folder of ``experiments.synthetic`` holds.

    Attributes:
        name: short and unique in the report.
        folder: where it is.
        results: one a set and objective.
        figure: of the densities; None: not there.
        remarks: what could not be read, and why.
    """

    name: str
    folder: Path
    results: Sequence[Mapping[str, Any]]
    figure: Path | None
    remarks: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Collected:
    """Everything that the report is about.

    Attributes:
        runs: by program, then name.
        studies: of synthetic data.
        unreadable: path and reason of the folders that are neither.
    """

    runs: tuple[Run, ...]
    studies: tuple[Study, ...]
    unreadable: tuple[tuple[str, str], ...]

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """The runs, seeds joined."""
        return settings_of(self.runs)

    @property
    def datasets(self) -> list[str]:
        """Names of the runs' data sets, each once."""
        return sorted({run.dataset for run in self.runs})


def collect(
    folders: Sequence[Path],
    defaults_of: Callable[[str], Mapping[str, Any] | None] = lambda program: None,
) -> Collected:
    """Reads folders.

    Args:
        folders: each the folder of a run, of a study, or of something else.
        defaults_of: a program's default flags; None for an unknown program.

    Returns:
        What they hold; a folder that is neither is listed with the reason.
    """
    runs, studies, unreadable = [], [], []
    for folder, name in zip(folders, _names(folders), strict=True):
        try:
            found = read(folder, name)
        except Unreadable as error:
            unreadable.append((name, str(error)))
        else:
            if isinstance(found, Run):
                known = defaults_of(found.program) or {}
                runs.append(dataclasses.replace(found, defaults=known))
            else:
                studies.append(found)
    runs.sort(key=lambda run: (run.program, _natural(run.name)))
    return Collected(tuple(runs), tuple(studies), tuple(unreadable))


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell it from all others."""
    paths = [folder.resolve().parts for folder in folders]
    names = []
    for path in paths:
        num = 1
        while sum(other[-num:] == path[-num:] for other in paths) > 1 and num < len(
            path
        ):
            num += 1
        names.append("/".join(path[-num:]))
    return names


def _natural(name: str) -> list[tuple[str, int]]:
    """Orders lr2 before lr10."""
    return [(t, int(d or 0)) for t, d in re.findall(r"(\D*)(\d*)", name[:200])]


def read(folder: Path, name: str) -> Run | Study:
    """Reads one folder.

    Args:
        folder: of a run or a study.
        name: what the report calls it.

    Returns:
        What it holds.

    Raises:
        Unreadable: it is the folder of neither.
    """
    try:
        if (folder / "config.json").exists():
            return _run(folder, name)
        study = _study(folder, name)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if study is None:
        raise Unreadable("no config.json: not the folder of a run")
    return study


def _run(folder: Path, name: str) -> Run:
    remarks: list[str] = []
    config = _load(folder / "config.json", remarks)
    if config is None:
        raise Unreadable(remarks[0])
    program, flags = config.get("program"), config.get("flags")
    if not isinstance(program, str) or not isinstance(flags, dict):
        raise Unreadable("config.json has no program and flags")
    failure = _load(folder / "failure.json", remarks)
    evaluations = {}
    for path in sorted(folder.glob("evaluation*.json")):
        content = _load(path, remarks)
        if content is None:
            continue
        if _is_evaluation(content):
            evaluations[path.stem] = content
        else:
            remarks.append(f"{path.name} has no rows of metrics")
    return Run(
        name,
        folder,
        program.removeprefix("experiments."),
        flags,
        _lines(folder / "metrics.jsonl", remarks),
        _load(folder / "result.json", remarks),
        evaluations,
        {p.stem: p for p in sorted(folder.glob("evaluation*.png"))}
        | _pictures(folder / "samples"),
        None if failure is None else str(failure.get("reason", "reason not written")),
        tuple(remarks),
    )


def _is_evaluation(content: Mapping[str, Any]) -> bool:
    rows = content.get("rows")
    return isinstance(rows, dict) and all(isinstance(r, dict) for r in rows.values())


def _load(path: Path, remarks: list[str]) -> dict[str, Any] | None:
    """An object of JSON; None, with a remark, if it is none; None if not there."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        remarks.append(f"{path.name} cannot be read: {error.strerror}")
        return None
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8
        remarks.append(f"{path.name} is not JSON: {str(error)[:100]}")
        return None
    if not isinstance(content, dict):
        remarks.append(f"{path.name} is not an object")
        return None
    return content


def _lines(path: Path, remarks: list[str]) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that can be read, by step."""
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        remarks.append(f"{path.name} is missing")
        return []
    except OSError as error:
        remarks.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        step = as_number(line.get("step")) if isinstance(line, dict) else None
        if step is not None and abs(step) < 2**53:  # finite, and a whole number
            lines.append(line | {"step": int(step)})
    if len(lines) < len(texts):
        remarks.append(
            f"{path.name}: {len(texts) - len(lines)} of {len(texts)} lines are "
            "unreadable"
        )
    return sorted(lines, key=lambda line: line["step"])


def _pictures(folder: Path) -> dict[str, Path]:
    """The newest picture of each kind: ``KIND_STEP.png``."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in folder.glob("*.png"):
        match = re.fullmatch(r"([^.].*?)(?:_(\d{1,12}))?\.png", path.name)
        if match:
            step = int(match[2] or 0)
            if step >= newest.get(match[1], (-1, path))[0]:
                newest[match[1]] = step, path
    return {kind: path for kind, (_, path) in sorted(newest.items())}


def _study(folder: Path, name: str) -> Study | None:
    """The results of ``experiments.synthetic``, if there are any."""
    results, remarks = [], []
    for path in sorted(folder.glob("*-*.json")):
        content = _load(path, remarks)
        if content is None:
            continue
        if all(isinstance(content.get(n), str) for n in ("set", "objective")):
            results.append(content)
        else:
            remarks.append(f"{path.name} is not the result of a model")
    if not results:
        if remarks:
            raise Unreadable(f"no config.json, and {remarks[0]}")
        return None
    figure = folder / "densities.png"
    return Study(name, folder, results, figure if figure.exists() else None, remarks)
