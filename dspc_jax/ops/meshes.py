"""Meshes with explicit axes, on which every operation must say how its result lies."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from dspc_jax.types import PyTree


def placed(function: Callable[..., PyTree], spec: PartitionSpec) -> Callable[..., Any]:
    """A function inside of which no axis of a mesh is explicit.

    The compiler places what is inside, as it does on other meshes, where the function
    is what it was.

    Args:
        function: of arrays alone, with any pytree of arrays as its result.
        spec: how the results lie over the explicit axes.

    Returns:
        The function.
    """

    def call(*arrays: PyTree) -> PyTree:
        leaves = jax.tree.leaves(arrays)
        meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
        mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
        if mesh is None:
            return function(*arrays)
        sharding = NamedSharding(mesh, spec)
        return jax.sharding.auto_axes(function, out_sharding=sharding)(*arrays)

    return call
