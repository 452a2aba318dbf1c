"""Tied parameters: one row for each group, and from there to all that share it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.ops.rows import repeated
from dspc_jax.structure.tied_groups import TiedSums
from dspc_jax.types import Array, Key


class TiedLeaves(NamedTuple):
    """Where the parameters of a block of leaves are.

    Attributes:
        block: whose parameters they are: one region for each group, of one of its
            variables.
        rows: the row for every leaf, ``[G, L]``, any where padded.
    """

    block: InputBlock
    rows: np.ndarray


def tied(block: InputBlock, groups: np.ndarray) -> TiedLeaves:
    """The leaves of a block, those of one group with the same parameters.

    Args:
        block: any.
        groups: of every variable, ``[V]``; those of one group have equal leaves.

    Returns:
        The rows, in the order of the groups.
    """
    _, first, inverse = np.unique(
        groups[block.variables], return_index=True, return_inverse=True
    )
    number = np.zeros(len(groups), block.scopes.dtype)
    number[block.variables] = inverse
    variables = block.variables[first]
    scopes = variables[:, None]
    own = InputBlock(block.family, scopes, np.ones(scopes.shape, bool), variables)
    return TiedLeaves(own, number[block.scopes])


def pooled(
    key: Key,
    blocks: Sequence[InputBlock],
    tied_leaves: Sequence[TiedLeaves],
    data: Array,
    observed: Array | None,
) -> tuple[Array, Array | None]:
    """Data in which the one variable of each group has values of all of them.

    Args:
        key: chooses a variable of the group for each example.
        blocks: all leaves.
        tied_leaves: where the parameters of each block are.
        data: ``[N, V, C]``.
        observed: bool ``[N, V]``, or None.

    Returns:
        Data and mask.
    """
    example = np.arange(len(data))[:, None]
    own_data, own_observed = data, observed
    for number, (block, (own, rows)) in enumerate(
        zip(blocks, tied_leaves, strict=True)
    ):
        members = np.stack([rows[block.valid], block.scopes[block.valid]], axis=1)
        group, variable = np.unique(members, axis=0).T
        sizes = np.bincount(group)
        starts = (np.cumsum(sizes) - sizes).astype(np.int32)
        shape = (len(data), len(sizes))
        key_block = jax.random.fold_in(key, number)
        drawn = jax.random.randint(key_block, shape, 0, sizes[None], jnp.int32)
        chosen = jnp.asarray(variable)[starts[None] + drawn]
        own_data = own_data.at[:, own.variables].set(data[example, chosen])
        if observed is not None and own_observed is not None:
            known = observed[example, chosen]
            own_observed = own_observed.at[:, own.variables].set(known)
    return own_data, own_observed


def leaves_of_regions(
    tied_leaves: Sequence[TiedLeaves], leaves: Sequence[Any]
) -> tuple[Any, ...]:
    """Per block, arrays ``[T, K, 1, ...]`` to ``[G, K, L, ...]``."""

    def rows_of(rows):
        return lambda array: jnp.moveaxis(repeated(array[:, :, 0], rows), 1, 2)

    return tuple(
        jax.tree.map(rows_of(tied.rows), own)
        for tied, own in zip(tied_leaves, leaves, strict=True)
    )


def sums_of_regions(
    ties: TiedSums,
    sums: tuple[tuple[Array, ...], ...],
    mixtures: tuple[Array | None, ...],
) -> tuple[tuple[tuple[Array, ...], ...], tuple[Array | None, ...]]:
    """Per level, per fold, rows of the tables; per level, rows of mixtures."""
    (tables,) = sums
    expanded = tuple(
        tuple(repeated(tables[table], rows) for table, rows in folds)
        for folds in ties.rows
    )
    mixed = tuple(
        None if rows is None or logits is None else repeated(logits, rows)
        for logits, rows in zip(mixtures, ties.mixture_rows, strict=True)
    )
    return expanded, mixed
