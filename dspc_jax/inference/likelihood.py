"""Exact likelihoods of values, marginal or complete, and the classes' posterior."""

import jax.numpy as jnp

from dspc_jax.inference.upward import log_base, upward
from dspc_jax.ops.numerics import logsumexp, safe_log
from dspc_jax.parameters import CircuitWeights, Layout
from dspc_jax.types import Array


def class_log_probs(
    layout: Layout, weights: CircuitWeights, x: Array, observed: Array | None
) -> Array:
    """``log p(x | y)`` in nats, ``[N, Y]``."""
    root = upward(layout, weights, x, observed).regions[-1][0]
    return jnp.transpose(root + log_base(layout, x, observed)[None])


def joint_log_probs(
    layout: Layout, weights: CircuitWeights, x: Array, observed: Array | None
) -> Array:
    """``log p(x, y)`` in nats, ``[N, Y]``."""
    per_class = class_log_probs(layout, weights, x, observed)
    return per_class + safe_log(weights.classes)[None]


def log_prob(
    layout: Layout, weights: CircuitWeights, x: Array, observed: Array | None
) -> Array:
    """``log p(x)`` in nats, ``[N]``, over all classes; NaN of an observed NaN."""
    return logsumexp(joint_log_probs(layout, weights, x, observed), axis=-1)


def class_posterior(
    layout: Layout, weights: CircuitWeights, x: Array, observed: Array | None
) -> Array:
    """``p(y | x)``, ``[N, Y]``; the prior where the evidence is impossible."""
    joint = joint_log_probs(layout, weights, x, observed)
    total = logsumexp(joint, axis=-1)[:, None]
    possible = total != -jnp.inf
    posterior = jnp.exp(joint - jnp.where(possible, total, 0.0))
    return jnp.where(possible, posterior, weights.classes[None])
