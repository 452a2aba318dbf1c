"""Region graphs: the structure of a circuit as plain, hashable data (NumPy only).

A region is a set of variables (its scope); a partition splits a region into child
regions with disjoint scopes. Regions without partitions are input regions. Regions are
numbered; two regions may have the same scope (the repetitions of a random forest do).
"""

from collections.abc import Iterable
import dataclasses
import functools
import itertools
import reprlib
from typing import Any, Protocol, SupportsIndex

import numpy as np

from dspc_jax.arguments import (
    sequence,
    shown,
    store,
    whole_number,
    whole_numbers,
)

_Numbers = Iterable[SupportsIndex] | np.ndarray


@dataclasses.dataclass(frozen=True, init=False)
class Partition:
    """One way to split a region: ``region`` is the product of ``children``.

    Attributes:
        region: number of the region that is split.
        children: numbers of the child regions, in a tuple, list or array. A single
            child of the same scope is a plain sum layer over that child. With
            ``sum_layer="tucker"`` more than two become products of two when a circuit
            is built: halves of the list, halved again, each with a sum layer of its
            own.

    Raises:
        ValueError: a number is no whole number.
    """

    region: int
    children: tuple[int, ...]

    def __init__(self, region: SupportsIndex, children: _Numbers):
        store(
            self,
            region=whole_number("region", region),
            children=whole_numbers("children", children),
        )


@dataclasses.dataclass(frozen=True, init=False)
class RegionGraph:
    """Regions and partitions; immutable, hashable, checked on construction.

    Attributes:
        num_variables: V; the root's scope is ``range(V)``.
        scopes: per region, its variables in ascending order; tuples, lists or arrays.
        partitions: all partitions; a region may own several (they are mixed).

    Raises:
        ValueError: the graph is not smooth, not decomposable, has a cycle, an empty
            region, several roots, a partition without children, or numbers that are no
            whole numbers.
    """

    num_variables: int
    scopes: tuple[tuple[int, ...], ...]
    partitions: tuple[Partition, ...]

    def __init__(
        self,
        num_variables: SupportsIndex,
        scopes: Iterable[_Numbers] | np.ndarray,
        partitions: Iterable[Partition] | np.ndarray,
    ):
        rows = (
            whole_numbers(f"scopes[{region}]", scope)
            for region, scope in enumerate(sequence("scopes", scopes))
        )
        partitions = sequence("partitions", partitions)
        for partition in partitions:
            if not isinstance(partition, Partition):
                raise ValueError(
                    f"partitions must be Partitions, got {shown(partition)}"
                )
        store(
            self,
            num_variables=whole_number("num_variables", num_variables, least=1),
            scopes=tuple(rows),
            partitions=partitions,
        )
        _check(self)

    @property
    def root(self) -> int:
        """The one region that is nobody's child."""
        children = {child for p in self.partitions for child in p.children}
        return next(r for r in range(len(self.scopes)) if r not in children)

    @functools.cached_property
    def partitions_of(self) -> tuple[tuple[int, ...], ...]:
        """Per region, the numbers of its partitions, in order."""
        owned: list[list[int]] = [[] for _ in self.scopes]
        for number, partition in enumerate(self.partitions):
            owned[partition.region].append(number)
        return tuple(map(tuple, owned))

    @functools.cached_property
    def heights(self) -> tuple[int, ...]:
        """Per region, the longest way down to an input region (input regions: 0)."""
        heights: dict[int, int] = {}
        for region in _children_first(self):
            below = [
                1 + heights[child]
                for number in self.partitions_of[region]
                for child in self.partitions[number].children
            ]
            heights[region] = max(below, default=0)
        return tuple(heights[r] for r in range(len(self.scopes)))

    def region_graph(self) -> "RegionGraph":
        """Itself: a region graph may stand where a structure is asked for."""
        return self


class Structure(Protocol):
    """What gives a region graph: a hashable description, such as `RandomBinaryTrees`.

    A frozen dataclass of your own will do (`dspc_jax.register` lets it go into files).
    """

    @property
    def num_variables(self) -> int:
        """V."""
        ...

    def region_graph(self) -> RegionGraph:
        """The region graph, the same for equal descriptions."""
        ...


def is_smooth(graph: RegionGraph) -> bool:
    """Whether the children of every partition together cover the region's scope."""
    return all(_covers(graph, partition) for partition in graph.partitions)


def is_decomposable(graph: RegionGraph) -> bool:
    """Whether the children of every partition have disjoint scopes."""
    return all(_is_disjoint(graph, partition) for partition in graph.partitions)


def is_structured_decomposable(graph: RegionGraph) -> bool:
    """Whether equal scopes are always split alike, as products of two circuits need."""
    splits: dict[tuple[int, ...], set[frozenset[tuple[int, ...]]]] = {}
    for p in graph.partitions:
        if len(p.children) > 1:
            split = frozenset(graph.scopes[child] for child in p.children)
            splits.setdefault(graph.scopes[p.region], set()).add(split)
    return all(len(alternatives) == 1 for alternatives in splits.values())


