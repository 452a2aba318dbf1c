"""Values of data in units in which distances of patches make sense."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.ops import missing
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.parameters import Layout
from dspc_jax.types import Array


def values(layout: Layout, x: Array, observed: Array | None) -> Array:
    """``[N, V * C]``: values in units in which distances of patches make sense.

    Those of leaves with a bounded support are shares of it, others are in deviations,
    from a mean: far from 0, float32 has no distances. What is missing is the
    variable's mean.
    """
    scale = np.ones(x.shape[1], np.float32)
    unbounded = np.zeros(x.shape[1], bool)
    center = jnp.zeros(x.shape[1:], x.dtype)
    weight = weights(x, observed)
    for block, rows in zip(layout.blocks, rows_of(layout), strict=True):
        low, high = block.leaf_of_variables.support
        width = np.broadcast_to(np.asarray(high - low, float), block.variables.shape)
        unbounded[block.variables] = ~np.isfinite(width)
        scale[block.variables] = np.where(np.isfinite(width), width, 1.0)
        far = block.variables[~np.isfinite(width)]
        if far.size:
            center = center.at[far].set(means(block, rows, x, weight)[far])
    deviation = missing.deviation(x, observed)
    divisor = jnp.where(unbounded[:, None], deviation, scale[:, None])[None]
    if observed is not None:
        count = jnp.sum(observed, axis=0)[:, None]
        total = jnp.sum(x, axis=0)
        count = jnp.broadcast_to(count, total.shape).astype(x.dtype)
        mean = safe_divide(total, count)
        x = jnp.where(observed[..., None], x, mean[None])
    divisor = jnp.broadcast_to(divisor, x.shape)
    return safe_divide(x - center[None], divisor).reshape(len(x), -1)


def weights(x: Array, observed: Array | None) -> Array:
    """``[N, V]``: 1 where a value is observed, else 0."""
    return jnp.ones(x.shape[:2]) if observed is None else observed.astype(x.dtype)


def rows_of(layout: Layout) -> tuple[np.ndarray | None, ...]:
    """Per block, the row of the tied parameters of every leaf; None: not tied."""
    if layout.tied_leaves is None:
        return (None,) * len(layout.blocks)
    return tuple(tied.rows for tied in layout.tied_leaves)


def means(block: InputBlock, rows: np.ndarray | None, x: Array, weight: Array) -> Array:
    """``[V, C]``: the mean of every variable of a block, or of all tied with it."""
    total = jnp.sum(weight[..., None] * x, axis=0), jnp.sum(weight, axis=0)[:, None]
    row = np.arange(x.shape[1])
    if rows is not None:
        row = np.zeros(x.shape[1], rows.dtype)
        row[block.scopes[block.valid]] = rows[block.valid]
        total = tuple(pooled(a, row) for a in total)
    return (total[0] / jnp.maximum(total[1], 1.0))[row]


def pooled(counts: Array, rows: np.ndarray) -> Array:
    """``[P, ...]`` to ``[T, ...]``: those of each row added up."""
    return jax.ops.segment_sum(counts, rows, num_segments=rows.max() + 1)
