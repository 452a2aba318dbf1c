r"""Between stored levels and the values of leaves, and the bits of the levels.

A codec knows the units of one kind of leaves on data of K levels, 0 .. K - 1. Discrete
leaves take the levels as they are. A density sees dequantized levels, a smooth function
:math:`x(v + u)` of the level v with noise u, uniform on [0, 1); it is a model of the
levels by

.. math:: P(v) = \int_{[0, 1)^D} p(x(v + u)) \prod_d \frac{dx_d}{dv_d} \, du

and by Jensen's inequality the mean of :math:`\log p(x) + \sum_d \log dx_d / dv_d` over
the noise is a lower bound of :math:`\log P(v)`. Bits per dimension of different codecs
therefore compare, and each is an upper bound.

References:
    Theis et al., "A note on the evaluation of generative models", ICLR 2016, section
    3.1.
    Dinh et al., "Density estimation using Real NVP", ICLR 2017, section 4.1 (logit).
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key


class Codec(NamedTuple):
    r"""The units of one kind of leaves on data with a given number of levels.

    Attributes:
        encode: ``(key, levels) -> x``: uint8 levels of any shape to float32 leaf values
            of the same shape. Only densities use the key.
        to_unit: leaf values to [0, 1] gray values (differentiable; linear but for the
            logit, so that values of unbounded leaves may lie outside).
        from_unit: [0, 1] gray values to leaf values; of discrete leaves the nearest
            legal one, with the derivative of the linear map.
        to_levels: leaf values to the nearest stored levels, uint8.
        mean_log_slope: leaf values of one example, of any shape, to the mean of
            :math:`\log dx / dv` over them, in nats; 0 of discrete leaves.
    """

    encode: Callable[[Key, Array], Array]
    to_unit: Callable[[Array], Array]
    from_unit: Callable[[Array], Array]
    to_levels: Callable[[Array], Array]
    mean_log_slope: Callable[[Array], Array]


def level_codec(num_values: int) -> Codec:
    """For discrete leaves over the levels themselves (binomial, categorical, ...).

    Args:
        num_values: K, from 2 to 256.

    Returns:
        The codec.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256.
    """
    top = _top(num_values)
    return Codec(
        encode=lambda key, levels: as_values("levels", levels, jnp.float32),
        to_unit=lambda x: x / top,
        from_unit=lambda x: _nearest(x * top, top),
        to_levels=lambda x: _levels(x, top),
        mean_log_slope=_constant(0.0),
    )


def binary_codec(num_values: int) -> Codec:
    """For Bernoulli leaves: 1 where the level is in the upper half, else 0.

    Its bits per dimension are those of the black-and-white image and compare with no
    other codec's, unless K is 2.

    Args:
        num_values: K, from 2 to 256.

    Returns:
        The codec; white comes back as the highest level.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256.
    """
    top, white = _top(num_values), (num_values + 1) // 2
    return Codec(
        encode=lambda key, levels: (as_values("levels", levels) >= white).astype(
            jnp.float32
        ),
        to_unit=lambda x: x,
        from_unit=lambda x: _nearest(x, 1),
        to_levels=lambda x: _levels(x * top, top),
        mean_log_slope=_constant(0.0),
    )


def uniform_codec(num_values: int) -> Codec:
    r"""For densities on [0, 1]: uniform dequantization, :math:`x = (v + u) / K`.

    The slope is 1/K everywhere: :math:`\log_2 K` bits a dimension are added to those of
    the density.

    Args:
        num_values: K, from 2 to 256.

    Returns:
        The codec. Values outside of [0, 1] come back as the lowest or highest level.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256.

    References:
        Theis et al., ICLR 2016, section 3.1.
    """
    top = _top(num_values)
    return Codec(
        encode=lambda key, levels: _dequantized(key, levels, num_values),
        to_unit=lambda x: x,
        from_unit=lambda x: x,
        to_levels=lambda x: _levels(jnp.floor(x * num_values), top),
        mean_log_slope=_constant(math.log(1 / num_values)),
    )


def logit_codec(num_values: int, *, alpha: float = 0.05) -> Codec:
    r"""For densities on the real line: the logit of dequantized levels.

    .. math:: x = \operatorname{logit} y, \quad
        y = \alpha + (1 - 2 \alpha) \frac{v + u}{K}, \quad
        \frac{dx}{dv} = \frac{1 - 2 \alpha}{K} \frac{1}{y (1 - y)}

    Mass of the density beyond :math:`\operatorname{logit} \alpha` and
    :math:`\operatorname{logit} (1 - \alpha)` belongs to no level and is lost.

    Args:
        num_values: K, from 2 to 256.
        alpha: the margin, between 0 and 1/2, both left out.

    Returns:
        The codec. Its ``from_unit`` moves gray values outside of [0, 1] to the nearer
        end, where the gradient is 0.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256, or alpha of (0, 1/2).

    References:
        Dinh et al., ICLR 2017, section 4.1 (with one margin in place of two).
    """
    top = _top(num_values)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha}")
    width = 1 - 2 * alpha

    def to_unit(x: Array) -> Array:
        return (jax.nn.sigmoid(x) - alpha) / width

    def from_unit(x: Array) -> Array:
        return jax.scipy.special.logit(alpha + width * jnp.clip(x, 0, 1))

    def mean_log_slope(x: Array) -> Array:
        # -log y and -log(1 - y), without the cancellation of 1 - y.
        curvature = jnp.mean(jax.nn.softplus(-x) + jax.nn.softplus(x))
        return math.log(width / num_values) + curvature

    return Codec(
        encode=lambda key, levels: from_unit(_dequantized(key, levels, num_values)),
        to_unit=to_unit,
        from_unit=from_unit,
        to_levels=lambda x: _levels(jnp.floor(to_unit(x) * num_values), top),
        mean_log_slope=mean_log_slope,
    )


def bits_per_example(codec: Codec, x: Array, log_probs: Array) -> Array:
    r"""Bits per dimension of the levels of every example.

    .. math:: -\frac{1}{D \log 2} \Bigl( \log p(x) + \sum_d \log \frac{dx_d}{dv_d}
        \Bigr)

    Args:
        codec: of the leaves.
        x: the encoded examples, ``[B, ...]``, of D values each.
        log_probs: their log-likelihoods in nats, ``[B]``.

    Returns:
        ``[B]``; the mean over a data set is the set's bits per dimension. Exact for
        discrete leaves, an upper bound for densities, ``inf`` for an impossible
        example.

    Raises:
        ValueError: the shapes do not fit, or an example has no values.

    References:
        Theis et al., ICLR 2016, section 3.1.
    """
    x, log_probs = as_values("x", x), as_values("log_probs", log_probs)
    if x.ndim < 2 or log_probs.shape != x.shape[:1] or not math.prod(x.shape[1:]):
        raise ValueError(
            "x and log_probs must have the shapes [B, ...] and [B], with values in "
            f"every example, got {x.shape} and {log_probs.shape}"
        )
    slopes = jax.vmap(codec.mean_log_slope)(x)
    return (-log_probs / math.prod(x.shape[1:]) - slopes) / math.log(2)


def _top(num_values: int) -> int:
    """The highest level."""
    num_values = whole_number("num_values", num_values)
    if not 2 <= num_values <= 256:
        raise ValueError(f"num_values must be from 2 to 256, got {num_values}")
    return num_values - 1


def _constant(value: float) -> Callable[[Array], Array]:
    return lambda x: jnp.full((), value, x.dtype)


def _dequantized(key: Key, levels: Array, num_values: int) -> Array:
    """The levels on [0, 1), each with uniform noise of its own width."""
    levels = as_values("levels", levels, jnp.float32)
    return (levels + jax.random.uniform(key, levels.shape)) / num_values


def _nearest(x: Array, top: int) -> Array:
    """The nearest of 0 .. top, with the derivative of x itself."""
    return x + jax.lax.stop_gradient(jnp.clip(jnp.round(x), 0, top) - x)


def _levels(x: Array, top: int) -> Array:
    return jnp.clip(jnp.round(x), 0, top).astype(jnp.uint8)