def _covers(graph: RegionGraph, partition: Partition) -> bool:
    scopes = [graph.scopes[child] for child in partition.children]
    return set(graph.scopes[partition.region]) == set().union(*scopes)


def _is_disjoint(graph: RegionGraph, partition: Partition) -> bool:
    scopes = [graph.scopes[child] for child in partition.children]
    return len(set().union(*scopes)) == sum(map(len, scopes))


def _children_first(graph: RegionGraph) -> list[int]:
    """All regions, each after everything below it."""
    order: list[int] = []
    state = [0] * len(graph.scopes)  # 0 new, 1 open, 2 done
    for start in range(len(graph.scopes)):
        stack = [start]
        while stack:
            region = stack[-1]
            if state[region] == 0:
                state[region] = 1
                for number in graph.partitions_of[region]:
                    for child in graph.partitions[number].children:
                        if state[child] == 1:
                            raise ValueError(
                                "partitions must not form a cycle, got region "
                                f"{child} below itself"
                            )
                        if state[child] == 0:
                            stack.append(child)
            else:
                stack.pop()
                if state[region] == 1:
                    state[region] = 2
                    order.append(region)
    return order


def _check(graph: RegionGraph) -> None:
    count = len(graph.scopes)
    for region, scope in enumerate(graph.scopes):
        if not scope:
            raise ValueError(f"scopes[{region}] must not be empty, got ()")
        if list(scope) != sorted(set(scope)) or not (
            scope[0] >= 0 and scope[-1] < graph.num_variables
        ):
            raise ValueError(
                f"scopes[{region}] must list variables 0..{graph.num_variables - 1} "
                f"once each in ascending order, got {reprlib.repr(scope)}"
            )
    for p in graph.partitions:
        if not p.children:
            raise ValueError(f"partitions must have children, got {p}")
        if not all(0 <= region < count for region in (p.region, *p.children)):
            raise ValueError(f"partitions must name regions 0..{count - 1}, got {p}")
    # Equal splits are checked once: a file may name the same two large regions often.
    numbers = {scope: number for number, scope in enumerate(graph.scopes)}
    kinds = [numbers[scope] for scope in graph.scopes]
    splits = {
        tuple(kinds[r] for r in (p.region, *p.children)): p for p in graph.partitions
    }
    for p in splits.values():
        below = itertools.chain.from_iterable(graph.scopes[r] for r in p.children)
        if sorted(below) == list(graph.scopes[p.region]):
            continue
        if not _is_disjoint(graph, p):
            raise ValueError(f"partitions must have disjoint children, got {p}")
        if not _covers(graph, p):
            raise ValueError(
                "partitions must have children that cover exactly their region, "
                f"got {p}"
            )
    _children_first(graph)
    children = {child for p in graph.partitions for child in p.children}
    roots = [r for r in range(count) if r not in children]
    if len(roots) != 1:
        raise ValueError(f"scopes must have exactly one root, got regions {roots}")
    if not graph.partitions_of[roots[0]]:
        raise ValueError(
            f"partitions must hold one of the root (region {roots[0]}), got none; put "
            "a region of the same scope under it"
        )
    if len(graph.scopes[roots[0]]) != graph.num_variables:
        raise ValueError(
            f"scopes must let the root hold all {graph.num_variables} variables, "
            f"got {len(graph.scopes[roots[0]])}"
        )


class RegionGraphBuilder:
    """Collects regions and partitions, then freezes them into a `RegionGraph`.

    Four variables in two pairs, which are independent given a unit of the root:

        builder = RegionGraphBuilder(4)
        left, right = builder.add_region([0, 1]), builder.add_region([2, 3])
        builder.add_partition(0, left, right)
        graph = builder.build()

    Attributes:
        num_variables: V.
        scopes: of the regions so far; region 0 is the root.
        partitions: those so far.
    """

    def __init__(self, num_variables: int):
        """Starts with the root region (number 0) over all variables.

        Args:
            num_variables: V, at least 1 (checked by `build`).
        """
        self.num_variables = num_variables
        self.scopes = [tuple(range(num_variables))]
        self.partitions: list[Partition] = []

    def add_region(self, scope: Any) -> int:
        """Adds a region; one without partitions is an input region.

        Args:
            scope: its variables, in any order.

        Returns:
            Its number.
        """
        self.scopes.append(tuple(sorted(np.asarray(scope).ravel().tolist())))
        return len(self.scopes) - 1

    def add_partition(self, region: int, *children: int) -> None:
        """Lets a region be the product of others.

        Args:
            region: its number; a region with several partitions is their mixture.
            *children: numbers of regions that share its variables out among them.
        """
        self.partitions.append(Partition(region, children))

    def build(self) -> RegionGraph:
        """The finished graph.

        Raises:
            ValueError: see `RegionGraph`.
        """
        return RegionGraph(
            self.num_variables, tuple(self.scopes), tuple(self.partitions)
        )
