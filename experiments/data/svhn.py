"""SVHN (cropped digits) from its official MATLAB files."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.console.errors import UserError
from experiments.data import files, mat5
from experiments.data.arrays import finish
from experiments.data.dataset import Dataset, Options

# MD5 of the official files (torchvision checks the same).
_OFFICIAL = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
}
_OFFICIAL_SIZES = {"train": 73257, "test": 26032}
MARKS = ("train_32x32.mat",)


def load(folder: Path, options: Options) -> Dataset:
    """99289 color images of 32x32 pixels and the digit at the middle of each.

    The additional 531131 easier images (``extra_32x32.mat``) are not used.

    Args:
        folder: holds ``train_32x32.mat`` and ``test_32x32.mat``; labels that are all 0
            count as not known (the files have 1 to 9, and 10 for the digit 0).
        options: see `Options`.

    Returns:
        68257 / 5000 / 26032 images if the files are complete; of fewer training images
        the last tenth is for validation. Training images are in the order of the
        photographs, so that images of one house number mostly share a part.

    Raises:
        UserError: a file that cannot be read, is damaged, holds something else, or has
            as many images as the official one but another content.

    References:
        Netzer et al., "Reading digits in natural images with unsupervised feature
        learning", 2011.
    """
    images, labels, entries = {}, {}, []
    for split, official_size in _OFFICIAL_SIZES.items():
        path = folder / f"{split}_32x32.mat"
        images[split], labels[split] = _read(path)
        num_images = len(images[split])
        is_complete = num_images >= official_size
        if is_complete:
            content_hash = files.digest(path, "md5")
            files.check_official(
                str(path), num_images, "md5", content_hash, _OFFICIAL[split]
            )
        entries.append(files.described(path, is_complete))
    return finish("svhn", images, labels, _OFFICIAL_SIZES, entries, options)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images ``[n, 32, 32, 3]`` and labels ``[n]``, None where not known."""
    try:
        content = mat5.loads(files.read(path), ("X", "y"))
    except ValueError as error:
        raise UserError(
            f"{path} is truncated, damaged or no MATLAB 5 file: {error}"
        ) from None
    images, labels = content.get("X"), content.get("y")
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[:3] != (32, 32, 3)
    ):
        raise UserError(
            f"{path} must have X, uint8 of shape (32, 32, 3, n), got {_kind(images)}"
        )
    num = images.shape[3]
    if (
        not isinstance(labels, np.ndarray)
        or labels.dtype.kind not in "uif"
        or labels.size != num
    ):
        raise UserError(f"{path} must have y, {num} numbers, got {_kind(labels)}")
    digits = labels.reshape(-1)
    images = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    if not digits.any():
        return images, None
    others = digits[~np.isin(digits, np.arange(1, 11))]
    if others.size:
        raise UserError(
            f"labels of {path} must be 1 to 10, or all 0 where they are not known, got "
            f"{others[0]}"
        )
    return images, (digits % 10).astype(np.int32)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return "none" if value is None else type(value).__name__
