"""Many arrays as parts of one: a generator of random numbers is compiled once for all.

XLA compiles each call of a generator anew, about as long as a layer of a circuit.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.types import Array, PyTree


class _Shape(tuple):
    """A shape that is a leaf of a pytree."""


def shape(*sizes: int) -> PyTree:
    """A shape, as a leaf of a tree of them."""
    return _Shape(sizes)


def total_size(shapes: PyTree) -> int:
    """How many numbers arrays of these shapes have; a tree of `shape`."""
    return sum(map(math.prod, jax.tree.leaves(shapes)))


def divide(numbers: Array, shapes: PyTree) -> PyTree:
    """Divides the last axis into arrays.

    Args:
        numbers: ``[..., total_size(shapes)]``.
        shapes: a tree of `shape`.

    Returns:
        The tree, with arrays ``[..., *sizes]``.
    """
    leaves, tree = jax.tree.flatten(shapes)
    ends = np.cumsum([math.prod(sizes) for sizes in leaves])
    parts = jnp.split(numbers, ends[:-1], axis=-1)
    arrays = [
        part.reshape(*numbers.shape[:-1], *sizes)
        for part, sizes in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, arrays)
