"""Folding: a region graph becomes a few levels of same-shaped stacked arrays.

All partitions of one level whose children have the same kind are one `FoldedPartitions`
(one batched product, whatever the graph); the regions of a level are one array
``[G, K, N]``. Index arrays hold the places of the children. The order of regions is
chosen so that in trees every index array is a run of neighbors, hence a slice, not a
gather.

Many heights of a deep tree, such as a chain, are one level that is computed in `Steps`:
one compiled body for all of them.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from dspc_jax.structure.pieces import ABSENT, ROW_TYPE, Piece, in_pieces
from dspc_jax.structure.region_graph import Partition, RegionGraph
from dspc_jax.structure.steps import (
    Steps,
    children_in_order,
    has_inputs_alone,
    make_steps,
    runs_of_heights,
    sides,
)


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedPartitions:
    """Partitions of one level with children of one kind.

    Where products are unit by unit they may have different numbers of children: those
    that are `ABSENT` are factors of 1.

    Attributes:
        size: P, the number of partitions.
        from_inputs: whether the children are input regions; or else inner regions,
            perhaps with input regions among them, which have as many units.
        children: per side, the pieces that concatenate to the P children.
        slots: ``[P]`` noise slots; partitions that share one can never be taken
            together, see `_numbers_of_slots`.
        members: ``[S, A]`` partitions of every slot, -1 where it has fewer than A.
        steps: how the partitions follow one another, if some of the children are
            regions of the same level; it has no other fold then.
    """

    size: int
    from_inputs: bool
    children: tuple[tuple[Piece, ...], ...]
    slots: np.ndarray
    members: np.ndarray
    steps: Steps | None

    @property
    def num_slots(self) -> int:
        """S."""
        return len(self.members)


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """All inner regions of one height, or of several in `Steps`.

    Attributes:
        folds: the level's partitions, by kind; concatenated they are numbered
            ``0..P-1``.
        mixture: ``[G, M]`` partitions of each region, -1 where a region has fewer than
            M; None where each region has exactly one partition (then region g is
            partition g).
        num_regions: G.
        slots: ``[G]`` noise slot of each region's mixture.
    """

    folds: tuple[FoldedPartitions, ...]
    mixture: np.ndarray | None
    num_regions: int
    slots: np.ndarray


class Places(NamedTuple):
    """Where the regions and partitions of a graph went.

    Attributes:
        graph: the graph that was folded.
        regions: per region, its level (0: inputs) and row.
        partitions: per partition, its level, fold and row in the fold.
    """

    graph: RegionGraph
    regions: tuple[tuple[int, int], ...]
    partitions: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedGraph:
    """The levels of a circuit, input regions first, the root alone in the last.

    Attributes:
        num_variables: V.
        input_scopes: ``[G, L]`` variables of every input region, padded with -1.
        levels: the inner levels, from below; region arrays are numbered 0 (inputs),
            1...
        parents: per level (inputs first, root excluded), ``[G, A]`` rows of each region
            in the list of all child references to that level (from the last level down,
            fold by fold, side by side; those within a level last), -1 where a region
            has fewer than A parents.
        alternatives: R if the graph is R trees of one shape mixed at the root (1 for a
            tree) and partition p of a level is position ``p // R`` of tree ``p % R``;
            None for every other graph.
        places: where the graph's regions and partitions went.
    """

    num_variables: int
    input_scopes: np.ndarray
    levels: tuple[Level, ...]
    parents: tuple[np.ndarray, ...]
    alternatives: int | None
    places: Places


def fold(
    graph: RegionGraph, *, in_steps: bool = True, ragged: bool = False
) -> FoldedGraph:
    """Folds a region graph; pure bookkeeping, done once per circuit.

    Args:
        graph: any; see `dspc_jax.circuit.product_graph` for what a sum layer needs.
        in_steps: whether a level may have `Steps`.
        ragged: whether partitions of one fold may have different numbers of children,
            as products unit by unit may.

    Returns:
        The levels.
    """
    top = graph.heights[graph.root]
    order: list[list[int]] = [[] for _ in range(top + 1)]  # regions per level
    order[top] = [graph.root]
    requests: list[list[int]] = [
        [] for _ in range(top + 1)
    ]  # child references per level
    groups: list[list[list[Partition]]] = [[] for _ in range(top + 1)]
    for height in range(top, 0, -1):
        order[height] = order[height] or list(dict.fromkeys(requests[height]))
        groups[height] = _group(graph, order[height], ragged)
        owners = [p.region for partitions in groups[height] for p in partitions]
        if len(set(owners)) == len(owners):  # no mixture: regions follow partitions
            order[height] = owners
        for partitions in groups[height]:
            for _, equal in itertools.groupby(partitions, _num_children):
                for child in children_in_order(list(equal)):
                    requests[graph.heights[child]].append(child)
    order[0] = list(dict.fromkeys(requests[0]))
    runs = [[height] for height in range(top + 1)]
    if in_steps:
        runs = runs_of_heights(graph, groups, ragged)
    regions = [[r for height in run for r in order[height]] for run in runs]
    partitions = [_joined([groups[height] for height in run]) for run in runs]
    rows = {
        r: (n, row) for n, level in enumerate(regions) for row, r in enumerate(level)
    }
    slot_of = _slots(graph, regions, partitions)
    levels = tuple(
        _fold_level(graph, rows, slot_of, regions[n], partitions[n], n, len(runs[n]))
        for n in range(1, len(runs))
    )
    references = _references(rows, partitions)
    parents = [_positions(references[n], regions[n]) for n in range(len(levels))]
    return FoldedGraph(
        num_variables=graph.num_variables,
        input_scopes=_padded([graph.scopes[r] for r in regions[0]]),
        levels=levels,
        parents=tuple(map(_padded, parents)),
        alternatives=_alternatives(graph, levels),
        places=Places(
            graph,
            tuple(rows[region] for region in range(len(graph.scopes))),
            _partition_rows(graph, partitions),
        ),
    )


def _joined(groups: list[list[list[Partition]]]) -> list[list[Partition]]:
    """The folds of one height, or the one fold of several, from below."""
    if len(groups) == 1:
        return groups[0]
    return [[p for (group,) in groups for p in group]]


def _references(rows, partitions) -> list[list[int]]:
    """The lists of child references that `FoldedGraph.parents` speaks of."""
    references: list[list[int]] = [[] for _ in partitions]
    for number in reversed(range(len(partitions))):
        own = []
        for fold_ in partitions[number]:
            for child in children_in_order(fold_):
                level = rows[child][0]
                (own if level == number else references[level]).append(child)
        references[number] += own
    return references


def _partition_rows(graph, groups) -> tuple[tuple[int, int, int], ...]:
    """Computes `Places.partitions`; of equal partitions, the first comes first."""
    rows: dict[Partition, list[tuple[int, int, int]]] = {}
    for level, folds in enumerate(groups):
        for number, partitions in enumerate(folds):
            for row, partition in enumerate(partitions):
                rows.setdefault(partition, []).append((level, number, row))
    return tuple(rows[partition].pop(0) for partition in graph.partitions)


def _num_children(partition: Partition) -> int:
    return len(partition.children)


def _group(
    graph: RegionGraph, regions: list[int], ragged: bool
) -> list[list[Partition]]:
    """The partitions of a level's regions by number and kind of their children.

    Ragged ones of one kind are joined, in the same order.
    """
    groups: dict[tuple[int, bool], list[Partition]] = {}
    for region in regions:
        for number in graph.partitions_of[region]:
            p = graph.partitions[number]
            key = (_num_children(p), has_inputs_alone(graph, p))
            groups.setdefault(key, []).append(p)
    folds = [
        sorted(group, key=lambda p: tuple(graph.heights[c] for c in p.children))
        for _, group in sorted(groups.items())
    ]
    if ragged and len({from_inputs for _, from_inputs in groups}) == 1:
        return [list(itertools.chain(*folds))]
    return folds


def _fold_level(graph, rows, slot_of, regions, groups, number, num_steps) -> Level:
    def slots_of(regions: list[int]) -> np.ndarray:
        paths = [slot_of[region] for region in regions]
        # Of several heights, one region may lie in another.
        scopes = [graph.scopes[region] for region in regions] if num_steps == 1 else []
        return _numbers_of_slots(paths, scopes)

    folds = []
    for partitions in groups:
        slots = slots_of([p.region for p in partitions])
        members = _positions(slots.tolist(), list(range(slots.max() + 1)))
        folds.append(
            FoldedPartitions(
                size=len(partitions),
                from_inputs=has_inputs_alone(graph, partitions[0]),
                children=tuple(
                    in_pieces(
                        [
                            (ABSENT, n) if child is None else rows[child]
                            for n, child in enumerate(side)
                        ]
                    )
                    for side in sides(partitions)
                ),
                slots=slots,
                members=_padded(members),
                steps=make_steps(graph, rows, partitions, number)
                if num_steps > 1
                else None,
            )
        )
    flat = [p.region for partitions in groups for p in partitions]
    mixture = _padded(_positions(flat, regions)) if flat != regions else None
    return Level(tuple(folds), mixture, len(regions), slots_of(regions))


def _slots(graph, order, groups) -> dict[int, tuple]:
    """Per region, the path of sides that leads to it from the last shared region.

    Regions with equal paths lie under different alternatives of a mixture, so at most
    one of them is sampled.
    """
    parents: dict[int, list[tuple[Partition, int]]] = {}
    for partitions in (p for level in groups for p in level):
        for p in partitions:
            for side, child in enumerate(p.children):
                parents.setdefault(child, []).append((p, side))
    paths: dict[int, tuple] = {graph.root: ()}
    for regions in reversed(order):
        for region in reversed(regions):  # parents first
            if region in paths:
                continue
            above = parents[region]
            if len(above) == 1:
                p, side = above[0]
                paths[region] = (*paths[p.region], (len(p.children), side))
            else:
                paths[region] = ("shared", region)
    return paths


def _numbers_of_slots(paths: list[tuple], scopes: list[tuple[int, ...]]) -> np.ndarray:
    """Numbers the slots of regions of which no two of one slot are sampled together.

    Args:
        paths: of the regions, see `_slots`; those of one path share a slot.
        scopes: of the same regions, none in another, or nothing. Paths whose regions
            all have a variable in common share a slot: one region is sampled for it.
    """
    numbers, _ = _numbered(paths)
    common: dict[int, set[int]] = {}
    for number, scope in zip(numbers.tolist(), scopes, strict=bool(scopes)):
        common[number] = common.get(number, set(scope)) & set(scope)
    slot_of_variable: dict[int, int] = {}
    joined: dict[int, int] = {}
    for number, variables in common.items():
        slots = [slot_of_variable[v] for v in variables if v in slot_of_variable]
        joined[number] = slot = min(slots, default=number)
        if slots:
            variables = {v for v in variables if slot_of_variable.get(v) == slot}
            for v in common[slot] - variables:
                slot_of_variable.pop(v, None)
            common[slot] = variables
        else:
            slot_of_variable |= dict.fromkeys(variables, slot)
    return _numbered([joined.get(number, number) for number in numbers.tolist()])[0]


def _alternatives(graph: RegionGraph, levels: tuple[Level, ...]) -> int | None:
    """Computes `FoldedGraph.alternatives`."""
    count = len(graph.partitions_of[graph.root])
    for number, level in enumerate(levels):
        is_root = number == len(levels) - 1
        if not is_root and level.mixture is not None:
            return None
        if len(level.folds) > 1 and count > 1:
            return None
        for fold_ in level.folds:
            if (fold_.slots != np.arange(fold_.size) // count).any():
                return None
    children = [child for p in graph.partitions for child in p.children]
    return count if len(children) == len(set(children)) else None


def _positions(items: list[int], queries: list[int]) -> list[list[int]]:
    """For each of ``queries``, its positions in ``items``."""
    positions: dict[int, list[int]] = {item: [] for item in queries}
    for row, item in enumerate(items):
        positions[item].append(row)
    return [positions[item] for item in queries]


def _numbered(keys: list) -> tuple[np.ndarray, int]:
    """Keys by order of first appearance: ``[a, b, a] -> [0, 1, 0], 2``."""
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], ROW_TYPE), len(numbers)


def _padded(rows) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], ROW_TYPE)
