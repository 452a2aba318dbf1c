r"""Exact expectations of Gaussian kernels under circuits: the MMD without samples.

For a Gaussian kernel :math:`k(x, y) = \prod_v e^{-(x_v - y_v)^2 / 2 h^2}`, which is a
product over the variables like the leaves are,

.. math::
  E_{x \sim p}\, k(x, y) = \prod_v \sqrt{2 \pi} h \cdot p_h(y), \qquad
  M_g[k, k'] = E_{x \sim g_k,\, y \sim g_{k'}}\, k(x_g, y_g),

with :math:`p_h` the same circuit with every variance widened by :math:`h^2`. The pair
table :math:`M` of a region follows from those of its children
(`dspc_jax.inference.pairs`). This needs every region to be split in one way only, the
same for both circuits: a tree, without mixtures over partitions.

Kernels on a part of the variables (a patch) are the same with all other factors 1.

References:
    Li, Zeng, Vergari, Van den Broeck, "Tractable Computation of Expected Kernels", UAI
        2021 (algorithm 1).
"""

import functools
import math

import jax.numpy as jnp

from dspc_jax import parameters
from dspc_jax.arguments import shown
from dspc_jax.circuit import Circuit
from dspc_jax.inference import likelihood, pairs
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves import Leaf, Normal
from dspc_jax.leaves.normal import NormalForm
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.values import as_values
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.types import Array


def log_expected_kernel(
    circuit: Circuit,
    params: CircuitParams,
    other: CircuitParams,
    bandwidth: Array | float,
    variables: Array | None = None,
) -> Array:
    r""":math:`\log E\, k(x, y)` for x from one set of parameters and y from another.

    Args:
        circuit: over one partition tree, with Normal leaves.
        params: parameters of the distribution of x.
        other: parameters of that of y, independent of x; may be the same.
        bandwidth: :math:`h > 0`, a scalar, may be traced.
        variables: bool ``[V]``, the variables of the kernel; None: all.

    Returns:
        A scalar ``<= 0``.

    Raises:
        ValueError: the circuit mixes partitions, or a leaf is not Normal.
    """
    layout = circuit.layout
    check(circuit)
    (params, other), dtype = widened((params, other))
    params, left = parameters.of_regions(layout, params)
    other, right = parameters.of_regions(layout, other)
    variance = jnp.asarray(bandwidth, dtype) ** 2
    inputs = functools.reduce(
        jnp.add,
        [
            _leaf_table(block, leaf_p, leaf_q, variance, variables)
            for block, leaf_p, leaf_q in zip(
                layout.blocks, params.leaves, other.leaves, strict=True
            )
        ],
    )
    pair = (left, right)
    return pairs.root(pair, pairs.above(layout, pair, inputs)[-1])


def log_mean_kernel(
    circuit: Circuit,
    params: CircuitParams,
    y: Array,
    bandwidth: Array | float,
    variables: Array | None = None,
) -> Array:
    r""":math:`\log E_{x \sim p}\, k(x, y_n)` for points ``y``.

    It has a closed form for every structure, mixtures over partitions included.

    Args:
        circuit: with Normal leaves.
        params: parameters of the distribution of x.
        y: ``[N, V, C]``.
        bandwidth: :math:`h > 0`, a scalar, may be traced.
        variables: bool ``[V]``, the variables of the kernel; None: all.

    Returns:
        ``[N]``, ``<= 0``.

    Raises:
        ValueError: a leaf is not Normal.
    """
    layout = circuit.layout
    _check_leaves(layout)
    params, dtype = widened(params)
    y = as_values("y", y, dtype)
    bandwidth = jnp.asarray(bandwidth, dtype)
    params, weights = parameters.of_regions(layout, params)
    weights = weights._replace(
        leaves=tuple(
            _widened(block.leaf, leaf, bandwidth**2)
            for block, leaf in zip(layout.blocks, params.leaves, strict=True)
        )
    )
    observed = None
    count = layout.graph.num_variables
    if variables is not None:
        observed = jnp.broadcast_to(variables, (y.shape[0], count))
        count = jnp.sum(variables, dtype=dtype)
    log_p = likelihood.log_prob(layout, weights, y, observed)
    log_width = 0.5 * math.log(2 * math.pi) + jnp.log(bandwidth)
    return log_p + count * layout.num_channels * log_width


def _widened(leaf: Leaf, params, variance) -> NormalForm:
    """Normal leaves with ``variance`` added to theirs."""
    assert isinstance(leaf, Normal)
    mean, std = leaf.components(params)
    total = std**2 + variance
    return NormalForm(mean, 1 / jnp.sqrt(total), 0.5 * jnp.log(total))


def _leaf_table(block: InputBlock, left, right, variance, variables) -> Array:
    """``log E k`` over a region's scope for all pairs of leaves, ``[G, K, K]``."""
    leaf = block.leaf
    assert isinstance(leaf, Normal)
    counted = jnp.asarray(block.valid)
    if variables is not None:
        counted = counted & jnp.asarray(variables)[block.scopes]
    mean_p, std_p = (c[:, :, None] for c in leaf.components(left))
    mean_q, std_q = (c[:, None] for c in leaf.components(right))
    total = variance + std_p**2 + std_q**2
    factor = 0.5 * jnp.log(variance / total) - 0.5 * (mean_p - mean_q) ** 2 / total
    return jnp.sum(jnp.where(counted[:, None, None, :, None], factor, 0.0), (3, 4))


def check(circuit: Circuit) -> None:
    """Raises ValueError where kernels of pairs have no closed form.

    Args:
        circuit: any.

    Raises:
        ValueError: it mixes partitions, or a leaf is not Normal.
    """
    _check_leaves(circuit.layout)
    if not pairs.is_tree(circuit.layout):
        raise ValueError(
            "circuit must have one partition of every region (a quad tree, or "
            "num_repetitions=1) for expected kernels of pairs, got "
            f"{circuit.config.structure}"
        )


def _check_leaves(layout: Layout) -> None:
    for block in layout.blocks:
        if not isinstance(block.leaf, Normal):
            raise ValueError(
                "circuit must have Normal leaves for expected kernels, got "
                f"{shown(block.family)}"
            )
