"""Leaves of all input regions as rows, one for each variable of each region.

Families compute with them so: the leaf of ``block.at(block.scopes.ravel())`` is that of
these rows, joined ones as well.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.layers.input_layer import InputBlock


def rows(block: InputBlock, tree: Any, channel: int) -> Any:
    """Parameters ``[G, K, L, C, ...]`` of a channel, as ``[G * L, K, ...]``."""
    num_regions, length = block.scopes.shape

    def row(array):
        array = jnp.moveaxis(array, 2, 1)[:, :, :, channel]
        return array.reshape(num_regions * length, *array.shape[2:])

    return jax.tree.map(row, tree)
