"""k-means of many patches: of each set of columns of a table, all by two products.

References:
    Lloyd, "Least squares quantization in PCM", 1982.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.types import Array, Key

_CHUNK = 8192  # rows that are assigned at a time


def labels(
    key: Key,
    table: Array,
    patches: Sequence[np.ndarray],
    num_clusters: int,
    *,
    groups: np.ndarray | None = None,
    num_fitted: int = 15_000,
    num_iterations: int = 10,
) -> np.ndarray:
    """The cluster of every row of a table, patch by patch.

    Clusters start at random rows, and one without rows moves to another. Where rows are
    fewer than clusters, or equal in a patch, some clusters are empty.

    Args:
        key: chooses the first centers, and the rows that centers are fitted to.
        table: ``[N, D]``, columns of comparable units.
        patches: the columns of each.
        num_clusters: K.
        groups: a number for each patch: those of one group that have equally many
            columns share their centers, which are fitted to rows of all of them. None:
            each has its own.
        num_fitted: rows that centers are fitted to, at most; all get labels.
        num_iterations: steps of the algorithm.

    Returns:
        ``[S, N]``, whole numbers ``0..K-1`` of the smallest unsigned type.
    """
    key_rows, key_centers = jax.random.split(key)
    num_rows = len(table)
    fitted = table
    if num_rows > num_fitted:
        rows = jax.random.permutation(key_rows, num_rows)[:num_fitted]
        fitted = table[rows]
    out = np.zeros((len(patches), num_rows), np.min_scalar_type(num_clusters - 1))
    widths = np.array([_padded_size(len(patch)) for patch in patches])
    if groups is None:
        groups = np.arange(len(patches))
    sizes = np.array([len(patch) for patch in patches])
    for width in np.unique(widths):
        (places,) = np.nonzero(widths == width)
        pairs = np.stack([groups[places], sizes[places]], 1)
        _, group = np.unique(pairs, axis=0, return_inverse=True)
        columns = np.zeros((len(places), width), np.int32)
        exists = np.zeros((len(places), width), bool)
        for row, place in enumerate(places.tolist()):
            size = len(patches[place])
            columns[row, :size], exists[row, :size] = patches[place], True
        counts = np.bincount(group)
        members = np.zeros((len(counts), max(counts)), np.int32)
        for row, count in enumerate(counts):
            members[row, :count] = np.flatnonzero(group == row)
        size = min(num_fitted, len(fitted) * max(counts))
        keys = jax.random.split(jax.random.fold_in(key_centers, width), len(counts))
        centers = _all_centers(
            *(keys, fitted, columns, exists, members, counts),
            *(num_clusters, num_iterations, size),
        )
        numbers = _labels(centers[group], table, columns, exists)
        out[places] = np.asarray(numbers)[:, :num_rows]
    return out


def _padded_size(size: int) -> int:
    """Powers of 4, above 64 of 2: a few programs for all sizes."""
    bits = (size - 1).bit_length()
    return 1 << (bits if bits > 6 else bits + bits % 2)


@functools.partial(jax.jit, static_argnums=(6, 7, 8))
def _all_centers(
    keys, fitted, columns, exists, members, counts, num_clusters, num_iterations, size
):
    """``[S, K, W]``: the centers of each group of patches, from ``size`` rows."""

    def group(operands):
        key, members, count = operands
        if members.shape[0] == 1:
            own, there = columns[members[0]], exists[members[0]]
            rows = jnp.where(there[None], fitted[:, own], 0.0)
        else:
            key_patch = jax.random.fold_in(key, 0)
            place = jax.random.randint(key_patch, (size,), 0, count, jnp.int32)
            own, there = columns[members[place]], exists[members[place]]
            row = np.arange(size)[:, None] % len(fitted)
            rows = jnp.where(there, fitted[row, own], 0.0)
        return _centers(key, rows, num_clusters, num_iterations)

    columns, exists = jnp.asarray(columns), jnp.asarray(exists)
    return jax.lax.map(group, (keys, members, counts.astype(np.int32)))


@jax.jit
def _labels(centers, table, columns, exists):
    """``[S, rows]``, with some more rows at the end."""
    num_chunks = -(-len(table) // _CHUNK)
    size = -(-len(table) // num_chunks)
    table = jnp.pad(table, ((0, num_chunks * size - len(table)), (0, 0)))
    chunks = table.reshape(num_chunks, size, -1)

    def patch(operands):
        centers, columns, exists = operands

        def chunk(table):
            return nearest(jnp.where(exists[None], table[:, columns], 0.0), centers)

        numbers = jax.lax.map(chunk, chunks)
        return numbers.reshape(-1).astype(np.min_scalar_type(len(centers) - 1))

    return jax.lax.map(patch, (centers, columns, exists))


def _centers(key, rows, num_clusters, num_iterations):
    """``[K, D]``, after some steps of k-means."""
    key_first, key_steps = jax.random.split(key)
    order = jax.random.permutation(key_first, len(rows))
    first = rows[jnp.resize(order, num_clusters)]

    def step(centers, key):
        label = nearest(rows, centers)
        count = jnp.zeros(num_clusters, rows.dtype).at[label].add(1.0)[:, None]
        total = jnp.zeros_like(centers).at[label].add(rows)
        mean = total / jnp.maximum(count, 1.0)
        other = rows[jax.random.randint(key, (num_clusters,), 0, len(rows), jnp.int32)]
        return jnp.where(count > 0, mean, other), None

    keys = jax.random.split(key_steps, num_iterations)
    return jax.lax.scan(step, first, keys)[0]


def nearest(rows: Array, centers: Array) -> Array:
    """The center that is nearest to each row, the last of equally near ones.

    Args:
        rows: ``[N, D]``.
        centers: ``[K, D]``.

    Returns:
        int32 ``[N]``.
    """
    product = jnp.matmul(centers, rows.T, precision="highest")
    # Two passes over the rows: an index of a minimum is not vectorized on CPU.
    distance = jax.lax.optimization_barrier(
        jnp.sum(centers**2, axis=1)[:, None] - 2 * product
    )
    least = jnp.min(distance, axis=0)
    number = jnp.arange(len(centers), dtype=jnp.int32)[:, None]
    return jnp.max(jnp.where(distance == least[None], number, 0), axis=0)
