"""Official files: where they are, what they hash to, whether they are complete."""

from collections.abc import Mapping, Sequence
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console.errors import UserError

_MAX_VALID = 5000


def find(name: str, data_dir: str | None, marks: Sequence[str]) -> Path | None:
    """``data_dir/name`` or ``data_dir``, the first that holds one of the files.

    Args:
        name: the data set.
        data_dir: the folder given by the user.
        marks: names of files, any of which shows that the set is there.

    Returns:
        The folder, or None if neither holds any.

    Raises:
        UserError: no folder was given, or it does not exist.
    """
    if data_dir is None:
        raise UserError(f"--data_dir must name the folder with the files of {name}")
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir must be an existing folder, got {data_dir!r}")
    for folder in (root / name, root):
        if any((folder / mark).exists() for mark in marks):
            return folder
    return None


def missing(name: str, data_dir: str, mark: str) -> str:
    """The words for a folder in which `find` found nothing."""
    root = Path(data_dir)
    return (
        f"--data_dir must hold the files of {name}: neither {root / name / mark} "
        f"nor {root / mark} exists"
    )


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file, as hexadecimal digits, without holding it in memory.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def described(path: Path, official: bool | None = None) -> dict[str, Any]:
    """Name, size and hash of a file, for ``result.json``.

    Args:
        path: the file.
        official: whether it was found to be the published one; None: not checked.
    """
    entry: dict[str, Any] = {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": digest(path),
    }
    return entry if official is None else entry | {"official": official}


def subset(found: Mapping[str, int], official: Mapping[str, int]) -> str | None:
    """Which parts of a set are there, in words; None if it is complete.

    Args:
        found: number of images of each official part (``train``, ``test``).
        official: the same of the complete set.

    Returns:
        For instance ``8068 of 50000 train, 1017 of 10000 test``.
    """
    parts = [
        f"{found[part]} of {official[part]} {part}"
        for part in official
        if found[part] != official[part]
    ]
    return ", ".join(parts) or None


def source(
    kind: str, split: str, subset: str | None, files: Sequence[dict[str, Any]], **more
) -> dict[str, Any]:
    """What ``result.json`` says of the data.

    Args:
        kind: ``embedded``, ``files``, ``folder`` or ``tfds``.
        split: the rule by which validation (and test) images were chosen.
        subset: see `subset`.
        files: see `described`.
        **more: further entries.

    Returns:
        The object.
    """
    return {
        "source": kind,
        "complete": subset is None,
        "subset": subset,
        "split": split,
        **more,
        "files": list(files),
    }


def num_valid(num_train: int, name: str) -> int:
    """How many of the last training images are for validation, where a set has none.

    A tenth, at most 5000: the usual 55000 / 5000 of MNIST and 45000 / 5000 of CIFAR-10,
    and a tenth of a subset.

    Raises:
        UserError: fewer than 10 training images.
    """
    if num_train < 10:
        raise UserError(
            f"{name} must have at least 10 training images, one of them for "
            f"validation, got {num_train}"
        )
    return min(_MAX_VALID, num_train // 10)


VALID_RULE = "validation: the last tenth of the training images, at most 5000"


def carve(
    array: np.ndarray | None, num: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cuts the last ``num`` rows off; None stays None."""
    return (None, None) if array is None else (array[:-num], array[-num:])
