"""The folder of a run: claimed once, by one configuration and one process at a time."""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
from pathlib import Path
from typing import Any, TextIO

from experiments.console.errors import UserError
from experiments.engine import run_folder
from experiments.engine.files import temporary_of

_LOCK = ".lock"


@contextlib.contextmanager
def claim(
    path: Path,
    program: str,
    flags: Mapping[str, Any],
    free: set[str],
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Makes ``path`` the folder of this run, or refuses it; holds it while inside.

    A new or empty folder gets ``config.json``. A folder with one belongs to a run,
    which is continued if the program and every flag outside ``free`` are the same. A
    flag that did not exist when the run was started counts with its default.

    Args:
        path: the folder; made if missing.
        program: the program's module.
        flags: every flag by name, values as JSON has them.
        free: names of flags that may differ when a run is continued.
        defaults: of all flags, by name.

    Yields:
        Nothing.

    Raises:
        UserError: the folder cannot be written, holds something else, belongs to a run
            with other flags (each is named), or another process is using it.
    """
    config = path / run_folder.CONFIG
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A run that was killed at its very start leaves these.
        leftovers = {_LOCK, temporary_of(config).name}
        if not config.exists() and {p.name for p in path.iterdir()} - leftovers:
            raise UserError(
                f"--workdir must be new, empty or the folder of a run, but "
                f"{str(path)!r} has files and no {config.name}"
            )
        lock = (path / _LOCK).open("w")
    except OSError as error:
        raise UserError(
            f"--workdir must be a folder that can be written, got {str(path)!r}: "
            f"{error.strerror}"
        ) from None
    with lock:
        _hold(lock, path)
        _check(path, program, flags, free, defaults or {})
        try:
            run_folder.write_config(path, program, flags)
        except OSError as error:
            raise UserError(f"cannot write {config}: {error.strerror}") from None
        yield


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds a folder that is there, while inside: no second process gets it.

    Args:
        path: the folder.

    Yields:
        Nothing.

    Raises:
        UserError: another process holds it.
        OSError: it cannot be written.
    """
    with (path / _LOCK).open("w") as lock:
        _hold(lock, path)
        yield


def _hold(lock: TextIO, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
    except OSError:
        raise UserError(
            f"--workdir {str(path)!r} is in use by another process"
        ) from None


def _check(
    path: Path,
    program: str,
    flags: Mapping[str, Any],
    free: set[str],
    defaults: Mapping[str, Any],
) -> None:
    """Refuses a folder whose run differs, naming every difference."""
    try:
        config = run_folder.read_config(path)
    except run_folder.Unreadable as error:
        raise UserError(
            f"--workdir must be new, empty or the folder of a run, got {str(path)!r}: "
            f"{error}"
        ) from None
    if config is None:
        return
    differences = []
    program = run_folder.short_name(program)
    if config.program != program:
        differences.append(f"the program (there {config.program}, now {program})")
    absent = object()
    # Of flags that this version has: an older run did what their defaults say.
    known = {name: value for name, value in defaults.items() if name in flags}
    stored = known | config.flags
    for name in sorted((set(stored) | set(flags)) - free):
        there, now = stored.get(name, absent), flags.get(name, absent)
        if there != now:
            texts = ["absent" if v is absent else json.dumps(v) for v in (there, now)]
            differences.append(f"--{name} (there {texts[0]}, now {texts[1]})")
    if differences:
        raise UserError(
            f"--workdir {str(path)!r} belongs to a run that differs in "
            + ", ".join(differences)
        )
