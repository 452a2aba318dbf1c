r"""Implicit reparametrization: the exact pathwise gradient of a circuit's sample.

In a fixed order of the coordinates, a sample of a continuous distribution solves
:math:`F(x_d \mid x_{<d}; \theta) = u_d` for uniform :math:`u`, with the conditional
distribution functions :math:`F`. Therefore its derivative with the :math:`u_d` held
fixed, whatever the sampler, is

.. math::
  dx_d = - \frac{1}{p(x_d \mid x_{<d})}
  \Big(\frac{\partial F_d}{\partial \theta} d\theta
  + \sum_{j<d} \frac{\partial F_d}{\partial x_j} dx_j \Big),

and the gradient of any smooth function of the sample is an unbiased estimator of the
gradient of its mean: no relaxation, no temperature, no noise but the sample's own.

A circuit is linear in its leaves, so three upward passes suffice: with the leaves of
coordinate :math:`d` replaced by their distribution functions
(:math:`N = P(X_d \le x_d, x_{<d})`), by one minus these (:math:`S`), and by densities
(:math:`P = p(x_{\le d})`); those of later coordinates are integrated out. Then
:math:`F_d = N / (N + S)` and

.. math:: \frac{dF_d}{p(x_d \mid x_{<d})} = \frac{N S}{(N + S) P} \; d \log \frac{N}{S},

which keeps its digits in both tails. One sweep through the coordinates is the forward
substitution of the triangular system; its reverse derivative is the backward one.

*When not to use it.* Between two modes far apart :math:`p(x_d \mid x_{<d})` is tiny
and the derivative is huge there: mass moves between the modes only through samples in
the gap. The estimator is unbiased but its variance grows like
:math:`\int (dF)^2 / p`; where no sample ever falls into the gap, the gradient of the
weights is not seen at all.

References:
    Graves, "Stochastic Backpropagation through Mixture Density Distributions", 2016.
    Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", NeurIPS 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.inference import upward
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves import ContinuousLeaf
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array

MAX_COORDINATES = 64
"""Most variables times channels. Each is an upward pass after the last: with 64 a step
takes hundreds of times as long as with ``straight_through`` (docs/estimators.md)."""


def check(layout: Layout) -> None:
    """Raises ValueError where samples have no implicit gradient.

    Args:
        layout: a circuit.

    Raises:
        ValueError: it has more than `MAX_COORDINATES` variables times channels, or
            leaves without a differentiable distribution function.
    """
    count = layout.graph.num_variables * layout.num_channels
    if count > MAX_COORDINATES:
        raise ValueError(
            f"relaxation must not be 'implicit' with more than {MAX_COORDINATES} "
            f"variables times channels, got {count}"
        )
    for block in layout.blocks:
        if not isinstance(block.leaf, ContinuousLeaf):
            raise ValueError(
                "relaxation must not be 'implicit' without leaves that have a "
                f"differentiable distribution function (Normal), got "
                f"{shown(block.family)}"
            )


def reparametrize(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    x: Array,
    observed: Array | None,
) -> Array:
    """Gives samples their pathwise gradient.

    The order of the coordinates is that of the leaf families, then of the variables,
    then of the channels. Another order would change the gradient of one sample (unless
    there is only one coordinate), not its mean.

    Args:
        layout: the circuit, see `check`.
        params: its parameters.
        weights: the same, normalized.
        x: samples ``[N, V, C]`` from the circuit, given the observed values if any.
        observed: bool ``[N, V]``, the observed variables; None: there are none. Samples
            have gradients with respect to these values, too.

    Returns:
        ``x`` itself, with gradients to ``params``, ``weights`` and the observed values.
    """
    num_examples = x.shape[0]
    x = jnp.transpose(x, (1, 2, 0))
    if observed is None:
        observed = jnp.zeros((x.shape[0], num_examples), bool)
    else:
        observed = jnp.transpose(observed)
    x = jnp.where(observed[:, None], x, jax.lax.stop_gradient(x))
    graph = layout.graph
    shape = (len(graph.input_scopes), layout.num_leaves, num_examples)
    inputs = jnp.zeros(shape, x.dtype)
    inputs, x, params, weights = varying_alike((inputs, x, params, weights))
    tables = [
        _by_coordinate(block, leaf, layout.num_channels)
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    ]
    # Observed coordinates come first in the order.
    for block, (leaves, member) in zip(layout.blocks, tables, strict=True):
        inputs = _observe(block, leaves, member, x, observed, inputs)
    values = []
    for block, (leaves, member) in zip(layout.blocks, tables, strict=True):

        def step(inputs, coordinate, block: InputBlock = block):
            leaves, member, variable, x, observed = coordinate
            leaf = block.at(variable)
            assert isinstance(leaf, ContinuousLeaf)
            value = _move(layout, weights, leaf, leaves, member, x, inputs)
            value = jnp.where(observed, x, value)
            density = _spread(leaf.log_density, leaves, value)
            hidden = ~observed[None, None]
            new = jnp.where(member[:, None, None] & hidden, density, 0.0)
            return inputs + new, value

        rows = (leaves, member, *_coordinates(block, x, observed))
        inputs, block_values = jax.lax.scan(step, inputs, rows)
        values.append(block_values.reshape(-1, *x.shape[1:]))
    order = np.argsort(np.concatenate([block.variables for block in layout.blocks]))
    return jnp.transpose(jnp.concatenate(values)[order], (2, 0, 1))


def _move(layout, weights, leaf, leaves, member, x, inputs) -> Array:
    """One coordinate ``[N]`` with its gradient, conditional on those before it."""

    def root(inputs):
        value = upward.above(layout, weights, inputs).regions[-1][0]
        return logsumexp(value + safe_log(weights.classes)[:, None], axis=0)

    below, above = _spread(leaf.log_tails, leaves, x)
    density = _spread(leaf.log_density, leaves, x)
    functions = [
        inputs + jnp.where(member[:, None, None], term, 0.0)
        for term in (below, above, jax.lax.stop_gradient(density))
    ]
    below, above, density = jax.vmap(root)(jnp.stack(functions))
    logit = below - above
    log_step = below + above - jnp.logaddexp(below, above) - density
    step = jax.lax.stop_gradient(finite_or_zero(jnp.exp(log_step)))
    return x - step * (logit - jax.lax.stop_gradient(logit))


def _by_coordinate(block: InputBlock, leaf: Any, num_channels: int):
    """Leaf parameters ``[D, G, K]`` of the block's coordinates, and their regions.

    Returns:
        The parameters, and whether a region holds the coordinate: bool ``[D, G]``.
    """
    places = block.valid[None] & (block.scopes[None] == block.variables[:, None, None])
    member, place = places.any(axis=2), places.argmax(axis=2)
    regions = np.arange(len(block.scopes))[None]
    rows = jax.tree.map(
        lambda p: jnp.moveaxis(p[regions, :, place], 3, 1).reshape(
            -1, *p.shape[:2], *p.shape[4:]
        ),
        leaf,
    )
    return rows, jnp.asarray(np.repeat(member, num_channels, axis=0))


def _coordinates(block: InputBlock, x: Array, observed: Array) -> tuple[Array, ...]:
    """Variables ``[D]``, their values ``[D, N]``, and whether they are observed."""
    values = x[block.variables]
    variables = np.repeat(block.variables, values.shape[1])
    values = values.reshape(-1, values.shape[2])
    return jnp.asarray(variables), values, observed[variables]


def _observe(block, leaves, member, x, observed, inputs) -> Array:
    """Adds the log-densities of the observed coordinates."""

    def step(inputs, coordinate):
        leaves, member, variable, x, observed = coordinate
        leaf = block.at(variable)
        assert isinstance(leaf, ContinuousLeaf)
        density = _spread(leaf.log_density, leaves, x)
        new = jnp.where(member[:, None, None] & observed[None, None], density, 0.0)
        return inputs + new, None

    rows = (leaves, member, *_coordinates(block, x, observed))
    return jax.lax.scan(step, inputs, rows)[0]


def _spread(function, leaves, x):
    """A function of leaves ``[G, K]`` at values ``[N]``: ``[G, K, N]``."""
    return function(jax.tree.map(lambda p: p[..., None], leaves), x[None, None])
