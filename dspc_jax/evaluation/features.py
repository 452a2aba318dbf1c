"""What all measures on features share: points as a checked array."""

from jax.typing import ArrayLike, DTypeLike
import numpy as np


def as_features(
    name: str, features: ArrayLike, dtype: DTypeLike = np.float64, *, least: int = 0
) -> np.ndarray:
    """Features on the host, ``[N, D]``, all finite.

    Args:
      name: the argument's name, for the error.
      features: ``[N, D]``, one row per image.
      dtype: the type of the result.
      least: the smallest N that will do.

    Raises:
      ValueError: another rank, fewer rows, no columns, or a value that is not finite.
    """
    array = np.asarray(features, dtype)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(
            f"{name} must be of shape [N, D] with D >= 1, got {array.shape}"
        )
    if array.shape[0] < least:
        raise ValueError(
            f"{name} must hold at least {least} points, got {array.shape[0]}"
        )
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(1)))
        raise ValueError(f"{name} must be finite, got NaN or infinity in row {row}")
    return array


def check_same_size(x: np.ndarray, y: np.ndarray) -> None:
    """Raises ValueError if two sets of features differ in size."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "x_features and y_features must have features of one size, "
            f"got {x.shape[1]} and {y.shape[1]}"
        )
