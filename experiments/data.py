"""Image data sets as uint8 arrays on the host, with fixed splits.

Each data set is one function from ``data_dir`` to a `Dataset`, listed in `_LOADERS`.
"""

from collections.abc import Callable
import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError


class Dataset(NamedTuple):
    """Images with values ``0 .. num_values - 1``, pixels in row-major order.

    Attributes:
        name: as given to ``--dataset``.
        train: ``[n, V, C]`` uint8; V = height * width variables, C channels.
        valid: ``[n, V, C]`` uint8, never trained on.
        test: ``[n, V, C]`` uint8, looked at once, at the end of a run.
        height: rows of an image.
        width: columns of an image.
        num_values: levels of a channel.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    height: int
    width: int
    num_values: int

    @property
    def num_channels(self) -> int:
        """C, the channels of a pixel."""
        return self.train.shape[-1]


def load(name: str, data_dir: str | None) -> Dataset:
    """Loads a data set.

    Args:
        name: one of `NAMES`.
        data_dir: folder of its files; not used by data sets that need none.

    Returns:
        The images in their fixed splits.

    Raises:
        UserError: unknown name, or a file that is missing or not the official one.
    """
    if name not in _LOADERS:
        raise UserError(f"--dataset must be one of {', '.join(NAMES)}, got {name!r}")
    return _LOADERS[name](data_dir)


def _digits(data_dir: str | None) -> Dataset:
    """1797 images of 8x8 pixels with 17 grey levels, shipped inside scikit-learn.

    Of every ten images of a digit, in the order of the file, the ninth is for
    validation and the tenth for the test, so that each part has the same mixture of
    digits and of writers (who follow each other in the file): 1444 / 177 / 176 images.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    del data_dir
    from sklearn.datasets import load_digits  # here: only this data set needs sklearn

    values, digits = load_digits(return_X_y=True)
    images = values.astype(np.uint8).reshape(-1, 64, 1)
    before = np.stack([np.cumsum(digits == digit) - 1 for digit in range(10)])
    place = before[digits, np.arange(len(digits))] % 10
    return Dataset(
        name="digits",
        train=images[place < 8],
        valid=images[place == 8],
        test=images[place == 9],
        height=8,
        width=8,
        num_values=17,
    )


# The official files. Source of the sums: LeCun, Cortes and Burges' files as published;
# they are also the sums that torchvision and tensorflow-datasets check.
_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
}

_MNIST_NUM_VALID = 5000


def _mnist(data_dir: str | None) -> Dataset:
    """70000 images of 28x28 pixels with 256 levels, from the official idx files.

    The last 5000 training images are for validation: 55000 / 5000 / 10000 images.

    References:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    folder = _folder_of("mnist", data_dir, next(iter(_MNIST_MD5)))
    train, test = (
        _read_idx_images(folder / name, expected)
        for name, expected in _MNIST_MD5.items()
    )
    return Dataset(
        name="mnist",
        train=train[:-_MNIST_NUM_VALID],
        valid=train[-_MNIST_NUM_VALID:],
        test=test,
        height=28,
        width=28,
        num_values=256,
    )


def _folder_of(name: str, data_dir: str | None, first_file: str) -> Path:
    """``data_dir/name`` or ``data_dir``, whichever holds the first file."""
    if data_dir is None:
        raise UserError(f"--data_dir must name the folder with the files of {name}")
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir must be an existing folder, got {data_dir!r}")
    for folder in (root / name, root):
        if (folder / first_file).exists():
            return folder
    raise UserError(
        f"--data_dir must hold the files of {name}: neither "
        f"{root / name / first_file} nor {root / first_file} exists"
    )


def md5(content: bytes) -> str:
    """The MD5 sum by which published files are known, as hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_idx_images(path: Path, expected: str) -> np.ndarray:
    """Reads a gzipped idx3 file of images, ``[n, V, 1]`` uint8, after checking it."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    found = md5(packed)
    if found != expected:
        raise UserError(
            f"{path} is not the official file: its md5 must be {expected}, got {found}"
        )
    raw = gzip.decompress(packed)
    count, height, width = np.frombuffer(raw, ">u4", count=3, offset=4).tolist()
    images = np.frombuffer(raw, np.uint8, offset=16)
    return images.reshape(count, height * width, 1)


_LOADERS: dict[str, Callable[[str | None], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
}
NAMES = tuple(_LOADERS)
