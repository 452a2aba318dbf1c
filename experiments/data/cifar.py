"""CIFAR-10 from its official archive of Python pickles."""

from collections.abc import Iterator
import hashlib
from pathlib import Path

import numpy as np

from dspc_jax.safe_files import UnsafePickle, read_dict
from experiments.console.errors import UserError
from experiments.data import archives, files
from experiments.data.arrays import finish
from experiments.data.dataset import Dataset, Options

_ARCHIVE, _FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
MARKS = (_ARCHIVE, _FOLDER)

# MD5 of the members of the official archive (torchvision checks the same).
_OFFICIAL = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_OFFICIAL_ROWS = 10000  # of each batch
_OFFICIAL_SIZES = {"train": 50000, "test": 10000}
_PIXELS = 3 * 32 * 32

_MAX_MEMBER = 64 * 2**20  # bytes; an official batch has 31 million
_MAX_UNPACKED = 512 * 2**20  # bytes; the official archive has 186 million


def load(folder: Path, options: Options) -> Dataset:
    """60000 color images of 32x32 pixels and their ten classes.

    Args:
        folder: holds ``cifar-10-python.tar.gz``, or ``cifar-10-batches-py`` as unpacked
            from it. Batches may have fewer rows than the official ones, or be absent.
        options: see `Options`.

    Returns:
        45000 / 5000 / 10000 images if the archive is complete; of fewer training images
        the last tenth is for validation.

    Raises:
        UserError: an archive that cannot be read, is damaged, holds anything but
            arrays, lists, bytes and strings, or has as many images as the official one
            but another content.

    References:
        Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    archive = folder / _ARCHIVE
    if archive.exists():
        members, entries = _from_archive(archive), [files.described(archive)]
    else:
        members, entries = _from_folder(folder / _FOLDER), []
    batches: dict[str, list[np.ndarray]] = {}
    for name, location, content in members:
        *batches[name], is_official = _checked(name, location, content)
        entries.append(
            {
                "name": f"{_FOLDER}/{name}",
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "official": is_official,
            }
        )
    train = [batches[name] for name in sorted(batches) if name != "test_batch"]
    if not train or "test_batch" not in batches:
        raise UserError(
            f"{archive if archive.exists() else folder / _FOLDER} must hold "
            f"{_FOLDER}/data_batch_1 to 5 and test_batch, got {sorted(batches)}"
        )
    images = {
        "train": np.concatenate([images for images, _ in train]),
        "test": batches["test_batch"][0],
    }
    labels = {
        "train": np.concatenate([labels for _, labels in train]),
        "test": batches["test_batch"][1],
    }
    return finish("cifar10", images, labels, _OFFICIAL_SIZES, entries, options)


def _from_folder(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name, location and content of the batches in a folder."""
    for name in _OFFICIAL:
        path = folder / name
        if path.exists():
            yield name, str(path), files.read(path)


def _from_archive(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name, location and content of batches in a gzipped tar; nothing is unpacked."""

    def key(member: str) -> str | None:
        name = member.removeprefix("./").removeprefix(f"{_FOLDER}/")
        return name if name in _OFFICIAL else None

    return archives.members(path, key, _MAX_MEMBER, _MAX_UNPACKED)


def _checked(
    name: str, location: str, content: bytes
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Images, labels, and whether the batch is the official one."""
    images, labels = _read_batch(location, content)
    content_hash = hashlib.md5(content, usedforsecurity=False).hexdigest()
    official_hash = _OFFICIAL[name]
    if len(images) >= _OFFICIAL_ROWS:
        files.check_official(location, len(images), "md5", content_hash, official_hash)
    return images, labels, content_hash == official_hash


def _read_batch(location: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[n, 32, 32, 3]`` and labels ``[n]`` of one pickled batch."""
    try:
        batch = read_dict(content)
    except UnsafePickle as error:
        raise UserError(
            f"{location} must hold nothing but arrays, lists, bytes and strings, got "
            f"{error}"
        ) from None
    except ValueError as error:
        raise UserError(f"{location} is truncated or damaged: {error}") from None
    rows, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        raise UserError(
            f"{location} must have data, an array of {_PIXELS} columns, got "
            f"{getattr(rows, 'shape', type(rows).__name__)}"
        )
    if (
        not isinstance(labels, list)
        or len(labels) != len(rows)
        or not all(type(label) is int and 0 <= label < 10 for label in labels)
    ):
        raise UserError(
            f"{location} must have labels, a list of {len(rows)} numbers from 0 to 9, "
            f"got {str(labels)[:40]}"
        )
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels, np.int32)
