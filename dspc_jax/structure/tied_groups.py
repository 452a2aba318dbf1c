"""Tied parameters: which leaves share theirs, and which sums do.

Leaves are tied by the group of their variable. Sums are tied by labels: partitions of
one label, with weights of one shape, share a row of a table, at whatever level.
"""

from collections.abc import Hashable, Sequence
import dataclasses
from typing import Any

import numpy as np

from dspc_jax.arguments import shown, whole_numbers
from dspc_jax.structure.folding import FoldedGraph
from dspc_jax.structure.pieces import ROW_TYPE
from dspc_jax.structure.region_graph import Partition, RegionGraph

_Shape = tuple[int, ...]
Groups = str | tuple[int, ...]
"""A rule by its name, or a group for each variable or region, by number."""


def checked_groups(name: str, value: Any, rules: tuple[str, ...]) -> Groups:
    """A rule, or group numbers as a tuple.

    Args:
        name: of the argument, for messages.
        value: what a user gave.
        rules: the names that it may be.

    Returns:
        The value.

    Raises:
        ValueError: an unknown rule, or no whole numbers.
    """
    if isinstance(value, str):
        if value not in rules:
            raise ValueError(
                f"{name} must be one of {rules} or group numbers, got {shown(value)}"
            )
        return value
    return whole_numbers(name, value)


def check_count(name: str, groups: Groups, count: int) -> None:
    """Raises ValueError where there are not so many group numbers."""
    if not isinstance(groups, str) and len(groups) != count:
        raise ValueError(f"{name} must have {count} group numbers, got {len(groups)}")


def leaf_groups(tie: Groups, leaves: Sequence[Hashable]) -> np.ndarray | None:
    """The group of every variable, whose leaves share their parameters.

    Args:
        tie: ``"none"``, ``"all"`` (variables of equal leaves), or groups.
        leaves: of every variable.

    Returns:
        ``[V]``; None where nothing is tied.

    Raises:
        ValueError: variables of one group have different leaves.
    """
    if tie == "none":
        return None
    numbers: dict[Hashable, int] = {}
    if tie == "all":
        return np.array([numbers.setdefault(leaf, len(numbers)) for leaf in leaves])
    first: dict[Any, int] = {}
    for variable, (group, leaf) in enumerate(zip(tie, leaves, strict=True)):
        other = first.setdefault(group, variable)
        if leaves[other] != leaf:
            raise ValueError(
                f"tie_leaves must group variables of equal leaves, got {leaves[other]} "
                f"of variable {other} and {leaf} of variable {variable} in group "
                f"{group}"
            )
    return np.array(tie)


@dataclasses.dataclass(frozen=True, eq=False)
class TiedSums:
    """Where the weights of all sums are, in tables whose rows are shared.

    Attributes:
        tables: the shapes of the tables, ``(T, O, *tail)``.
        rows: per level, per fold, the number of its table and ``[P]`` rows of it.
        mixture_rows: per level, ``[G]`` rows of its mixtures' parameters; None where
            nothing is mixed.
        mixtures: per level, ``[T, M]`` partitions of one region of each row (-1: none).
    """

    tables: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[tuple[int, np.ndarray], ...], ...]
    mixture_rows: tuple[np.ndarray | None, ...]
    mixtures: tuple[np.ndarray | None, ...]


def tie_sums(
    tie: Groups,
    folded: FoldedGraph,
    num_regions: int,
    shapes: Sequence[Sequence[tuple[int, ...]]],
) -> TiedSums:
    """Shares the rows of sums.

    Args:
        tie: ``"levels"``: regions that are one another moved: of one height, shape and
            cut, in products of one shape and cut. Or a group for each region of the
            structure. What a sum layer adds to it is tied where it joins regions of the
            same groups in products of the same groups.
        folded: the folded graph.
        num_regions: of the structure, without those that a sum layer added.
        shapes: per level, per fold, the shape of one partition's weights.

    Returns:
        The rows.

    Raises:
        ValueError: there is not a group for each region, or regions of one group differ
            in the number of their partitions, in the shape of their weights, or in what
            they mix.
    """
    check_count("tie_sums", tie, num_regions)
    graph, _, partitions = folded.places
    moved = tie == "levels"
    labels = _moved(graph) if moved else _grouped(graph, tie, num_regions)
    rank = {n: i for owned in graph.partitions_of for i, n in enumerate(owned)}
    tables: dict[_Shape, dict[Hashable, int]] = {}
    rows: dict[tuple[int, int, int], tuple[_Shape, int]] = {}
    shape_of: dict[Hashable, _Shape] = {}
    for number, (place, p) in enumerate(zip(partitions, graph.partitions, strict=True)):
        shape = shapes[place[0] - 1][place[1]]
        label = (labels[p.region], _cut(graph, p) if moved else rank[number])
        if not moved and shape_of.setdefault(label, shape) != shape:
            raise ValueError(
                "tie_sums must group regions whose sums have weights of one shape, got "
                f"{shape_of[label]} and {shape} in the group of region {p.region}"
            )
        own = tables.setdefault(shape, {})
        rows[place] = (shape, own.setdefault(label, len(own)))
    number_of = {shape: n for n, shape in enumerate(tables)}

    def fold_rows(level, fold, size):
        places = [rows[level, fold, row] for row in range(size)]
        return number_of[places[0][0]], np.array([row for _, row in places], ROW_TYPE)

    mixtures = _mixtures(folded, labels, rows, moved)
    return TiedSums(
        tuple((len(own), *shape) for shape, own in tables.items()),
        tuple(
            tuple(fold_rows(n, f, fold.size) for f, fold in enumerate(level.folds))
            for n, level in enumerate(folded.levels, start=1)
        ),
        tuple(own for own, _ in mixtures),
        tuple(mixture for _, mixture in mixtures),
    )


