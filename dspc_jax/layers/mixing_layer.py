r"""The mixing layer: unit-wise mixtures of the partitions of a region.

Unit :math:`k` of region :math:`g` is :math:`\sum_m w_{gkm}\, s_{\pi(g,m) k}` over the
region's partitions :math:`\pi(g, 1), \pi(g, 2), \ldots`; the repetitions of a random
forest are the partitions of its root.

References:
    Peharz et al., "Einsum Networks", ICML 2020 (mixing layer).
"""

import jax.numpy as jnp
import numpy as np

from dspc_jax.ops.numerics import log_softmax, logsumexp, safe_log
from dspc_jax.ops.rows import take
from dspc_jax.types import Array


def exists(mixture: np.ndarray) -> np.ndarray:
    """Where there is a partition, ``[G, 1, M]``: False is padding."""
    return (mixture >= 0)[:, None]


def weights(mixture: np.ndarray, logits: Array) -> Array:
    """Softmax of logits ``[G, K, M]`` over each region's partitions; 0 where padded."""
    return jnp.exp(log_softmax(jnp.where(exists(mixture), logits, -jnp.inf), -1))


def equal(mixture: np.ndarray | None, num_units: int, like: Array) -> Array | None:
    """Weights ``[G, K, M]`` that are equal for each region's partitions; 0 if padded.

    Args:
        mixture: ``[G, M]`` partitions of each region, -1 where padded; None: there are
            no mixtures, nor weights.
        num_units: K.
        like: an array of the type that they are to have.
    """
    if mixture is None:
        return None
    share = exists(mixture) / exists(mixture).sum(-1, keepdims=True)
    shape = (len(mixture), num_units, mixture.shape[1])
    return jnp.broadcast_to(jnp.asarray(share, like.dtype), shape)


def gather(mixture: np.ndarray, partitions: Array) -> Array:
    """Each region's partitions: ``[P, K, N]`` to ``[G, M, K, N]`` (padding: 0)."""
    if np.array_equal(mixture.ravel(), np.arange(mixture.size)):
        return partitions.reshape(*mixture.shape, *partitions.shape[1:])
    return take(partitions, mixture)


def log_mix(mixture: np.ndarray, weights: Array, log_probs: Array) -> Array:
    """Mixes partitions into regions.

    Args:
        mixture: ``[G, M]`` partitions of each region, -1 where padded.
        weights: ``[G, K, M]``, linear, 0 where padded.
        log_probs: ``[P, K, N]``, nats.

    Returns:
        ``[G, K, N]``, nats; -inf with zero gradients where all partitions are
        impossible.
    """
    log_weights = safe_log(jnp.moveaxis(weights, 1, 2))[..., None]
    return logsumexp(gather(mixture, log_probs) + log_weights, axis=1)


def log_mix_max(mixture: np.ndarray, weights: Array, log_probs: Array) -> Array:
    """As `log_mix` with a maximum in place of the sum, ``[G, K, N]``."""
    log_weights = safe_log(jnp.moveaxis(weights, 1, 2))[..., None]
    return jnp.max(gather(mixture, log_probs) + log_weights, axis=1)
