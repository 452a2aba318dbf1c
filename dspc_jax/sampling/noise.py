"""The randomness of one sample, drawn from its key in one fixed way.

Every sampler (hard or relaxed, path or dense) takes the same numbers from the same key,
which is why they agree draw for draw as the temperature falls to 0. Partitions that can
never be taken together share Gumbel noise: that is exact for a hard sample, which uses
only one of them, and a tenth of the numbers for ten repetitions.

A choice draws 64 bits; the numbers of its alternatives are made of them where they are
used (`alternatives`), so that no array of them is stored.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.layers import sum_layer
from dspc_jax.ops import divisions
from dspc_jax.parameters import Layout
from dspc_jax.sampling import hashing
from dspc_jax.types import Array, Key, PyTree

_WORDS = 2  # of 32 bits, for each choice


class Noise(NamedTuple):
    """Noise of a batch.

    A choice has its bits, uint32 ``[..., 2]``, or the numbers of its D alternatives,
    uniform in (0, 1), ``[..., D]``; `alternatives` takes either, and `expanded` turns
    all of the one into the other. `gumbel` makes Gumbel noise of the numbers.

    Attributes:
        classes: ``[N, 2]`` or ``[N, Y]``.
        mixtures: per level ``[N, S, 2]`` or ``[N, S, M]``, or None where nothing is
            mixed.
        sums: per level, per fold, ``[N, S, 2]`` or ``[N, S, D]`` over the products of
            children.
        leaves: ``[N, V, C]``, one uniform number per pixel and channel.
    """

    classes: Array
    mixtures: tuple[Array | None, ...]
    sums: tuple[tuple[Array, ...], ...]
    leaves: Array


def draw(layout: Layout, keys: Key, dtype: Any) -> Noise:
    """Draws the noise of a batch of keys ``[N]``; each example uses its own key only.

    The generator is called once per key (and once more for float64: its numbers are
    those of float32 with more digits); its bits are split into the arrays above.
    """
    shapes = _bit_shapes(layout)
    bits = _bits(keys, divisions.total_size(shapes))
    noise: Noise = divisions.divide(bits, shapes)
    leaves = hashing.open_uniform(noise.leaves)
    if dtype == jnp.float64:
        others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        size = math.prod(leaves.shape[1:])
        leaves = hashing.more_digits(leaves, _bits(others, size).reshape(leaves.shape))
    return noise._replace(leaves=leaves)


def _bits(keys: Key, count: int) -> Array:
    return jax.vmap(lambda key: jax.random.bits(key, (count,), jnp.uint32))(keys)


def alternatives(source: Array, count: int, dtype: Any, axis: int = -1) -> Array:
    """The uniform numbers of a choice's alternatives.

    Args:
        source: a field of `Noise`: bits, 2 along ``axis``, or the numbers themselves.
        count: D, the number of alternatives.
        dtype: of the numbers, float32 or float64.
        axis: that of the bits, or of the alternatives.

    Returns:
        Numbers in (0, 1), D along ``axis``.
    """
    if not hashing.is_bits(source):
        return source
    axis = axis % source.ndim
    first, second = (
        jax.lax.slice_in_dim(source, word, word + 1, axis=axis)
        for word in range(_WORDS)
    )
    shape = [count if number == axis else 1 for number in range(source.ndim)]
    index = jnp.arange(count, dtype=jnp.uint32).reshape(shape)
    uniform = hashing.open_uniform(hashing.alternative_bits(first, second, index))
    if dtype != jnp.float64:
        return uniform
    others = hashing.alternative_bits(second, first, index)
    return hashing.more_digits(uniform, others)


def expanded(layout: Layout, noise: Noise) -> Noise:
    """The numbers of all alternatives: arrays of all choices times alternatives."""
    dtype = noise.leaves.dtype
    choices = jax.tree.map(
        lambda shape, source: alternatives(source, shape[-1], dtype),
        _shapes(layout)._replace(leaves=()),
        noise._replace(leaves=()),
    )
    return choices._replace(leaves=noise.leaves)


def exp_gumbel(uniform: Array) -> Array:
    """``exp(g)`` of standard Gumbel noise ``g``, from uniform numbers."""
    return -1.0 / jnp.log(uniform)


def gumbel(uniform: Array) -> Array:
    """Standard Gumbel noise from uniform numbers."""
    return jnp.log(exp_gumbel(uniform))


def _shapes(layout: Layout) -> Noise:
    """`Noise` of numbers, with shapes of one example in place of arrays."""
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
    shapes: list[Any] = [
        divisions.shape(layout.num_classes),
        tuple(mixtures),
        tuple(sums),
        divisions.shape(layout.graph.num_variables, layout.num_channels),
    ]
    return Noise(*shapes)


def _bit_shapes(layout: Layout) -> PyTree:
    """`Noise` of bits, with shapes of one example in place of arrays."""
    shapes = _shapes(layout)
    bits = jax.tree.map(
        lambda shape: divisions.shape(*shape[:-1], _WORDS), shapes._replace(leaves=())
    )
    return bits._replace(leaves=shapes.leaves)


def none(layout: Layout, num_examples: int, dtype: Any) -> Noise:
    """Numbers whose Gumbel noise is 0: every choice becomes an arg max (for MPE)."""
    silence = float(np.exp(-1))  # -log(-log(u)) = 0
    return jax.tree.map(
        lambda shape: jnp.full((num_examples, *shape), silence, dtype), _shapes(layout)
    )
