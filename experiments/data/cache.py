"""Prepared arrays on disk: made once, whole or not at all, by one process at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from experiments.console import summary
from experiments.console.errors import UserError

_META = "meta.json"
FORMAT = 1  # raise it when the same key would mean other arrays


def root_of(beside: Path, cache_dir: str | None) -> Path:
    """Where prepared arrays go: ``cache_dir``, or ``.prepared`` beside the data."""
    return Path(cache_dir) if cache_dir else beside / ".prepared"


def stamp(path: Path) -> list[Any]:
    """Name, size and time of a file: they tell it from others without reading it.

    Raises:
        UserError: there is no such file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return [path.name, stat.st_size, stat.st_mtime_ns]


def prepared(
    root: Path,
    name: str,
    key: Mapping[str, Any],
    prepare: Callable[[Path], Mapping[str, Any]],
) -> tuple[Path, dict[str, Any]]:
    """The folder of the arrays that a key names, made if it is not there.

    They are written to a folder of another name, which gets its own only when
    everything is on the disk: a folder with the name is complete. Of several processes
    one prepares and the others wait for it.

    Args:
        root: folder of all prepared arrays; made if missing.
        name: the data set, for the name of the folder.
        key: every setting and every file that the arrays depend on, as JSON has them.
        prepare: fills an empty folder and returns a description of the arrays, as JSON
            has it.

    Returns:
        The folder, and the description that ``prepare`` returned when the arrays were
        made.

    Raises:
        UserError: ``root`` cannot be written, or the disk is full.
    """
    json_key = json.loads(json.dumps({"format": FORMAT, **key}))
    text = json.dumps(json_key, sort_keys=True)
    label = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder = root / label
    description = _description(folder, json_key)
    if description is not None:
        return folder, description
    with locked(root / f".{label}.lock", name):
        description = _description(folder, json_key)  # made by whom we waited for?
        if description is None:
            summary.write(f"data: preparing {name} in {folder}\n")
            description = _fill(folder, json_key, prepare)
    return folder, description


def _fill(
    folder: Path, key: Mapping[str, Any], prepare: Callable[[Path], Mapping[str, Any]]
) -> dict[str, Any]:
    """Prepares a folder whole, or leaves nothing; returns the description."""
    temporary = folder.parent / f".{folder.name}.tmp"
    try:
        for remains in (temporary, folder):  # of a process that was killed; damaged
            if remains.exists():
                shutil.rmtree(remains)
        temporary.mkdir()
        description = json.loads(json.dumps(prepare(temporary)))
        sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
        meta = {"key": key, "known": description, "files": sizes}
        (temporary / _META).write_text(json.dumps(meta, indent=2) + "\n", "utf-8")
        for path in [*temporary.iterdir(), temporary]:
            _to_disk(path)
        temporary.rename(folder)
        _to_disk(folder.parent)
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return description


def _unwritable(root: Path, error: OSError) -> UserError:
    return UserError(
        "--cache_dir must be a folder that can be written, got "
        f"{str(root)!r}: {error.strerror or error}"
    )


@contextlib.contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Holds a lock that ends with the process; says so if it has to wait.

    Args:
        path: of the lock's file, which stays; its folder is made if missing.
        name: of the locked resource, for the user.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            summary.write(f"data: another process prepares {name}; waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _description(folder: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The description of the arrays, or None where they are not all there."""
    try:
        meta = json.loads((folder / _META).read_text("utf-8"))
        if meta["key"] != key:
            return None
        for name, size in meta["files"].items():
            if (folder / name).stat().st_size != size:
                return None
        return dict(meta["known"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_array(
    path: Path, num: int, chunks: Iterable[np.ndarray], dtype: Any = np.uint8
) -> tuple[int, ...]:
    """Writes an array of known length from its pieces; none is held.

    Args:
        path: of the ``.npy`` file.
        num: rows of the whole.
        chunks: ``[m, ...]`` of one shape but for m, together ``num`` rows.
        dtype: of the whole.

    Returns:
        The shape of the whole.

    Raises:
        ValueError: the pieces do not make up the whole.
        OSError: it cannot be written.
    """
    shape: tuple[int, ...] = ()
    rows = 0
    with path.open("wb") as file:
        for chunk in chunks:
            if not rows:
                shape = (num, *chunk.shape[1:])
                np.lib.format.write_array_header_1_0(
                    file,
                    {
                        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                        "fortran_order": False,
                        "shape": shape,
                    },
                )
            if chunk.shape[1:] != shape[1:]:
                raise ValueError(
                    f"chunks must have rows of shape {shape[1:]}, got {chunk.shape[1:]}"
                )
            file.write(np.ascontiguousarray(chunk, dtype).data)
            rows += len(chunk)
    if rows != num:
        raise ValueError(f"chunks must have {num} rows together, got {rows}")
    return shape


def read_array(path: Path) -> np.ndarray:
    """An array that stays on the disk: its pages are read when they are used.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; remove its folder") from None
