"""Checked arrays and loops over blocks, shared by all measures on features."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array


def as_features(
    name: str, features: ArrayLike, dtype: DTypeLike = np.float64, *, least: int = 0
) -> np.ndarray:
    """Features on the host, ``[N, D]``, all finite.

    Args:
        name: the argument's name, for the error.
        features: ``[N, D]``, one row per image.
        dtype: the type of the result.
        least: the least N.

    Returns:
        The features as an array of ``dtype``.

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
            "the two sets must have features of one size, "
            f"got {x.shape[1]} and {y.shape[1]}"
        )


def device_dtype() -> np.dtype:
    """The widest floating type on JAX's devices: float32, float64 under x64."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def blocks_of_rows(num_rows: int, block_size: int) -> tuple[Array, Array]:
    """Rows in blocks of one size, so that one compiled loop covers them all.

    Args:
        num_rows: the number of rows.
        block_size: the largest block.

    Returns:
        ``(rows, is_row)``, both ``[blocks, size]``: indices, and False where a block
        was filled up with copies of the last row.

    Raises:
        ValueError: ``block_size`` is below 1.
    """
    block_size = whole_number("block_size", block_size, least=1)
    num_blocks = -(-num_rows // block_size)
    size = -(-num_rows // num_blocks)
    rows = np.arange(num_blocks * size).reshape(num_blocks, size)
    return jnp.asarray(np.minimum(rows, num_rows - 1)), jnp.asarray(rows < num_rows)
