r"""Two compatible circuits at once: tables of pairs of their units.

Where every region is split in one way only, and in the same for both circuits, the
table :math:`M_{kk'} = \int p_k\, q_{k'}\, f` of a region, for a function f that is a
product over the variables, follows from those of its children: a product of a
partition's children is the product of their tables, and a sum layer weighs both sides,
:math:`M_{oo'} = \sum_{d d'} w_{od} w_{o'd'} M_d \odot M_{d'}`.

References:
    Vergari, Choi, Liu, Teso and Van den Broeck, "A compositional atlas of tractable
    circuit operations for probabilistic inference", NeurIPS 2021 (algorithm 3).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.leaf_rows import rows
from dspc_jax.layers import sum_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves import integrals
from dspc_jax.leaves.integrals import OverlapLeaf
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array


def above(
    layout: Layout, weights: tuple[CircuitWeights, CircuitWeights], inputs: Array
) -> list[Array]:
    """The tables of all regions from those of the input regions.

    Args:
        layout: of either circuit; each region has one partition (`is_tree`).
        weights: of both, normalized and of regions.
        inputs: logarithms, ``[G, K, K']``.

    Returns:
        Per level (inputs first), logarithms ``[G, K, K']``.
    """
    left, right = weights
    tables = [inputs]
    for number, level in enumerate(layout.graph.levels):
        folds = [
            levels.upward(
                functools.partial(_sums, layout.sum_layer),
                fold,
                tables,
                (left.sums[number][index], right.sums[number][index]),
            )
            for index, fold in enumerate(level.folds)
        ]
        tables.append(jnp.concatenate(folds))
    return tables


def root(weights: tuple[CircuitWeights, CircuitWeights], table: Array) -> Array:
    """The logarithm of the value of both circuits, a scalar, from the root's table."""
    left, right = (safe_log(own.classes) for own in weights)
    joint = table[0] + left[:, None] + right[None]
    return logsumexp(joint.ravel(), axis=0)


def is_tree(layout: Layout) -> bool:
    """Whether every region has one partition."""
    return all(level.mixture is None for level in layout.graph.levels)


def _sums(kind: str, children: list[Array], weights: tuple[Array, Array]) -> Array:
    """Both sides of a sum layer over tables ``[P, K, K']``: ``[P, O, O']``, logs."""
    left, right = weights
    half = sum_layer.log_sum(*_products(kind, children, left))
    flat = right.reshape(*right.shape[:2], -1)
    return jnp.swapaxes(
        sum_layer.log_sum("hadamard", flat, [jnp.swapaxes(half, 1, 2)]), 1, 2
    )


def _products(kind, children, left):
    """Kind, weights and children of the left side, pairs of the right one last."""
    if len(children) == 2 and kind == "tucker":
        first, second = children
        num_first, num_second = first.shape[2], second.shape[2]
        first = jnp.repeat(first, num_second, axis=2)
        second = jnp.tile(second, (1, 1, num_first))
        return "tucker", left, [first, second]
    return "hadamard", left, children


def log_overlaps(
    block: InputBlock,
    params: tuple[Any, Any],
    naturals: tuple[Any, Any],
    num_channels: int,
    query: str,
) -> Array:
    r"""``log`` of :math:`\int p_k\, q_{k'}` of every leaf, ``[G, L, C, K, K']``.

    Args:
        block: a family's variables.
        params: of both circuits' leaves.
        naturals: the same, natural.
        num_channels: C.
        query: what needs them, for the error.

    Returns:
        Logarithms; anything where the block is padded.

    Raises:
        ValueError: the leaf has neither finitely many values nor a closed form.
    """
    own = block.at(block.scopes.ravel())
    count = integrals.num_values(block.family)
    needed = "finitely many values or products in closed form"
    known = count is not None or isinstance(own, OverlapLeaf)
    integrals.require(known, query, needed, block.family)
    channels = []
    for c in range(num_channels):
        if count is None:
            assert isinstance(own, OverlapLeaf)
            left, right = (rows(block, p, c) for p in params)
            left = jax.tree.map(lambda p: p[:, :, None], left)
            right = jax.tree.map(lambda p: p[:, None], right)
            channels.append(own.log_overlap(left, right))
        else:
            pair = tuple(rows(block, natural, c) for natural in naturals)
            channels.append(_sum_of_values(own, pair, count))
    stacked = jnp.stack(channels, axis=1)
    return stacked.reshape(*block.scopes.shape, *stacked.shape[1:])


def _sum_of_values(leaf, naturals, count):
    """``log sum_v p_k(v) q_k'(v)``, ``[D, K, K']``, with all its digits."""
    left, right = (jax.tree.leaves(natural)[0] for natural in naturals)
    shape = (left.shape[0], left.shape[1], right.shape[1])

    def product(value):
        x = jnp.full((shape[0], 1), value)
        p, q = (integrals.log_table(leaf, own, x)[..., 0] for own in naturals)
        return p[:, :, None] + q[:, None]

    def raise_(top, value):
        return jnp.maximum(top, jax.lax.stop_gradient(product(value))), None

    @jax.checkpoint
    def add(total, value):
        log_p = product(value)
        possible = log_p != -jnp.inf
        shifted = jnp.where(possible, log_p - top, 0.0)
        return total + jnp.where(possible, jnp.exp(shifted), 0.0), None

    values = jnp.arange(count, dtype=left.dtype)
    zero = jnp.zeros(shape, left.dtype)
    zero, _, _ = varying_alike((zero, left, right))
    top, _ = jax.lax.scan(raise_, zero - jnp.inf, values)
    top = finite_or_zero(top)
    total, _ = jax.lax.scan(add, zero, values)
    return safe_log(total) + top


def overlaps_of_regions(
    layout: Layout,
    params: tuple[CircuitParams, CircuitParams],
    weights: tuple[CircuitWeights, CircuitWeights],
    query: str,
) -> Array:
    """The tables of the input regions, ``[G, K, K']``; see `log_overlaps`."""
    blocks = [
        log_overlaps(block, leaves, naturals, layout.num_channels, query)
        for block, leaves, naturals in zip(
            layout.blocks,
            zip(*(own.leaves for own in params), strict=True),
            zip(*(own.leaves for own in weights), strict=True),
            strict=True,
        )
    ]
    sums = [
        jnp.sum(
            jnp.where(np.asarray(b.valid)[..., None, None, None], table, 0.0), (1, 2)
        )
        for b, table in zip(layout.blocks, blocks, strict=True)
    ]
    return functools.reduce(jnp.add, sums)
