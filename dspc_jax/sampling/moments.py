r"""Conditional means: the downward pass without chance.

The pass of `dspc_jax.sampling.downward` is linear in its selectors. Where every choice
is replaced by its probabilities (a softmax at temperature 1 without noise), mass times
selector is the posterior probability :math:`r_{gk}` that the example came through unit
:math:`k` of input region :math:`g`, and

.. math:: E[x_v \mid x_{obs}] = \sum_{g \ni v} \sum_k r_{gk}\, E_{gk}[x_v].
"""

import jax.numpy as jnp

from dspc_jax.inference.upward import Evidence
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.sampling import downward
from dspc_jax.sampling.noise import Noise
from dspc_jax.types import Array


def means(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    evidence: Evidence,
    silence: Noise,
) -> Array:
    """Conditional means of all variables, exact for every region graph.

    Args:
      layout: the circuit.
      params: its parameters.
      weights: the same, normalised.
      evidence: what `upward` returned for the observed values.
      silence: `dspc_jax.sampling.noise.none` for as many examples.

    Returns:
      ``[N, V, C]``; differentiable in parameters and evidence. 0 where the evidence is
      impossible.
    """
    posterior = downward.select(
        layout, weights, evidence, silence, "gumbel_softmax", 1.0
    )
    values = [
        downward.blend_component(
            block, block.leaf.mean(block.leaf.components(leaf)), posterior
        )
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    ]
    return jnp.transpose(downward.in_variable_order(layout, values), (2, 0, 1))
