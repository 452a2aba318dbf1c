"""The length of a code for data, from their likelihood."""

import math

import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array


def bits_per_dimension(
    log_probs: Array, num_dimensions: int, *, bin_width: float = 1.0
) -> Array:
    r"""The mean code length of an example, in bits per value.

    .. math:: -\frac{\frac1B \sum_b \log p(x_b) + D \log \delta}{D \log 2}

    For discrete leaves :math:`\delta = 1`, and the result is the code length itself.
    For a density of quantized data, :math:`p(x) \delta^D` is the mass of the cell of x
    to first order. With dequantized data (uniform noise of the width :math:`\delta`)
    the result is an upper bound on the bits of the discretized model (Theis, van den
    Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016).

    Args:
        log_probs: ``[B]`` log-likelihoods in nats.
        num_dimensions: D, values per example: variables times channels.
        bin_width: :math:`\delta`, the distance of two neighboring gray levels in the
            leaves' own units: 1/255 where 256 levels were scaled to [0, 1].

    Returns:
        A scalar; lower is better, and 8 is the uniform code of 256 levels. ``inf`` if
        one example is impossible.

    Raises:
        ValueError: ``num_dimensions`` or ``bin_width`` is not positive.
    """
    num_dimensions = whole_number("num_dimensions", num_dimensions, least=1)
    if not bin_width > 0:
        raise ValueError(f"bin_width must be positive, got {bin_width}")
    nats = -jnp.mean(log_probs) / num_dimensions - math.log(bin_width)
    return nats / math.log(2)
