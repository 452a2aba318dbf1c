"""From images in memory to a `Dataset`: sizes, colours, the validation split."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.data import files
from experiments.data.dataset import Dataset, Options
from experiments.errors import UserError


def finish(
    name: str,
    images: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray | None],
    source: dict[str, Any],
    options: Options,
) -> Dataset:
    """A `Dataset` from the two parts that most sets have.

    Args:
        name: of the set.
        images: ``train`` and ``test``, ``[n, H, W, C]`` uint8.
        labels: ``train`` and ``test``, ``[n]`` whole numbers from 0, or None.
        source: for ``result.json``.
        options: size and colours.

    Returns:
        The set; the last training images are for validation, see `files.num_valid`.

    Raises:
        UserError: no images, or the two parts have different shapes.
    """
    train, test = images["train"], images["test"]
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"{name}: training and test images must have the same shape, got "
            f"{train.shape[1:]} and {test.shape[1:]}"
        )
    if not test.size:
        raise UserError(f"{name}: the test part must have images, got none")
    num = files.num_valid(len(train), name)
    flat = {
        split: array.reshape(len(array), -1, array.shape[-1])
        for split, array in images.items()
    }
    whole = {
        split: None if array is None else array.astype(np.int32)
        for split, array in labels.items()
    }
    train_labels, valid_labels = files.carve(whole["train"], num)
    return Dataset(
        name=name,
        train=flat["train"][:-num],
        valid=flat["train"][-num:],
        test=flat["test"],
        height=test.shape[1],
        width=test.shape[2],
        num_values=256,
        train_labels=train_labels,
        valid_labels=valid_labels,
        test_labels=whole["test"],
        source=source,
    )
