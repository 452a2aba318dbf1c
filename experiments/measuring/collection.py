"""Many runs and studies of synthetic data, read from the folders of patterns."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import glob
import os
from pathlib import Path
import re
from typing import Any

from experiments.console.errors import UserError
from experiments.console.paths import local_path
from experiments.engine import flags
from experiments.engine.run_folder import CONFIG, Unreadable, read_object
from experiments.measuring.programs import PROGRAMS
from experiments.measuring.runs import Run, Setting, read_run, settings_of


@dataclasses.dataclass(frozen=True)
class Study:
    """The folder of ``experiments.synthetic``.

    Attributes:
        name: short and unique in the report.
        folder: where it is.
        results: one a set and objective.
        figure: of the densities; None: not there.
        remarks: reasons why a file cannot be read.
    """

    name: str
    folder: Path
    results: Sequence[Mapping[str, Any]]
    figure: Path | None
    remarks: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Collected:
    """The runs and studies of many folders.

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


def folders(patterns: str, out: Path) -> list[Path]:
    """The folders that patterns name.

    Args:
        patterns: separated by commas.
        out: a folder that is none of them: that of the report.

    Returns:
        Each folder once, in order of names.

    Raises:
        UserError: there are none, or a pattern is no path of this machine.
    """
    paths = {
        Path(name)
        for pattern in patterns.split(",")
        for name in glob.glob(_local(pattern), recursive=True)
        if os.path.isdir(name) and Path(name).resolve() != out.resolve()
    }
    if not paths:
        raise UserError(f"--runs must name folders, got {patterns!r}: there are none")
    return sorted(paths)


def _local(pattern: str) -> str:
    """The pattern without ``~``."""
    try:
        return local_path(pattern.strip())
    except ValueError:
        raise UserError(
            f"--runs must be patterns of paths of this machine, got {pattern!r}"
        ) from None


@functools.cache
def defaults_of(program: str) -> dict[str, Any] | None:
    """A program's default flags as ``config.json`` has them; None for a foreign one."""
    if program not in PROGRAMS:
        return None
    of_all_data = ["--recipe=none"] if PROGRAMS[program].has_recipes else []
    return flags.by_name(PROGRAMS[program].parse([program, *of_all_data]))


def collect(
    folders: Sequence[Path],
    defaults_of: Callable[[str], Mapping[str, Any] | None] = lambda program: None,
) -> Collected:
    """Reads folders.

    Args:
        folders: each the folder of a run, of a study, or of something else.
        defaults_of: a program's default flags; None for an unknown program.

    Returns:
        Their content; a folder that is neither is listed with the reason.
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
    """The content of a folder.

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
