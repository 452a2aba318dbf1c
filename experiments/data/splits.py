"""Rules by which images are split, for sets that do not split them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from experiments.console.errors import UserError

_MAX_VALID = 5000
VALID_RULE = "validation: the last tenth of the training images, at most 5000"

Item = TypeVar("Item")


def num_valid(num_train: int, name: str) -> int:
    """Number of the last training images that are for validation.

    A tenth, at most 5000: the usual 55000 / 5000 of MNIST and 45000 / 5000 of CIFAR-10,
    and a tenth of a subset.

    Args:
        num_train: images of the official training part.
        name: of the data set, for errors.

    Raises:
        UserError: fewer than 10 training images.
    """
    if num_train < 10:
        raise UserError(
            f"{name} must have at least 10 training images, one of them for "
            f"validation, got {num_train}"
        )
    return min(_MAX_VALID, num_train // 10)


def carve(
    array: np.ndarray | None, num: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cuts the last ``num`` rows off; None stays None."""
    return (None, None) if array is None else (array[:-num], array[-num:])


def tenths(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Takes the last tenth for the test and the tenth before it for validation.

    Args:
        items: at least 10, in order.

    Returns:
        The items of ``train``, ``valid`` and ``test``.
    """
    tenth = len(items) // 10
    return {
        "train": list(items[: -2 * tenth]),
        "valid": list(items[-2 * tenth : -tenth]),
        "test": list(items[-tenth:]),
    }
