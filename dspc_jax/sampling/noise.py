"""The randomness of one sample, drawn from its key in one fixed way.

Every sampler (hard or relaxed, path or dense) takes the same numbers from the same key,
which is why they agree draw for draw as the temperature falls to 0. Partitions that can
never be taken together share Gumbel noise: that is exact for a hard sample, which uses
only one of them, and a tenth of the numbers for ten repetitions.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.layers import sum_layer
from dspc_jax.ops import divisions
from dspc_jax.parameters import Layout
from dspc_jax.types import Array, Key, PyTree


class Noise(NamedTuple):
    """Noise of a batch.

    All numbers are uniform in (0, 1); `gumbel` turns them into Gumbel noise at their
    point of use, in the layout that this needs.

    Attributes:
        classes: ``[N, Y]``.
        mixtures: per level ``[N, S, M]``, or None where nothing is mixed.
        sums: per level, per fold, ``[N, S, D]`` over the products of children.
        leaves: ``[N, V, C]``, one number per pixel and channel.
    """

    classes: Array
    mixtures: tuple[Array | None, ...]
    sums: tuple[tuple[Array, ...], ...]
    leaves: Array


def draw(layout: Layout, keys: Key, dtype: Any) -> Noise:
    """Draws the noise of a batch of keys ``[N]``; each example uses its own key only.

    The generator is called once per key; its numbers are split into the arrays above.
    """
    shapes = _shapes(layout)
    size = divisions.total_size(shapes)
    uniform = jax.vmap(lambda key: _uniform(key, size, dtype))(keys)
    return divisions.divide(uniform, shapes)


def _uniform(key: Key, count: int, dtype: Any) -> Array:
    """Numbers in (0, 1): in float64 those of float32, with more digits.

    They are centered on a grid, of 2**-23 or 2**-46, so that neither 0 nor 1 comes up.
    """
    draw = functools.partial(jax.random.uniform, shape=(count,), dtype=jnp.float32)
    if dtype != jnp.float64:
        return draw(key) + 2.0**-24
    digits = draw(jax.random.fold_in(key, 1)).astype(dtype)
    return draw(key).astype(dtype) + (2.0**-23 * digits + 2.0**-47)


def exp_gumbel(uniform: Array) -> Array:
    """``exp(g)`` of standard Gumbel noise ``g``, from uniform numbers."""
    return -1.0 / jnp.log(uniform)


def gumbel(uniform: Array) -> Array:
    """Standard Gumbel noise from uniform numbers."""
    return jnp.log(exp_gumbel(uniform))


def _shapes(layout: Layout) -> PyTree:
    """`Noise` with shapes of one example in place of arrays."""
    mixtures, sums = [], []
    for level in layout.graph.levels:
        mixture = level.mixture
        slots = int(level.slots.max()) + 1
        mixtures.append(
            None if mixture is None else divisions.shape(slots, mixture.shape[1])
        )
        folds = []
        for fold in level.folds:
            units = layout.num_leaves if fold.from_inputs else layout.num_sums
            kind = layout.sum_layer if len(fold.children) > 1 else "hadamard"
            size = math.prod(sum_layer.weight_shape(kind, (units, units)))
            folds.append(divisions.shape(fold.num_slots, size))
        sums.append(tuple(folds))
    return Noise(
        classes=divisions.shape(layout.num_classes),
        mixtures=tuple(mixtures),
        sums=tuple(sums),
        leaves=divisions.shape(layout.graph.num_variables, layout.num_channels),
    )


def none(layout: Layout, num_examples: int, dtype: Any) -> Noise:
    """Numbers whose Gumbel noise is 0: every choice becomes an arg max (for MPE)."""
    silence = float(np.exp(-1))  # -log(-log(u)) = 0
    return jax.tree.map(
        lambda shape: jnp.full((num_examples, *shape), silence, dtype), _shapes(layout)
    )
