r"""Conditional means, from a gradient.

The derivative of :math:`\log p(x_{obs})` with respect to the log-density of unit
:math:`k` of input region :math:`g` is the posterior probability :math:`r_{gk}` that the
example came through this unit, and

.. math:: E[x_v \mid x_{obs}] = \sum_{g \ni v} \sum_k r_{gk}\, E_{gk}[x_v].

References:
    Darwiche, "A differential approach to inference in Bayesian networks", JACM 2003.
"""

import jax
import jax.numpy as jnp

from dspc_jax.inference.upward import above, log_inputs
from dspc_jax.layers import input_layer
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array


def means(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    x: Array,
    observed: Array,
) -> Array:
    """The conditional mean of every variable, exact for every region graph.

    Args:
        layout: the circuit.
        params: its parameters.
        weights: the same, normalized.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``.

    Returns:
        ``[N, V, C]``; differentiable in parameters and observed values. 0 where the
        evidence is impossible.
    """

    def log_prob(inputs):
        root = above(layout, weights, inputs).regions[-1][0]
        return logsumexp(root + safe_log(weights.classes)[:, None], axis=0)

    inputs = log_inputs(layout, weights, x, observed)
    posterior = jax.grad(lambda inputs: jnp.sum(finite_or_zero(log_prob(inputs))))(
        inputs
    )
    values = [
        input_layer.blend(
            block, block.leaf.mean(block.leaf.components(leaf)), posterior
        )
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    ]
    ordered = input_layer.in_variable_order(layout.blocks, values)
    return jnp.transpose(ordered, (2, 0, 1))
