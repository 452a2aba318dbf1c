"""The maximum mean discrepancy of two large sets, with its standard error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.objectives.kernels import Kernel
from dspc_jax.objectives.mmd import mmd2_unbiased
from dspc_jax.types import Array


class MmdEstimate(NamedTuple):
    """An estimate of the squared MMD.

    Attributes:
        mmd2: the unbiased estimate, scalar; may be negative.
        standard_error: its standard error, scalar; NaN if there is one block only.
    """

    mmd2: Array
    standard_error: Array


def mmd_estimate(
    x: Array, y: Array, *, kernel: Kernel, num_blocks: int = 10
) -> MmdEstimate:
    r"""The squared MMD of two large sets, with its standard error.

    Both sets are cut into blocks, the unbiased estimator is taken within each pair of
    blocks, and the estimates are averaged: time :math:`O(N^2 / B)`, memory
    :math:`O(N^2 / B^2)`, and the spread of the independent blocks gives the error.

    Args:
        x: ``[N, ...]`` points in random order.
        y: ``[M, ...]`` points in random order.
        kernel: a `Kernel`.
        num_blocks: B, ``>= 1``. What remains of a set after B equal blocks is not used.

    Returns:
        An `MmdEstimate`.

    Raises:
        ValueError: a set is too small for two points in each block.

    References:
        Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018,
        section 4 (the same averaging, for the kernel inception distance).
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be at least 1, got {num_blocks}")
    for name, points in (("x", x), ("y", y)):
        if points.shape[0] < 2 * num_blocks:
            raise ValueError(
                f"{name} must hold two points in each of {num_blocks} blocks, "
                f"got {points.shape[0]} points"
            )

    def blocks(points: Array) -> Array:
        size = points.shape[0] // num_blocks
        return points[: size * num_blocks].reshape(num_blocks, size, *points.shape[1:])

    estimates = jax.lax.map(
        lambda pair: mmd2_unbiased(pair[0], pair[1], kernel), (blocks(x), blocks(y))
    )
    if num_blocks == 1:
        return MmdEstimate(estimates[0], jnp.full((), jnp.nan))
    error = jnp.std(estimates, ddof=1) / math.sqrt(num_blocks)
    return MmdEstimate(jnp.mean(estimates), error)
