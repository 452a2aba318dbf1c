"""Official files: their places, their hashes, and whether they are complete."""

from collections.abc import Mapping, Sequence
import hashlib
from pathlib import Path
from typing import Any

from experiments.console.errors import UserError


def find(name: str, data_dir: str | None, marks: Sequence[str]) -> Path | None:
    """``data_dir/name`` or ``data_dir``, the first that holds one of the files.

    Args:
        name: the data set.
        data_dir: the folder that the user names.
        marks: names of files, any of which shows that the set is there.

    Returns:
        The folder, or None if neither holds any.

    Raises:
        UserError: no folder was given, or it does not exist.
    """
    if data_dir is None:
        raise UserError(
            f"--data_dir must name the folder with the files of {name}, got none"
        )
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir must be an existing folder, got {data_dir!r}")
    for folder in (root / name, root):
        if any((folder / mark).exists() for mark in marks):
            return folder
    return None


def missing(name: str, data_dir: str, mark: str) -> str:
    """Message for a folder in which `find` found nothing."""
    root = Path(data_dir)
    return (
        f"--data_dir must hold the files of {name}, got a folder with neither "
        f"{root / name / mark} nor {root / mark}"
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
        official: whether it is the published one; None: not checked.
    """
    entry: dict[str, Any] = {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": digest(path),
    }
    return entry if official is None else entry | {"official": official}


def check_official(
    place: str, num_items: int, algorithm: str, content_hash: str, official_hash: str
) -> None:
    """Refuses a file that has as many items as the published one, but not its content.

    Args:
        place: the file, for errors.
        num_items: number of its images or labels.
        algorithm: name of the hash.
        content_hash: of the content, as hexadecimal digits.
        official_hash: the same of the published file.

    Raises:
        UserError: the hashes differ.
    """
    if content_hash != official_hash:
        raise UserError(
            f"{place} must be the official file where it has as many items, "
            f"{num_items}: its {algorithm} must be {official_hash}, got {content_hash}"
        )


def subset(counts: Mapping[str, int], official: Mapping[str, int]) -> str | None:
    """Description of the parts that are not complete; None if all are.

    Args:
        counts: number of images of each official part (``train``, ``test``).
        official: the same of the complete set.

    Returns:
        For instance ``8068 of 50000 train, 1017 of 10000 test``.
    """
    lines = [
        f"{counts[split]} of {num} {split}"
        for split, num in official.items()
        if counts[split] != num
    ]
    return ", ".join(lines) or None


def source(
    kind: str, split: str, subset: str | None, files: Sequence[dict[str, Any]], **extra
) -> dict[str, Any]:
    """The entry of the data in ``result.json``.

    Args:
        kind: ``embedded``, ``files``, ``folder`` or ``tfds``.
        split: the rule by which validation (and test) images were chosen.
        subset: see `subset`.
        files: see `described`.
        **extra: further entries.

    Returns:
        The entry, as JSON has it.
    """
    return {
        "source": kind,
        "complete": subset is None,
        "subset": subset,
        "split": split,
        **extra,
        "files": list(files),
    }
