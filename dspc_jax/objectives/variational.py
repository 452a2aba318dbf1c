"""The evidence lower bound of a variational auto-encoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.ops.numerics import softplus
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree


def gaussian_kl(mean: Array, log_variance: Array) -> Array:
    r""":math:`KL(N(\mu, \operatorname{diag} \sigma^2) \| N(0, I))`, in nats.

    .. math:: \tfrac12 \sum_l \mu_l^2 + \sigma_l^2 - 1 - \log \sigma_l^2

    Args:
        mean: ``[B, L]``.
        log_variance: ``[B, L]``.

    Returns:
        ``[B]``, not negative.
    """
    terms = mean**2 + jnp.expm1(log_variance) - log_variance
    return 0.5 * jnp.sum(terms, axis=1)


def variational_loss(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    encode: Callable[[Any, Array], tuple[Array, Array]],
    decode: Callable[[Any, Array], Array],
    kl_weight: float = 1.0,
) -> tuple[Array, Metrics]:
    r"""The negative evidence lower bound with a Bernoulli decoder.

    .. math:: \frac1B \sum_b H(x_b, \sigma(d(z_b))) + w\, KL(q(z \mid x_b) \| N(0, I)),
        \quad z_b \sim q(z \mid x_b)

    Args:
        params: parameters of both networks.
        key: one typed key, for the latents' noise.
        batch: ``[B, V, C]`` gray values in [0, 1].
        encode: ``(params, x[B, V, C]) -> (mean, log_variance)``, ``[B, L]`` each.
        decode: ``(params, z[B, L]) -> [B, V, C]``: logits.
        kl_weight: :math:`w`; 1 is the bound.

    Returns:
        The loss in nats an image, and the metrics ``reconstruction`` (the cross-entropy
        H, summed over the image) and ``kl``.

    References:
        Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.
    """
    batch = as_values("batch", batch)
    mean, log_variance = encode(params, batch)
    noise = jax.random.normal(key, mean.shape, jnp.float32).astype(mean.dtype)
    logits = decode(params, mean + jnp.exp(0.5 * log_variance) * noise)
    entropy = (softplus(logits) - batch * logits).reshape(batch.shape[0], -1)
    reconstruction = jnp.mean(jnp.sum(entropy, axis=1))
    kl = jnp.mean(gaussian_kl(mean, log_variance))
    return reconstruction + kl_weight * kl, {
        "reconstruction": reconstruction,
        "kl": kl,
    }