def _mixtures(folded, labels, rows, moved):
    """Per level, `TiedSums.mixture_rows` and its mixture; None twice without one."""
    regions: dict[tuple[int, int], int] = {
        place: region for region, place in enumerate(folded.places.regions)
    }
    owners: dict[Hashable, Hashable] = {}
    out: list[tuple[np.ndarray | None, np.ndarray | None]] = []
    for n, level in enumerate(folded.levels, start=1):
        if level.mixture is None:
            out.append((None, None))
            continue
        flat = [
            rows[n, f, row]
            for f, fold in enumerate(level.folds)
            for row in range(fold.size)
        ]
        keys = []
        for row, mixed in enumerate(level.mixture):
            label = labels[regions[n, row]]
            keys.append((label, tuple(flat[p] if p >= 0 else None for p in mixed)))
            if not moved and owners.setdefault(label, (n, keys[-1])) != (n, keys[-1]):
                raise ValueError(
                    "tie_sums must group regions of several partitions that are at one "
                    f"level and have equal children in one order, got group {label}"
                )
        first, inverse = _numbered(keys)
        out.append((inverse, level.mixture[first]))
    return out


def _moved(graph: RegionGraph) -> list[Hashable]:
    """Equal for regions that are one another moved, in products that are, too."""
    above: list[set[Hashable]] = [set() for _ in graph.scopes]
    for p in graph.partitions:
        for child in p.children:
            above[child].add(_cut(graph, p))
    return [
        (graph.heights[r], _offsets(scope, scope), frozenset(above[r]))
        for r, scope in enumerate(graph.scopes)
    ]


def _cut(graph: RegionGraph, partition: Partition) -> Hashable:
    """How a region is cut, wherever it is."""
    whole = graph.scopes[partition.region]
    scopes = (graph.scopes[child] for child in partition.children)
    return tuple(_offsets(scope, whole) for scope in scopes)


def _offsets(scope: tuple[int, ...], whole: tuple[int, ...]) -> Hashable:
    return (np.array(scope) - whole[0]).tobytes()


def _grouped(graph: RegionGraph, tie: Groups, num_regions: int) -> list[Hashable]:
    """The given groups; of added regions, what they join and enter."""
    assert not isinstance(tie, str)
    first: dict[int, int] = {}
    for region, group in enumerate(tie):
        other = first.setdefault(group, region)
        counts = [len(graph.partitions_of[r]) for r in (other, region)]
        if counts[0] != counts[1]:
            raise ValueError(
                "tie_sums must group regions of equally many partitions, got "
                f"{counts[0]} of region {other} and {counts[1]} of region {region} in "
                f"group {group}"
            )
    labels: list[Hashable] = [*tie, *[None] * (len(graph.scopes) - num_regions)]
    above: dict[int, set[int]] = {r: set() for r in range(num_regions, len(labels))}
    for p in graph.partitions:
        for child in p.children:
            if child >= num_regions and p.region < num_regions:
                above[child].add(tie[p.region])
    for region in sorted(above, key=graph.heights.__getitem__):
        below = tuple(
            tuple(labels[child] for child in graph.partitions[n].children)
            for n in graph.partitions_of[region]
        )
        labels[region] = ("added", below, frozenset(above[region]))
    return labels


def _numbered(keys: Sequence[Hashable]) -> tuple[list[int], np.ndarray]:
    """The first place of each distinct key, and the number of every key."""
    first: dict[Hashable, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    numbers = {key: n for n, key in enumerate(first)}
    return list(first.values()), np.array([numbers[key] for key in keys], ROW_TYPE)
