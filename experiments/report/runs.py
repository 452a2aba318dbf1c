"""Everything that a report is about, read from folders."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import re
from typing import Any

from experiments.engine.run_folder import CONFIG, Unreadable, read_object
from experiments.measuring.runs import Run, Setting, read_run, settings_of


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
            content = _read(folder, name)
        except Unreadable as error:
            unreadable.append((name, str(error)))
        else:
            if isinstance(content, Run):
                known = defaults_of(content.program) or {}
                runs.append(dataclasses.replace(content, defaults=known))
            else:
                studies.append(content)
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


def _read(folder: Path, name: str) -> Run | Study:
    """What a folder holds.

    Raises:
        Unreadable: it is the folder neither of a run nor of a study.
    """
    try:
        content = read_run(folder, name) or _study(folder, name)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if content is None:
        raise Unreadable(f"no {CONFIG}: not the folder of a run")
    return content


def _study(folder: Path, name: str) -> Study | None:
    """The results of ``experiments.synthetic``, if there are any."""
    results, remarks = [], []
    for path in sorted(folder.glob("*-*.json")):
        try:
            content = read_object(path) or {}
        except Unreadable as error:
            remarks.append(str(error))
            continue
        if all(isinstance(content.get(n), str) for n in ("set", "objective")):
            results.append(content)
        else:
            remarks.append(f"{path.name} is not the result of a model")
    if not results:
        if remarks:
            raise Unreadable(f"no {CONFIG}, and {remarks[0]}")
        return None
    figure = folder / "densities.png"
    return Study(name, folder, results, figure if figure.exists() else None, remarks)
