r"""Weights that have absorbed the values of the units below: posterior weights.

Where the units of a circuit are multiplied by constants :math:`c_k`, each sum is
:math:`\sum_d w_d c_d\, \pi_d = c \sum_d w'_d\, \pi_d` with weights
:math:`w'_d \propto w_d c_d` that add up to 1, and a constant :math:`c` that its parents
absorb. Constants are likelihoods of evidence, or integrals of products.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.upward import Evidence
from dspc_jax.layers import mixing_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.ops.numerics import finite_or_zero, safe_log
from dspc_jax.parameters import Layout
from dspc_jax.types import Array, PyTree


def log_weights(weights: Array, children: Sequence[Array]) -> Array:
    """Logits of posterior weights.

    Args:
        weights: of sums, linear: ``[P, O, K]``, or ``[P, O, K, K]`` of pairs.
        children: logarithms of constants, ``[P, K, 1]`` of one child, of both children
            of pairs, or of several whose units are multiplied one by one.

    Returns:
        Of the shape of the weights, the greatest of each sum 0. The weights themselves
        where no child of a sum is possible.
    """
    own = safe_log(weights)
    if weights.ndim == 4:
        left, right = (child[..., 0] for child in children)
        factors = left[:, None, :, None] + right[:, None, None]
    else:
        factors = sum(child[:, None, :, 0] for child in children)
    axes = tuple(range(2, weights.ndim))
    logits = own + factors
    possible = jnp.any(logits != -jnp.inf, axis=axes, keepdims=True)
    logits = jnp.where(possible, logits, own)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=axes, keepdims=True))
    return logits - finite_or_zero(top)


def sums(
    layout: Layout, tables: Sequence[Sequence[Array]], regions: Sequence[Array]
) -> tuple[tuple[Array, ...], ...]:
    """Posterior weights of all sums, logits.

    Args:
        layout: the circuit.
        tables: per level, per fold, weights as of `log_weights`.
        regions: per level (inputs first), logarithms of constants ``[G, K, 1]``.
    """
    return tuple(
        tuple(
            log_weights(table, levels.children_among(fold, regions, number))
            for fold, table in zip(level.folds, own, strict=True)
        )
        for number, (level, own) in enumerate(
            zip(layout.graph.levels, tables, strict=True), start=1
        )
    )


def mixtures(
    layout: Layout, weights: Sequence[Array | None], evidence: Evidence
) -> tuple[Array | None, ...]:
    """Posterior weights of all mixtures of partitions, logits ``[G, K, M]``."""
    out = []
    for level, own, partitions in zip(
        layout.graph.levels, weights, evidence.partitions, strict=True
    ):
        if level.mixture is None:
            out.append(None)
            continue
        assert own is not None
        parts = mixing_layer.gather(level.mixture, partitions)[..., 0]  # [G, M, K]
        exists = mixing_layer.exists(level.mixture)
        parts = jnp.where(exists, jnp.moveaxis(parts, 1, 2), 0.0)
        groups, units, size = own.shape
        flat = own.reshape(groups * units, 1, size)
        logits = log_weights(flat, [parts.reshape(groups * units, size, 1)])
        out.append(jnp.where(exists, logits.reshape(own.shape), 0.0))
    return tuple(out)


def moved_leaves(
    old: Sequence[InputBlock],
    leaves: Sequence[PyTree],
    new: Sequence[InputBlock],
    shapes: Sequence[PyTree],
    rows: np.ndarray,
    variables: np.ndarray,
) -> tuple[Any, ...]:
    """Leaf parameters in the blocks of another layout.

    Args:
        old: blocks.
        leaves: theirs, ``[G, K, L, C, ...]``.
        new: blocks of the same families.
        shapes: of the new parameters, trees of `jax.ShapeDtypeStruct`.
        rows: the new input region of each old one, -1 where there is none.
        variables: the new number of each old variable, -1 where there is none.

    Returns:
        Parameters of the new blocks; padding is 0.
    """
    out = []
    for target, shape in zip(new, shapes, strict=True):
        dtype = jax.tree.leaves(tuple(leaves))[0].dtype
        arrays = jax.tree.map(lambda s, dtype=dtype: jnp.zeros(s.shape, dtype), shape)
        for block, own in zip(old, leaves, strict=True):
            numbers = variables[block.scopes]
            counted = block.valid & (rows >= 0)[:, None]
            counted &= np.isin(numbers, target.variables)
            if not counted.any() or jax.tree.structure(own) != jax.tree.structure(
                shape
            ):
                continue
            at, places = np.nonzero(counted)
            to = rows[at]
            same = target.scopes[to] == numbers[at, places][:, None]
            to_places = (same & target.valid[to]).argmax(axis=1)

            def put(array, source, at=at, places=places, to=to, to_places=to_places):
                values = source[at, :, places]
                width = min(array.shape[-1], values.shape[-1])
                if array.ndim == 5:  # a table, longer or shorter by padding
                    padding = array[to, :, to_places][..., width:]
                    values = jnp.concatenate([values[..., :width], padding], -1)
                return array.at[to, :, to_places].set(values)

            arrays = jax.tree.map(put, arrays, own)
        out.append(arrays)
    return tuple(out)
