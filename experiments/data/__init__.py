"""Image data sets and binary tables: uint8 arrays, in fixed splits: docs/data.md.

A source is one module from files to a `Dataset`; `load` chooses among them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.console.errors import UserError
from experiments.data import (
    celeba,
    cifar,
    debd,
    embedded,
    files,
    folder,
    idx,
    svhn,
    tfds,
)
from experiments.data.dataset import Dataset, Options, describe, to_images

__all__ = [
    "NAMES",
    "PREPARED",
    "WITH_ARCHIVES",
    "WITH_FILES",
    "Dataset",
    "Options",
    "describe",
    "load",
    "stored_images",
    "to_images",
]


class _Source(NamedTuple):
    """A set that has official files: any of ``marks`` shows that they are there."""

    marks: tuple[str, ...]
    load: Callable[[Path, Options], Dataset]


_SOURCES = {
    "mnist": _Source(idx.MARKS, idx.load),
    "svhn": _Source(svhn.MARKS, svhn.load),
    "cifar10": _Source(cifar.MARKS, cifar.load),
    "celeba": _Source(celeba.MARKS, celeba.load),
}
WITH_ARCHIVES = tuple(_SOURCES)
WITH_FILES = (*WITH_ARCHIVES, "folder", "debd")
NAMES = ("digits", *WITH_FILES)
PREPARED = ("celeba", "folder")  # and any that tensorflow-datasets has


def load(name: str, data_dir: str | None, options: Options | None = None) -> Dataset:
    """Loads a data set, or a part of its training images.

    Args:
        name: one of `NAMES`.
        data_dir: folder of its files; not used by data sets that need none.
        options: see `Options`; None: the defaults.

    Returns:
        The images in their fixed splits.

    Raises:
        UserError: unknown name, or a file that is missing, damaged or another one.
    """
    options = options or Options()
    dataset = _load(name, data_dir, options._replace(train_fraction=1.0))
    if options.train_fraction == 1.0:
        return dataset
    # Evenly spaced rows: sets whose images are ordered keep all of their kinds.
    num_train = len(dataset.train)
    num_rows = max(round(options.train_fraction * num_train), 1)
    rows = np.arange(num_rows) * num_train // num_rows
    labels = dataset.train_labels
    source = (dataset.source or {}) | {"train_fraction": options.train_fraction}
    return dataset._replace(
        train=dataset.train[rows],
        train_labels=None if labels is None else labels[rows],
        source=source if dataset.source else None,
    )


def _load(name: str, data_dir: str | None, options: Options) -> Dataset:
    """Loads the whole of a data set."""
    if name in ("digits", "debd"):
        if options != options.without_images:
            raise UserError(
                "--image_size, --image_mode and --image_resize must have their "
                f"defaults where --dataset={name}, got {options.image_size}, "
                f"{options.image_mode} and {options.image_resize}"
            )
        return embedded.digits() if name == "digits" else debd.load(data_dir, options)
    if name == "folder":
        return folder.load(data_dir, options)
    if name not in _SOURCES:
        raise UserError(f"--dataset must be one of {', '.join(NAMES)}, got {name!r}")
    if options.source == "tfds":
        return tfds.load(name, data_dir, options)
    if options.source == "auto" and data_dir is None and tfds.is_installed():
        return tfds.load(name, None, options)
    return _load_files(name, data_dir, options)


def _load_files(name: str, data_dir: str | None, options: Options) -> Dataset:
    """Loads the official files, or tensorflow-datasets in their place."""
    source = _SOURCES[name]
    path = files.find(name, data_dir, source.marks)
    if path is not None:
        return source.load(path, options)
    assert data_dir is not None
    if options.source == "auto" and tfds.is_installed():
        return tfds.load(name, data_dir, options)
    message = files.missing(name, data_dir, source.marks[0])
    if options.source == "auto":
        message += ", and there is no tensorflow-datasets that could fetch them"
    raise UserError(message)


def stored_images(
    name: str, data_dir: str | None, split: str, num: int
) -> np.ndarray | None:
    """Images as the files have them, where a program sees them cut and resized.

    Args:
        name: one of `NAMES`.
        data_dir: folder of its files.
        split: ``train``, ``valid`` or ``test``.
        num: the most images.

    Returns:
        ``[n, H, W, C]`` uint8, or None for a set whose images are never resized by
        default, or whose files are not there.

    Raises:
        UserError: a file that is damaged.
    """
    if name != "celeba" or data_dir is None:
        return None
    path = files.find(name, data_dir, celeba.MARKS)
    return None if path is None else celeba.raw_images(path, split, num)
