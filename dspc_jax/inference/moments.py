r"""Conditional means and covariances, from gradients.

The derivative of :math:`\log p(x_{obs})` with respect to the log-density of unit
:math:`k` of input region :math:`g` is the posterior probability :math:`r_{gk}` that the
example came through this unit, and

.. math:: E[x_v \mid x_{obs}] = \sum_{g \ni v} \sum_k r_{gk}\, E_{gk}[x_v].

With every leaf's density times :math:`e^{s_v m_{gk}[v]}` for its mean :math:`m`, the
second derivatives of :math:`\log p` at :math:`s = 0` are the covariances, under the
posterior, of the means of the chosen leaves. The law of total covariance adds the
leaves' own variances,

.. math:: \mathrm{Cov}[x_u, x_v \mid x_{obs}] =
  \frac{\partial^2 \log p}{\partial s_u \partial s_v}
  + [u = v] \sum_{g \ni v} \sum_k r_{gk}\, \mathrm{Var}_{gk}[x_v].

References:
    Darwiche, "A differential approach to inference in Bayesian networks", JACM 2003.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference.leaf_rows import rows
from dspc_jax.inference.upward import above, log_base, log_inputs
from dspc_jax.layers import input_layer
from dspc_jax.leaves import integrals
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_log
from dspc_jax.ops.products import contract
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array

_AT_ONCE = 16
"""Coordinates whose second derivatives are computed together."""


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
    inputs = log_inputs(layout, weights, x, observed)
    chances = posterior(layout, weights, inputs)
    chances = jnp.where(_is_possible(layout, x, observed), chances, 0.0)
    values = [
        input_layer.blend(block, block.leaf.mean(block.leaf.components(leaf)), chances)
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    ]
    ordered = input_layer.in_variable_order(layout.blocks, values)
    return jnp.transpose(ordered, (2, 0, 1))


def _log_prob(layout, weights, inputs):
    root = above(layout, weights, inputs).regions[-1][0]
    return logsumexp(root + safe_log(weights.classes)[:, None], axis=0)


def _is_possible(layout, x, observed):
    """Whether base measures, which no unit has, are; bool ``[1, 1, N]``."""
    return (log_base(layout, x, observed) != -jnp.inf)[None, None]


def posterior(layout: Layout, weights: CircuitWeights, inputs: Array) -> Array:
    """The posterior of the units of input regions, ``[G, K, N]``.

    Args:
        layout: the circuit.
        weights: its normalized parameters.
        inputs: of `dspc_jax.inference.upward.log_inputs`.
    """

    def total(inputs):
        return jnp.sum(finite_or_zero(_log_prob(layout, weights, inputs)))

    return jax.grad(total)(inputs)


def covariances(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    x: Array,
    observed: Array,
) -> Array:
    """The conditional covariance of every pair, exact for every region graph.

    As many passes as there are coordinates, `_AT_ONCE` at a time.

    Args:
        layout: the circuit.
        params: its parameters.
        weights: the same, normalized.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``.

    Returns:
        ``[N, V, C, V, C]``; 0 of observed variables and of impossible evidence.

    Raises:
        ValueError: a leaf has no variance (`dspc_jax.leaves.integrals`).
    """
    num_examples, num_variables, num_channels = x.shape
    inputs = log_inputs(layout, weights, x, observed)
    hidden = jnp.transpose(~observed)[:, None].astype(inputs.dtype)  # [V, 1, N]
    means = []
    for block, leaf in zip(layout.blocks, params.leaves, strict=True):
        mean = block.leaf.mean(block.leaf.components(leaf))
        means.append((mean, _about_center(block, mean)))

    def total(shifts):
        terms = [
            _tilt(b, m, shifts) for b, (_, m) in zip(layout.blocks, means, strict=True)
        ]
        return _log_prob(layout, weights, functools.reduce(jnp.add, terms, inputs))

    slope = jax.grad(lambda shifts: jnp.sum(finite_or_zero(total(shifts))))
    origin = jnp.zeros((num_variables, num_channels, num_examples), inputs.dtype)
    # On several devices at once it is one of each: slopes are not added up.
    origin, inputs = varying_alike((origin, inputs))

    def row(coordinate):
        chosen = jnp.arange(origin.shape[0] * num_channels) == coordinate
        chosen = chosen.reshape(num_variables, num_channels, 1)
        direction = jnp.where(chosen, hidden, 0.0)
        return jax.jvp(slope, (origin,), (direction,))[1] * hidden

    # Those beyond the last are 0, in whole batches: a rest would be compiled again.
    count = num_variables * num_channels
    at_once = min(_AT_ONCE, count)
    batches = jnp.arange(at_once * -(-count // at_once)).reshape(-1, at_once)
    table = jax.lax.map(jax.vmap(row), batches)
    table = table.reshape(-1, num_variables, num_channels, num_examples)[:count]
    chances = posterior(layout, weights, inputs)
    own = [
        input_layer.blend(block, _variances(block, leaf, natural, mean), chances)
        for block, leaf, natural, (mean, _) in zip(
            layout.blocks, params.leaves, weights.leaves, means, strict=True
        )
    ]
    own = input_layer.in_variable_order(layout.blocks, own) * hidden
    diagonal = jnp.eye(count, dtype=own.dtype)[..., None]
    table = table.reshape(count, count, num_examples)
    table = table + diagonal * own.reshape(count, 1, num_examples)
    table = jnp.where(_is_possible(layout, x, observed), table, 0.0)
    shape = (num_variables, num_channels) * 2
    return jnp.moveaxis(table, -1, 0).reshape(num_examples, *shape)


def _about_center(block, mean):
    """Means of leaves about a mean of each variable's: products keep their digits."""
    units = jnp.ones((*mean.shape[:2], 1), mean.dtype)
    counts = input_layer.blend(block, jnp.ones_like(mean), units)
    center = (input_layer.blend(block, mean, units) / counts)[..., 0]
    places = np.searchsorted(block.variables, block.scopes)
    places = np.where(block.valid, places, 0)
    center = jax.lax.stop_gradient(center)[places]
    return jnp.where(block.valid[:, None, :, None], mean - center[:, None], 0.0)


def _tilt(block, mean, shifts):
    """``sum_v shift_v mean_v`` of every unit: ``[G, K, N]``."""
    num_regions, num_units = mean.shape[:2]
    shifts = shifts[block.scopes]
    shifts = shifts.reshape(num_regions, -1, shifts.shape[-1])
    return contract(mean.reshape(num_regions, num_units, -1), shifts)


def _variances(block, leaf, natural, mean):
    """Of all leaves, ``[G, K, L, C]``."""
    own = block.at(block.scopes.ravel())
    channels = []
    for c in range(mean.shape[3]):
        leaves, forms, means = rows(block, (leaf, natural, mean), c)
        channels.append(integrals.variance(own, leaves, forms, means, "covariances"))
    stacked = jnp.stack(channels, axis=-1)  # [G * L, K, C]
    stacked = stacked.reshape(*block.scopes.shape, *stacked.shape[1:])
    return jnp.moveaxis(stacked, 1, 2)
