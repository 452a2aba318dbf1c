"""Measures of a trained circuit: pure functions of values, never of files or clocks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.objectives.kernels import Kernel
from dspc_jax.objectives.mmd import mmd2_unbiased
from dspc_jax.types import Array


def bits_per_dimension(
    log_probs: Array, num_dimensions: int, *, bin_width: float = 1.0
) -> Array:
    r"""The mean code length of an example, in bits per value.

    .. math:: -\frac{\frac1B \sum_b \log p(x_b) + D \log \delta}{D \log 2}

    For discrete leaves :math:`\delta = 1`, and the result is the code length itself.
    For a density of quantised data, :math:`p(x) \delta^D` is the mass of the cell of x
    to first order; with dequantised data (uniform noise of the width :math:`\delta`)
    the result is an upper bound on the bits of the discretised model (Theis, van den
    Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016).

    Args:
      log_probs: ``[B]`` log-likelihoods in nats.
      num_dimensions: D, values per example: variables times channels.
      bin_width: :math:`\delta`, the distance of two neighbouring grey levels in the
        leaves' own units: 1/255 where 256 levels were scaled to [0, 1].

    Returns:
      A scalar; lower is better, and 8 is the uniform code of 256 levels. ``inf`` if one
      example is impossible.

    Raises:
      ValueError: ``num_dimensions`` or ``bin_width`` is not positive.
    """
    if num_dimensions < 1:
        raise ValueError(f"num_dimensions must be at least 1, got {num_dimensions}")
    if not bin_width > 0:
        raise ValueError(f"bin_width must be positive, got {bin_width}")
    nats = -jnp.mean(log_probs) / num_dimensions - math.log(bin_width)
    return nats / math.log(2)


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
