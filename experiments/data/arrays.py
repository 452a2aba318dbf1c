"""From images in memory to a `Dataset`: sizes, colors, the validation split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, splits
from experiments.data.dataset import SPLITS, Dataset, Options
from experiments.data.images import Recipe, from_arrays


def finish(
    name: str,
    images: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray | None],
    official_sizes: Mapping[str, int],
    entries: Sequence[dict[str, Any]],
    options: Options,
) -> Dataset:
    """A `Dataset` from the two parts of official files.

    Args:
        name: of the set.
        images: ``train`` and ``test``, ``[n, H, W, C]`` uint8.
        labels: ``train`` and ``test``, ``[n]`` whole numbers from 0, or None.
        official_sizes: number of images of ``train`` and ``test`` in the complete set.
        entries: of the files, for ``result.json``, see `files.described`.
        options: size and colors.

    Returns:
        The set; the last training images are for validation, see `splits.num_valid`.

    Raises:
        UserError: no images, or the two parts have different shapes.
    """
    train, test = images["train"], images["test"]
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"training and test images of {name} must have the same shape, got "
            f"{train.shape[1:]} and {test.shape[1:]}"
        )
    if not test.size:
        raise UserError(f"the test part of {name} must have images, got none")
    num = splits.num_valid(len(train), name)
    recipe = recipe_of(options, channels=train.shape[-1])
    resized = {split: from_arrays(array, recipe) for split, array in images.items()}
    height, width = resized["test"].shape[1:3]
    flat = {
        split: array.reshape(len(array), -1, array.shape[-1])
        for split, array in resized.items()
    }
    classes = {
        split: None if array is None else array.astype(np.int32)
        for split, array in labels.items()
    }
    train_labels, valid_labels = splits.carve(classes["train"], num)
    counts = {split: len(array) for split, array in images.items()}
    subset = files.subset(counts, official_sizes)
    return Dataset(
        name=name,
        train=flat["train"][:-num],
        valid=flat["train"][-num:],
        test=flat["test"],
        height=height,
        width=width,
        num_values=256,
        train_labels=train_labels,
        valid_labels=valid_labels,
        test_labels=classes["test"],
        source=files.source("files", splits.VALID_RULE, subset, entries),
    )


def recipe_of(
    options: Options, *, channels: int, size: int | None = None, crop: float = 1.0
) -> Recipe:
    """The recipe that the options name, with a set's own values for the others.

    Args:
        options: size, colors, way of resizing.
        channels: the set's own, 1 or 3.
        size: rows and columns that the set gets by default; None: its own.
        crop: see `Recipe`.

    Returns:
        The recipe.
    """
    return Recipe(
        size=options.image_size or size,
        channels={"auto": channels, "gray": 1, "rgb": 3}[options.image_mode],
        resize=options.image_resize,
        crop=crop,
    )


def mapped(name: str, folder: Path, source: dict[str, Any]) -> Dataset:
    """A `Dataset` of prepared arrays, which stay on the disk until they are used.

    Args:
        name: of the set.
        folder: holds ``train.npy``, ``valid.npy`` and ``test.npy``, ``[n, H, W, C]``,
            and ``train_labels.npy``, ... where labels are known.
        source: for ``result.json``.

    Returns:
        The set; its labels are in memory.
    """
    images = {split: cache.read_array(folder / f"{split}.npy") for split in SPLITS}
    labels = {}
    for split in SPLITS:
        path = folder / f"{split}_labels.npy"
        array = np.array(cache.read_array(path)) if path.exists() else None
        labels[f"{split}_labels"] = array
    _, height, width, channels = images["train"].shape
    flat = {
        split: array.reshape(len(array), height * width, channels)
        for split, array in images.items()
    }
    return Dataset(
        name=name,
        height=height,
        width=width,
        num_values=256,
        source=source,
        **flat,
        **labels,
    )
