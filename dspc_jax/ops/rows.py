"""Rows of arrays by numbers that are known while a program is traced."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.types import Array

_MOST_PADDING = 4  # reads of nothing for each read of something


def take(array: Array, index: np.ndarray) -> Array:
    """``array[index]`` whose derivative is again a gather; XLA's would be a scatter.

    XLA's CPU backend scatters on one core, into an array of zeros that it writes first.

    Args:
        array: ``[R, ...]``.
        index: rows, whole numbers of any shape; -1 for none.

    Returns:
        ``[*index.shape, ...]``, 0 where there is none.
    """
    rows = _Rows(np.asarray(index), len(array))
    if rows.places.size > _MOST_PADDING * max(index.size, rows.size):
        return _rows_or_zero(array, rows.index)
    return _take(rows, array)


def repeated(array: Array, index: np.ndarray) -> Array:
    """``array[index]`` of few large rows, many times each.

    The derivative adds up what comes back to each row: XLA's CPU backend is quick to
    scatter large rows, others multiply by a matrix of 0 and 1, in a fixed order.

    Args:
        array: ``[R, ...]``.
        index: rows, whole numbers of any shape, none below 0.

    Returns:
        ``[*index.shape, ...]``.
    """
    if np.array_equal(index, np.arange(len(array))):
        return array
    if len(array) == 1:
        return jnp.broadcast_to(array[0], (*index.shape, *array.shape[1:]))
    return _repeated(_Rows(index, len(array)), array)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """The rows ``index`` of an array of ``size`` rows."""

    index: np.ndarray
    size: int

    @functools.cached_property
    def places(self) -> np.ndarray:
        """``[R, A]``: where each row stands in the flat index, -1 where fewer."""
        flat = self.index.ravel()
        order = np.argsort(flat, kind="stable")
        order = order[np.count_nonzero(flat < 0) :]
        counts = np.bincount(flat[order], minlength=self.size)
        number = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.full((self.size, max(counts.max(initial=1), 1)), -1, np.int32)
        places[flat[order], number] = order
        return places


def _rows_or_zero(array: Array, index: np.ndarray) -> Array:
    rows = array[np.maximum(index, 0)]
    if (index >= 0).all():
        return rows
    exists = jnp.asarray(index >= 0).reshape(*index.shape, *[1] * (array.ndim - 1))
    return jnp.where(exists, rows, jnp.zeros((), rows.dtype))


@functools.partial(Differentiable, num_static=1)
def _take(rows: _Rows, array: Array) -> Array:
    return _rows_or_zero(array, rows.index)


def _take_fwd(rows, array):
    return _take(rows, array), None


def _take_bwd(rows, _, g):
    g = g.reshape(rows.index.size, *g.shape[rows.index.ndim :])
    parts = (_rows_or_zero(g, places) for places in rows.places.T)
    return (functools.reduce(jnp.add, parts),)


_take.defvjp(_take_fwd, _take_bwd)


@functools.partial(Differentiable, num_static=1)
def _repeated(rows: _Rows, array: Array) -> Array:
    return array[rows.index]


def _repeated_fwd(rows, array):
    return _repeated(rows, array), None


def _repeated_bwd(rows, _, g):
    flat = g.reshape(rows.index.size, -1)
    index, size = rows.index.ravel(), rows.size

    def scatter(flat):
        return jnp.zeros((size, flat.shape[1]), flat.dtype).at[index].add(flat)

    def product(flat):
        members = jnp.asarray(np.arange(size)[:, None] == index, flat.dtype)
        return jnp.matmul(members, flat, precision="highest")

    total = jax.lax.platform_dependent(flat, cpu=scatter, default=product)
    return (total.reshape(size, *g.shape[rows.index.ndim :]),)


_repeated.defvjp(_repeated_fwd, _repeated_bwd)
