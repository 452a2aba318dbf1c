"""Binary tables: the density estimation benchmark in its usual layout."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
import re

import numpy as np

from experiments.console.errors import UserError
from experiments.data import archives, files
from experiments.data.dataset import SPLITS, Dataset, Options

_MAX_MEMBER = 512 * 2**20  # bytes; the largest file of the 29 sets has 60 million
_MAX_UNPACKED = 4 * 2**30  # bytes; all files of the 29 sets have 0.6 billion
_ARCHIVES = ("debd*.tar.xz", "debd*.tar.gz", "debd*.tar")


def load(data_dir: str | None, options: Options) -> Dataset:
    """A table of the benchmark, a row of V binary variables an example.

    Args:
        data_dir: holds ``NAME.train.data``, ``NAME.valid.data`` and ``NAME.test.data``
            (lines of 0 and 1 with commas between them), itself or in ``NAME/``,
            ``datasets/NAME/`` (a clone of the official repository) or these in
            ``debd/``; or an archive of such a folder, ``debd*.tar.xz``, ``.tar.gz`` or
            ``.tar``; or it is such an archive.
        options: ``debd_name`` is the name.

    Returns:
        The table as images of one row of pixels, in the official parts.

    Raises:
        UserError: no such files; one that is damaged or has another content, by file
            and line.

    References:
        Lowd and Davis, "Learning Markov network structure with decision trees", ICDM
        2010. Van Haaren and Davis, "Markov network structure learning: a randomized
        feature generation approach", AAAI 2012. Bekker et al., "Tractable learning for
        complex probability queries", NeurIPS 2015.
    """
    if options.source == "tfds":
        raise UserError(
            "--data_source must be auto or files where --dataset=debd, got tfds"
        )
    if data_dir is None or not Path(data_dir).exists():
        raise UserError(
            "--data_dir must name the folder with the files of debd, or an archive of "
            f"them, got {data_dir!r}"
        )
    root, name = Path(data_dir), options.debd_name
    if root.is_dir():
        parts, names = _from_folders(root, name)
        if not names:
            parts, names = _from_archives(root, name)
    else:
        parts, names = _from_archive(root, name)
    missing = [split for split in SPLITS if split not in parts]
    if missing:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(
            f"--debd_name must be a table in {data_dir!r}, whole ({known} are there), "
            f"got {name!r} without {name}.{missing[0]}.data"
        )
    tables = {split: _table(*parts[split][:2]) for split in SPLITS}
    num_columns = tables["train"].shape[1]
    for split, table in tables.items():
        if table.shape[1] != num_columns:
            raise UserError(
                f"{parts[split][0]} must have the columns of the training part, "
                f"{num_columns}, got {table.shape[1]}"
            )
    return Dataset(
        name=f"debd-{name}",
        **{split: table[:, :, None] for split, table in tables.items()},
        height=1,
        width=num_columns,
        num_values=2,
        is_table=True,
        source=files.source(
            "files",
            "the files train, valid and test",
            None,
            [files.described(path) for path in {p: 0 for *_, p in parts.values()}],
        ),
    )


Parts = dict[str, tuple[str, bytes, Path]]
"""By part: location (for errors), content and file."""


def _from_folders(root: Path, name: str) -> tuple[Parts, set[str]]:
    """The parts of a table, and the names of all that there are."""
    names: set[str] = set()
    parts: Parts = {}
    for folder in _folders(root):
        for path in sorted(folder.glob("*.data")):
            match = _named(path.name)
            if match is None:
                continue
            own, split = match
            names.add(own)
            if own == name and split not in parts:
                parts[split] = str(path), files.read(path), path
    return parts, names


def _folders(root: Path) -> Iterator[Path]:
    for base in (root, root / "datasets", root / "debd", root / "debd/datasets"):
        yield base
        if base.is_dir():
            yield from sorted(path for path in base.iterdir() if path.is_dir())


def _from_archives(root: Path, name: str) -> tuple[Parts, set[str]]:
    """As `_from_folders`; the first archive that has the table."""
    paths = [
        path
        for folder in (root, root / "debd")
        for pattern in _ARCHIVES
        for path in sorted(folder.glob(pattern))
    ]
    everything: set[str] = set()
    for path in paths:
        parts, names = _from_archive(path, name)
        everything |= names
        if parts:
            return parts, everything
    return {}, everything


def _from_archive(path: Path, name: str) -> tuple[Parts, set[str]]:
    names: set[str] = set()

    def key(member: str) -> str | None:
        match = _named(PurePosixPath(member).name)
        if match is None:
            return None
        names.add(match[0])
        return match[1] if match[0] == name else None

    parts = {
        split: (location, content, path)
        for split, location, content in archives.members(
            path, key, _MAX_MEMBER, _MAX_UNPACKED
        )
    }
    return parts, names


def _named(file_name: str) -> tuple[str, str] | None:
    """Table and part of a file, by its name."""
    match = re.fullmatch(rf"(.+)\.({'|'.join(SPLITS)})\.data", file_name)
    return None if match is None else (match[1], match[2])


def _table(location: str, content: bytes) -> np.ndarray:
    """The rows of a file, ``[n, V]`` uint8."""
    lines = [line.strip() for line in content.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not lines[0]:
        raise UserError(f"{location} must have rows of 0 and 1, got none")
    num_columns = lines[0].count(b",") + 1
    for number, line in enumerate(lines, 1):
        if len(line) != 2 * num_columns - 1 or line.strip(b"01,"):
            raise _wrong(location, number, num_columns, line)
    text = np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), -1)
    digits, commas = text[:, ::2], text[:, 1::2]
    right = (digits != ord(",")).all(axis=1) & (commas == ord(",")).all(axis=1)
    if not right.all():
        number = int(np.argmin(right))
        raise _wrong(location, number + 1, num_columns, lines[number])
    return digits - np.uint8(ord("0"))


def _wrong(location: str, number: int, num_columns: int, line: bytes) -> UserError:
    return UserError(
        f"line {number} of {location} must have {num_columns} values, 0 or 1, with "
        f"commas between them, got {line[:60].decode('ascii', 'replace')!r}"
    )
