"""From pixel levels to a leaf family's units, and back.

Likelihoods are compared as bits per dimension of the stored levels: continuous leaves
see dequantised values, whose density is a lower bound on the probability of the levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.evaluation import bits_per_dimension


class Preprocessing(NamedTuple):
    """The units of one leaf family on images with a given number of levels.

    Attributes:
        encode: ``(key, levels) -> x``: uint8 levels of any shape to float32 leaf values
            of the same shape. Only continuous leaves use the key.
        to_unit: leaf values to [0, 1] grey values (a linear map: differentiable, and
            sampled values of unbounded leaves may lie outside).
        from_unit: [0, 1] grey values to leaf values; of discrete leaves the nearest
            legal one, with the derivative of the linear map.
        to_levels: leaf values to the nearest stored levels, uint8.
        bin_width: distance of neighbouring levels where leaf values are continuous,
            else 1; `dspc_jax.evaluation.bits_per_dimension` takes it.
    """

    encode: Callable[[jax.Array, jax.Array], jax.Array]
    to_unit: Callable[[jax.Array], jax.Array]
    from_unit: Callable[[jax.Array], jax.Array]
    to_levels: Callable[[jax.Array], jax.Array]
    bin_width: float


def preprocessing(leaf: str, num_values: int) -> Preprocessing:
    r"""The units of a leaf family.

    - binomial, categorical, discretized_logistic: the levels themselves,
      ``0 .. num_values - 1``.
    - bernoulli: 1 where the level is in the upper half, else 0. Its bits per dimension
      are those of the black-and-white image and compare with no other leaf's.
    - normal: uniform dequantisation, :math:`x = (v + u) / K` with
      :math:`u \sim U[0, 1)` and :math:`K` levels. The density of :math:`x` is
      :math:`K` times that of :math:`v + u`, so :math:`\log_2 K` bits a dimension are
      added back (``bin_width`` is 1 / K); by Jensen the result bounds the bits of the
      levels from above.

    Args:
        leaf: the family, as given to ``--leaf``.
        num_values: K, levels of a channel.

    Returns:
        The maps.

    Raises:
        ValueError: an unknown family.

    References:
        Theis et al., "A note on the evaluation of generative models", ICLR 2016.
    """
    top = num_values - 1
    if leaf in ("binomial", "categorical", "discretized_logistic"):
        return Preprocessing(
            encode=lambda key, levels: levels.astype(jnp.float32),
            to_unit=lambda x: x / top,
            from_unit=lambda x: _nearest(x * top, top),
            to_levels=lambda x: _levels(x, top),
            bin_width=1.0,
        )
    if leaf == "bernoulli":
        return Preprocessing(
            encode=lambda key, levels: (levels >= num_values / 2).astype(jnp.float32),
            to_unit=lambda x: x,
            from_unit=lambda x: _nearest(x, 1),
            to_levels=lambda x: _levels(x * top, top),
            bin_width=1.0,
        )
    if leaf == "normal":
        return Preprocessing(
            encode=lambda key, levels: (
                (levels.astype(jnp.float32) + jax.random.uniform(key, levels.shape))
                / num_values
            ),
            to_unit=lambda x: x,
            from_unit=lambda x: x,
            to_levels=lambda x: _levels(jnp.floor(x * num_values), top),
            bin_width=1 / num_values,
        )
    raise ValueError(f"leaf must be a known family, got {leaf!r}")


def per_example_bits(
    log_probs: jax.Array, num_dims: int, codec: Preprocessing
) -> jax.Array:
    """Bits per dimension of every example, ``[B]``, from ``log p`` in nats, ``[B]``.

    Args:
        log_probs: of encoded examples.
        num_dims: variables times channels.
        codec: what encoded them.

    Returns:
        ``[B]``; the mean over a data set is the set's bits per dimension.
    """
    return jax.vmap(
        lambda log_p: bits_per_dimension(
            log_p[None], num_dims, bin_width=codec.bin_width
        )
    )(log_probs)


def _nearest(x: jax.Array, top: int) -> jax.Array:
    """The nearest of 0 .. top, with the derivative of x itself."""
    return x + jax.lax.stop_gradient(jnp.clip(jnp.round(x), 0, top) - x)


def _levels(x: jax.Array, top: int) -> jax.Array:
    return jnp.clip(jnp.round(x), 0, top).astype(jnp.uint8)
