"""Maximum likelihood."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree


def negative_log_likelihood(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    log_prob: Callable[[Any, Array], Array],
) -> tuple[Array, Metrics]:
    r"""The mean negative log-likelihood of a batch, in nats per example.

    .. math:: L(\theta) = -\frac1B \sum_{b=1}^B \log p_\theta(x_b)

    Its minimum over all densities is the entropy of the data.

    Args:
        params: the circuit's parameters, any pytree.
        key: not used; objectives share one signature.
        batch: ``[B, V, C]`` examples in the leaves' own units, ``B >= 1``.
        log_prob: ``log_prob(params, x[V, C]) -> scalar`` in nats: the per-example
            ``circuit.log_prob``, or a partial application of it.

    Returns:
        The loss, and the metric ``log_likelihood``: its negative, in nats per example.
        One impossible example (``-inf``) makes the loss ``inf``.

    Raises:
        ValueError: the batch is empty, or has no axis of examples.
    """
    del key
    batch = as_values("batch", batch)
    if batch.ndim < 1 or batch.shape[0] == 0:
        raise ValueError(
            f"batch must hold at least one example, got the shape {batch.shape}"
        )
    log_likelihood = jnp.mean(jax.vmap(log_prob, (None, 0))(params, batch))
    return -log_likelihood, {"log_likelihood": log_likelihood}
