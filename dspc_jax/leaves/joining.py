r"""Joining: leaves of one family, differently configured, evaluated as one.

A table's columns have different numbers of categories. Compiled code and its speed
depend on the number of arrays, not on their sizes, so leaves of one family share arrays
although their configurations differ. A family that allows it (`JoinableLeaf`) says in
``varying`` which of its fields may differ. In a *joined* leaf such a field is an array
``[V]``, one entry per variable of the circuit; `at` picks those of the variables at
hand, and `aligned` broadcasts them where the family computes with them.
"""

from collections.abc import Hashable, Sequence
import copy
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import store
from dspc_jax.leaves.family import JoinableLeaf, Leaf
from dspc_jax.types import Array

_MOST_PADDING = 2.0
"""Joined leaves take at most so many times what they would take one by one."""


def equal(leaves: Sequence[Leaf]) -> list[list[int]]:
    """The variables of each distinct leaf, in order of first appearance."""
    members: dict[Leaf, list[int]] = {}
    for variable, leaf in enumerate(leaves):
        members.setdefault(leaf, []).append(variable)
    return list(members.values())


def joinable(leaves: Sequence[Leaf]) -> list[list[int]]:
    """The variables whose leaves may be joined, in order of first appearance.

    Those of a family are split where its greatest leaves would make the others too
    large: joined, they would cost more than `_MOST_PADDING` times as much as alone. So
    the costs of a family's parts fall at least by half from one to the next, and few
    parts are enough.

    Args:
        leaves: of every variable.

    Returns:
        For each block its variables, ascending. Leaves of a family that is not joinable
        are together where they are equal.
    """
    kin: dict[Hashable, list[int]] = {}
    for variable, leaf in enumerate(leaves):
        kin.setdefault(_kin(leaf), []).append(variable)
    parts = []
    for members in kin.values():
        costs = [_cost(leaves[v]) for v in members]
        parts += [sorted(members[i] for i in part) for part in _by_cost(costs)]
    return sorted(parts)


def join(leaves: Sequence[Leaf], members: Sequence[int]) -> Leaf:
    """The leaves of some variables as one.

    Args:
        leaves: of every variable.
        members: variables whose leaves are `joinable`, or equal.

    Returns:
        One of the leaves, if all are equal. Otherwise the family with arrays ``[V]`` in
        place of the fields that differ (those of other variables hold any legal value).
    """
    first = leaves[members[0]]
    if all(leaves[v] == first for v in members):
        return first

    def field(*values):
        if all(value == values[0] for value in values):
            return values[0]
        array = np.full(len(leaves), values[0])
        array[list(members)] = values
        return array

    joined = copy.copy(first)
    for name in _varying(first):
        per_leaf = [getattr(leaves[v], name) for v in members]
        store(joined, **{name: jax.tree.map(field, *per_leaf)})
    return joined


def at(leaf: Leaf, variables: np.ndarray | Array) -> Leaf:
    """A joined leaf with the configuration of some variables; any other as it is.

    Args:
        leaf: of `join`.
        variables: integers of any shape; an array of JAX where they are traced.

    Returns:
        The leaf, its arrays of the shape of ``variables``.
    """
    traced = isinstance(variables, jax.Array)

    def pick(value):
        if not isinstance(value, np.ndarray):
            return value
        return jnp.asarray(value)[variables] if traced else value[variables]

    fields = {name: getattr(leaf, name) for name in _varying(leaf)}
    if not any(isinstance(v, np.ndarray) for v in jax.tree.leaves(fields)):
        return leaf
    picked = copy.copy(leaf)
    store(picked, **jax.tree.map(pick, fields))
    return picked


def aligned(field: Any, like: Array) -> Any:
    """A field of a leaf that may be joined, ready to meet an array.

    Args:
        field: a number, or an array whose axes are the first ones of ``like``.
        like: what it is to meet.

    Returns:
        A number as it is. An array in the type of ``like``, with axes of 1 at the end.
    """
    if isinstance(field, int):
        return field
    if isinstance(field, float):
        return float(field)  # NumPy's would bring its type along
    field = jnp.asarray(field, like.dtype)
    return field.reshape(*field.shape, *[1] * (like.ndim - field.ndim))


def _varying(leaf: Leaf) -> tuple[str, ...]:
    """Fields in which joined leaves may differ; a subclass has to allow it itself."""
    return vars(type(leaf)).get("varying", ())


def _kin(leaf: Any) -> Hashable:
    """Equal for leaves that may be joined."""
    varying = _varying(leaf)
    if not varying:
        return leaf
    fields = {f.name: getattr(leaf, f.name) for f in dataclasses.fields(leaf)}
    kinds = jax.tree.structure([fields.pop(name) for name in varying])
    return type(leaf), tuple(fields.items()), kinds


def _cost(leaf: Leaf) -> float:
    return leaf.cost if _varying(leaf) and isinstance(leaf, JoinableLeaf) else 1.0


def _by_cost(costs: Sequence[float]) -> list[list[int]]:
    """Positions of costs, greatest first, split where padding would be too much."""
    parts: list[list[int]] = []
    greatest = total = 0.0
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        padded = greatest * (len(parts[-1]) + 1) if parts else 0.0
        if not parts or padded > _MOST_PADDING * (total + costs[i]):
            parts.append([])
            greatest, total = costs[i], 0.0
        parts[-1].append(i)
        total += costs[i]
    return parts
