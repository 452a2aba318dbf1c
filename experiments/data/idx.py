"""MNIST from its official idx files."""

import gzip
import hashlib
import io
import math
from pathlib import Path
import zlib

import numpy as np

from experiments.console.errors import UserError
from experiments.data import files
from experiments.data.arrays import finish
from experiments.data.dataset import Dataset, Options

# SHA-256 of the unpacked content of the four files whose gzipped form has the published
# MD5 sums f68b3c2d..., d53e105e..., 9fb629c4... and ec29112d... (torchvision and
# tensorflow-datasets check these): packing again does not make a file another one.
_OFFICIAL = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
_OFFICIAL_SIZES = {"train": 60000, "test": 10000}
_PREFIX = {"train": "train", "test": "t10k"}
MARKS = tuple(f"{_PREFIX['train']}-images-idx3-ubyte{end}" for end in (".gz", ""))

_DEFLATE_RATIO = 1032  # the most bytes that a byte can unpack to
_UNSIGNED_BYTES = 0x08


def load(folder: Path, options: Options) -> Dataset:
    """70000 images of 28x28 pixels with 256 levels and their digits.

    Args:
        folder: holds ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``, and
            the files of labels where they are wanted, each with ``.gz`` or without.
        options: see `Options`.

    Returns:
        55000 / 5000 / 10000 images if the files are complete; of fewer training images
        the last tenth is for validation.

    Raises:
        UserError: a file that cannot be read, is damaged or in another format, or that
            has as many images as the official one but another content.

    References:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    images, labels, entries = {}, {}, []
    for split, prefix in _PREFIX.items():
        path = _path(folder, f"{prefix}-images-idx3-ubyte")
        images[split], entry = _read_part(path, 3, _OFFICIAL_SIZES[split])
        entries.append(entry)
        path = _path(folder, f"{prefix}-labels-idx1-ubyte")
        if not path.exists():
            labels[split] = None
            continue
        labels[split], entry = _read_part(path, 1, _OFFICIAL_SIZES[split])
        entries.append(entry)
        if len(labels[split]) != len(images[split]):
            raise UserError(
                f"{path} must have a label for each of the {len(images[split])} "
                f"images, got {len(labels[split])}"
            )
    images = {split: array[..., None] for split, array in images.items()}
    return finish("mnist", images, labels, _OFFICIAL_SIZES, entries, options)


def _path(folder: Path, stem: str) -> Path:
    """The gzipped file, or the plain one if only that is there."""
    gzipped, unpacked = folder / f"{stem}.gz", folder / stem
    return unpacked if unpacked.exists() and not gzipped.exists() else gzipped


def _read_part(path: Path, rank: int, official_size: int) -> tuple[np.ndarray, dict]:
    """An array, and its file's entry for ``result.json``."""
    array, content_hash = read_idx(path, rank)
    official_hash = _OFFICIAL[path.name.removesuffix(".gz")]
    if len(array) >= official_size:
        files.check_official(
            str(path), len(array), "sha256", content_hash, official_hash
        )
    return array, files.described(path, content_hash == official_hash)


def read_idx(path: Path, rank: int) -> tuple[np.ndarray, str]:
    """Reads an idx file of unsigned bytes.

    The format: two zero bytes, the type, the rank, the sizes as big-endian 32-bit
    numbers, the items.

    Args:
        path: the file; gzipped if its name ends in ``.gz``.
        rank: number of axes it must have.

    Returns:
        The array, uint8, not writeable, and the SHA-256 of the unpacked file.

    Raises:
        UserError: it cannot be read, or is anything else, shorter or longer.
    """
    content = files.read(path)
    is_gzipped = path.name.endswith(".gz")
    stream = io.BytesIO(content)
    try:
        with gzip.GzipFile(fileobj=stream) if is_gzipped else stream as file:
            header = file.read(4 + 4 * rank)
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTES, rank]):
                raise UserError(
                    f"{path} must be an idx file of unsigned bytes with {rank} axes: "
                    f"its first bytes must be 0000{_UNSIGNED_BYTES:02x}{rank:02x}, got "
                    f"{header[:4].hex() or 'none'}"
                )
            if len(header) < 4 + 4 * rank:
                raise UserError(f"{path} is truncated: it ends within its header")
            shape = np.frombuffer(header, ">u4", offset=4).tolist()
            size = math.prod(shape)
            if size > _DEFLATE_RATIO * len(content):
                raise UserError(
                    f"{path} is damaged: sizes {shape} do not fit a file of "
                    f"{len(content)} bytes"
                )
            body = file.read(size + 1)  # one more: reads, and checks, the end of gzip
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from None
    if len(body) != size:
        raise UserError(
            f"{path} is truncated or damaged: its sizes {shape} ask for {size} bytes, "
            f"got {'more' if len(body) > size else len(body)}"
        )
    content_hash = hashlib.sha256(header)
    content_hash.update(body)
    return np.frombuffer(body, np.uint8).reshape(shape), content_hash.hexdigest()
