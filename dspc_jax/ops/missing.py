"""Data with missing values: what is observed stands in for what is not."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dspc_jax.types import Array, Key


def observed_rows(
    key: Key, observed: Array, rows: ArrayLike, columns: ArrayLike
) -> Array:
    """Rows that have their column: those given, or else random ones that have it.

    Args:
        key: chooses among the rows that have the column, all alike.
        observed: bool ``[N, V]``.
        rows: any shape that broadcasts with ``columns``.
        columns: variables.

    Returns:
        Rows, in the joint shape; as given where no row has the column.
    """
    rows, columns = jnp.broadcast_arrays(jnp.asarray(rows), jnp.asarray(columns))
    ranks = jnp.cumsum(observed, axis=0, dtype=jnp.int32)
    count = ranks[-1][columns]
    rank = jax.random.randint(key, rows.shape, 0, jnp.maximum(count, 1), jnp.int32)
    # The first row of a greater rank, by bisection: there is no array [N, *rows.shape].
    first = jnp.zeros(rows.shape, jnp.int32)
    last = jnp.full(rows.shape, len(observed) - 1, jnp.int32)
    for _ in range(len(observed).bit_length()):
        middle = (first + last) // 2
        there = ranks[middle, columns] > rank
        first = jnp.where(there, first, middle + 1)
        last = jnp.where(there, middle, last)
    return jnp.where(observed[rows, columns] | (count == 0), rows, last)


def deviation(data: Array, observed: Array | None) -> Array:
    """The standard deviation of every variable over the rows that have it.

    Args:
        data: ``[N, V, C]``; finite where not observed.
        observed: bool ``[N, V]``, or None.

    Returns:
        ``[V, C]``; 0 where no row has the variable.
    """
    if observed is None:
        return jnp.std(data, axis=0)
    some = observed.any(axis=0)[None]
    counted = (observed | ~some)[..., None]  # a variable of no row: of constants
    return jnp.std(data, axis=0, where=counted)
