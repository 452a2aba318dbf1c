"""The folder of a run: claimed once, by one configuration and one process at a time."""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any, TextIO

from experiments.console.errors import UserError

_CONFIG = "config.json"
_LOCK = ".lock"


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that after a crash either the old or the new one is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def claim(
    path: Path, program: str, flags: Mapping[str, Any], free: set[str]
) -> Iterator[None]:
    """Makes ``path`` the folder of this run, or refuses it; holds it while inside.

    A new or empty folder gets ``config.json``. A folder with one belongs to a run,
    which is continued if the program and every flag outside ``free`` are the same.

    Args:
        path: the folder; made if missing.
        program: the program's module.
        flags: every flag by name, values as JSON has them.
        free: names of flags that may differ when a run is continued.

    Yields:
        Nothing.

    Raises:
        UserError: the folder cannot be written, holds something else, belongs to a run
            with other flags (each is named), or another process is using it.
    """
    config = path / _CONFIG
    try:
        path.mkdir(parents=True, exist_ok=True)
        own = {_LOCK, f".{_CONFIG}.tmp"}  # what a run killed at its very start leaves
        if not config.exists() and {p.name for p in path.iterdir()} - own:
            raise UserError(
                f"--workdir must be new, empty or the folder of a run, but "
                f"{str(path)!r} has files and no {_CONFIG}"
            )
        lock = (path / _LOCK).open("w")
    except OSError as error:
        raise UserError(
            f"--workdir must be a folder that can be written, got {str(path)!r}: "
            f"{error.strerror}"
        ) from None
    with lock:
        _hold(lock, path)
        if config.exists():
            _check(config, program, flags, free)
        try:
            write_atomically(
                config,
                json.dumps({"program": program, "flags": flags}, indent=2) + "\n",
            )
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
    config: Path, program: str, flags: Mapping[str, Any], free: set[str]
) -> None:
    """Refuses a folder whose run differs, naming every difference."""
    try:
        stored = json.loads(config.read_text())
        stored_program, stored_flags = stored["program"], dict(stored["flags"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{config} is not the configuration of a run") from None
    differences = []
    if stored_program != program:
        differences.append(f"the program (there {stored_program}, now {program})")
    absent = object()
    for name in sorted(set(stored_flags) | set(flags)):
        there, now = stored_flags.get(name, absent), flags.get(name, absent)
        if name not in free and there != now:
            words = [
                "absent" if value is absent else json.dumps(value)
                for value in (there, now)
            ]
            differences.append(f"--{name} (there {words[0]}, now {words[1]})")
    if differences:
        raise UserError(
            f"--workdir {str(config.parent)!r} belongs to a run that differs in "
            + ", ".join(differences)
        )
