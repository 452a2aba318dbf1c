"""Deep trees: many heights that are computed by one compiled body, step by step."""

import dataclasses
import functools
import itertools

import numpy as np

from dspc_jax.structure.pieces import ROW_TYPE, Piece, in_pieces
from dspc_jax.structure.region_graph import Partition, RegionGraph

_LEAST_STEPS = 4
"""Fewest heights that become one level; fewer are as quick to compile one by one."""
_MOST_PADDING = 1.5
"""Most partitions, with those of padding, that steps have for each real one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """The heights of a level whose regions are children of one another.

    They are computed one after the other, each as if it had W partitions, from and into
    a buffer of rows: the level's P regions, W rows of slack, the children from other
    levels, and a row for every child of padding.

    Attributes:
        partitions: ``[T, W]`` partitions of each step, from below; any where padded.
        exists: ``[T, W]`` False where padded.
        children: per side, ``[T, W]`` rows of the buffer; those of children that are
            absent are of padding.
        outside: the pieces that concatenate to the children from other levels.
        num_outside: the number of these.
    """

    partitions: np.ndarray
    exists: np.ndarray
    children: tuple[np.ndarray, ...]
    outside: tuple[Piece, ...]
    num_outside: int

    @functools.cached_property
    def places(self) -> np.ndarray:
        """The places ``[P]`` of the partitions in `partitions`, row by row."""
        return np.flatnonzero(self.exists).astype(ROW_TYPE)


def runs_of_heights(
    graph: RegionGraph, groups: list[list[list[Partition]]], ragged: bool
) -> list[list[int]]:
    """The heights of each level, inputs first.

    Only those of trees are joined, where no region is mixed or has several parents:
    from the root down, as many as padding allows.
    """
    children = [child for p in graph.partitions for child in p.children]
    tree = len(set(children)) == len(children)
    tree = tree and len({p.region for p in graph.partitions}) == len(graph.partitions)

    def kind(height: int) -> int | None:
        """Of a height that steps can have; else None."""
        if not tree or height in (0, len(groups) - 1) or len(groups[height]) > 1:
            return None
        first = groups[height][0][0]
        if has_inputs_alone(graph, first):
            return None
        return 0 if ragged else len(first.children)

    runs: list[list[int]] = []
    height = len(groups) - 1
    while height >= 0:
        run, total = [height], sum(map(len, groups[height]))
        widest = total
        while kind(height) is not None and kind(run[0] - 1) == kind(height):
            size = len(groups[run[0] - 1][0])
            widest, total = max(widest, size), total + size
            if widest * (len(run) + 1) > _MOST_PADDING * total:
                break
            run.insert(0, run[0] - 1)
        if len(run) < _LEAST_STEPS:
            run = [height]
        runs.insert(0, run)
        height = run[0] - 1
    return runs


def make_steps(graph, rows, partitions: list[Partition], number: int) -> Steps:
    """The steps of a level's only fold."""
    heights = [graph.heights[p.region] for p in partitions]
    _, starts, sizes = np.unique(heights, return_index=True, return_counts=True)
    num_steps, width = len(starts), int(sizes.max())
    exists = np.arange(width) < sizes[:, None]
    children = children_in_order(partitions)
    outside = [child for child in children if rows[child][0] != number]
    first = len(partitions) + width
    place = {child: rows[child][1] for child in children}
    place |= {child: first + n for n, child in enumerate(outside)}
    first += len(outside)
    tables = []
    for n, side in enumerate(sides(partitions)):
        nobody = np.arange(first + n * width, first + (n + 1) * width, dtype=ROW_TYPE)
        table = np.tile(nobody, (num_steps, 1))
        table[exists] = [
            none if child is None else place[child]
            for child, none in zip(side, table[exists], strict=True)
        ]
        tables.append(table)
    numbers = np.minimum(starts[:, None] + np.arange(width), len(partitions) - 1)
    return Steps(
        partitions=numbers.astype(ROW_TYPE),
        exists=exists,
        children=tuple(tables),
        outside=in_pieces([rows[child] for child in outside]),
        num_outside=len(outside),
    )


def has_inputs_alone(graph: RegionGraph, partition: Partition) -> bool:
    """Whether all children are input regions."""
    return not any(graph.partitions_of[child] for child in partition.children)


def sides(partitions: list[Partition]) -> list[tuple[int | None, ...]]:
    """Per side, the children of all partitions; None of one that has fewer."""
    return list(itertools.zip_longest(*(p.children for p in partitions)))


def children_in_order(partitions: list[Partition]) -> list[int]:
    """The children of a fold, side by side."""
    return [child for side in sides(partitions) for child in side if child is not None]
