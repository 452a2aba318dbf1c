r"""The upward pass: from values to the log-density of every unit.

.. math::
  \ell_{gk} = \sum_{v \in g} \log p_{gk}(x_v), \qquad
  \ell_{po} = \log \sum_d w_{pod}\, \pi_d(e^{\ell}), \qquad
  \log p(x) = \log \sum_y w_y e^{\ell_{root, y}}

An unobserved variable contributes :math:`\log \int p = 0`, so a marginal costs as much
as a likelihood. All functions take a batch, examples on the last axis.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from dspc_jax.inference import levels
from dspc_jax.layers import input_layer, mixing_layer, sum_layer
from dspc_jax.ops.storage import stored
from dspc_jax.ops.values import LARGEST
from dspc_jax.parameters import CircuitWeights, Layout
from dspc_jax.types import Array


class Evidence(NamedTuple):
    """Log-densities of all units, from the upward pass for the downward one.

    Attributes:
        regions: per level (inputs first), log-densities ``[G, K, N]``.
        partitions: per inner level, those of the partitions ``[P, O, N]``, before
            mixing.
    """

    regions: tuple[Array, ...]
    partitions: tuple[Array, ...]


def sanitize(x: Array, observed: Array | None) -> Array:
    """``[N, V, C]`` to ``[V, C, N]``; 0 in place of unobserved values.

    Values stay within `LARGEST`, where their squares are finite; that which
    is observed and NaN stays NaN.
    """
    x = stored(jnp.transpose(x, (1, 2, 0)))
    x = jnp.clip(x, -LARGEST, LARGEST)
    if observed is None:
        return x
    return jnp.where(jnp.transpose(observed)[:, None], x, 0.0)


def upward(
    layout: Layout,
    weights: CircuitWeights,
    x: Array,
    observed: Array | None,
    hidden_modes: tuple[Array, ...] | None = None,
) -> Evidence:
    """Computes the log-densities of all units, without the leaves' base measure.

    Args:
        layout: the circuit.
        weights: its normalized parameters.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``, or None if everything is observed.
        hidden_modes: for max-product, per leaf family the greatest log-density of each
            leaf ``[G, K, L, C]``: sums become maxima, and an unobserved leaf
            contributes its mode.

    Returns:
        The log-densities.
    """
    inputs = log_inputs(layout, weights, x, observed, hidden_modes)
    return above(layout, weights, inputs, maximize=hidden_modes is not None)


def log_inputs(
    layout: Layout,
    weights: CircuitWeights,
    x: Array,
    observed: Array | None,
    hidden_modes: tuple[Array, ...] | None = None,
) -> Array:
    """The log-densities of the input regions alone, ``[G, K, N]``; see `upward`."""
    modes = hidden_modes or (None,) * len(layout.blocks)
    x = sanitize(x, observed)
    observed = None if observed is None else jnp.transpose(observed)
    return functools.reduce(
        jnp.add,
        (
            input_layer.log_prob(block, natural, x, observed, mode)
            for block, natural, mode in zip(
                layout.blocks, weights.leaves, modes, strict=True
            )
        ),
    )


def log_base(layout: Layout, x: Array, observed: Array | None) -> Array:
    """The base measures that `log_inputs` lacks, ``[N]``, of values ``[N, V, C]``.

    -inf where an observed value is impossible under every leaf.
    """
    x = sanitize(x, observed)
    observed = None if observed is None else jnp.transpose(observed)
    return functools.reduce(
        jnp.add,
        (input_layer.log_base(block, x, observed) for block in layout.blocks),
    )


def above(
    layout: Layout, weights: CircuitWeights, inputs: Array, *, maximize: bool = False
) -> Evidence:
    """The upward pass from log-values of the input regions, ``[G, K, N]``.

    A circuit is linear in every leaf, so leaves may hold other functions of their
    variable than densities (distribution functions, see `dspc_jax.sampling.implicit`).

    Args:
        layout: the circuit.
        weights: its normalized parameters; those of leaves do not enter.
        inputs: logarithms of the values of all input units.
        maximize: whether sums become maxima.

    Returns:
        The logarithms of the values of all units.
    """
    log_mix = mixing_layer.log_mix_max if maximize else mixing_layer.log_mix
    regions = [inputs]
    partitions = []
    sums = functools.partial(_sums, maximize, layout.sum_layer)
    for level, tables, mixture in zip(
        layout.graph.levels, weights.sums, weights.mixtures, strict=True
    ):
        folds = [
            levels.upward(sums, fold, regions, table)
            for fold, table in zip(level.folds, tables, strict=True)
        ]
        out = folds[0] if len(folds) == 1 else jnp.concatenate(folds)
        partitions.append(out)
        if level.mixture is not None:
            assert mixture is not None
            out = log_mix(level.mixture, mixture, out)
        regions.append(out)
    return Evidence(tuple(regions), tuple(partitions))


def _sums(maximize: bool, kind: str, children: list[Array], weights: Array) -> Array:
    log_sum = sum_layer.log_max if maximize else sum_layer.log_sum
    return log_sum(kind, weights, children)
