"""Random circuits for hypothesis, on any smooth and decomposable region graph."""

from hypothesis import strategies as st

import dspc_jax as pc
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder

MAX_VALUES = 256  # of all variables together: what is enumerated
LEAVES = (pc.Bernoulli(), pc.Binomial(2), pc.Categorical(3), pc.DiscretizedLogistic(4))


@st.composite
def region_graphs(
    draw: st.DrawFn, num_variables: int, max_partitions: int
) -> RegionGraph:
    """Any smooth and decomposable graph of some variables and partitions.

    A region owns none (it is an input region), one, or several of them. A child is a
    region that is there already, if one has its scope, or a new one.
    """
    graph = RegionGraphBuilder(num_variables)
    region = 0
    while region < len(graph.scopes):
        if region == 0:
            counts = [2, 1, 3]
        elif len(graph.scopes[region]) == 1:
            counts = [0, 0, 0, 1]
        else:
            counts = [1, 0, 2, 2]
        left = max_partitions - len(graph.partitions)
        for _ in range(min(draw(st.sampled_from(counts)), left)):
            graph.add_partition(region, *draw(_children(graph, region)))
        region += 1
    return graph.build()


@st.composite
def _children(draw: st.DrawFn, graph: RegionGraphBuilder, region: int) -> list[int]:
    """Two or three children of a region, or a single one of the same scope."""
    scope = graph.scopes[region]
    if len(scope) == 1 or draw(st.sampled_from([False] * 5 + [True])):
        parts = [scope]
    else:
        count = draw(st.sampled_from([2, 3] if len(scope) > 2 else [2]))
        first = draw(st.permutations(range(count)))  # no side is empty
        rest = [draw(st.sampled_from(range(count))) for _ in scope[count:]]
        sides = [*first, *rest]
        parts = [
            tuple(v for v, at in zip(scope, sides, strict=True) if at == side)
            for side in range(count)
        ]
    children = []
    for part in parts:
        known = [
            other
            for other, scope in enumerate(graph.scopes)
            if scope == part and region not in _reached(graph, other)
        ]
        child = draw(st.sampled_from([*known, None]))
        children.append(graph.add_region(part) if child is None else child)
    return children


def _reached(graph: RegionGraphBuilder, start: int) -> set[int]:
    """A region and all that stand below it: its parent must not be one of them."""
    reached = {start}
    for partition in graph.partitions * len(graph.partitions):
        if partition.region in reached:
            reached.update(partition.children)
    return reached


@st.composite
def configs(draw: st.DrawFn, max_partitions: int) -> pc.CircuitConfig:
    """Circuits of 2 to 6 discrete variables, with up to `MAX_VALUES` values.

    A circuit is compiled anew for each graph; that time grows with its partitions.
    """
    num_channels = draw(st.sampled_from([1, 1, 2]))
    num_variables = draw(
        st.sampled_from([3, 4, 2, 5, 6] if num_channels == 1 else [3, 2])
    )
    leaves, left = [], MAX_VALUES
    for rest in range(num_variables - 1, -1, -1):
        # The others have two values at least.
        most = left // 2 ** (num_channels * rest)
        values = {leaf: int(leaf.support[1] + 1) ** num_channels for leaf in LEAVES}
        leaf = draw(st.sampled_from([leaf for leaf in LEAVES if values[leaf] <= most]))
        leaves.append(leaf)
        left //= values[leaf]
    sizes = [(2, 3), (2, 2), (3, 2), (1, 2), (2, 1)]
    num_leaves, num_sums = draw(st.sampled_from(sizes))
    return pc.CircuitConfig(
        structure=draw(region_graphs(num_variables, max_partitions)),
        leaf=tuple(leaves),
        num_channels=num_channels,
        num_leaves=num_leaves,
        num_sums=num_sums,
        num_classes=draw(st.sampled_from([2, 1, 3])),
        sum_layer=draw(st.sampled_from(["cp_t", "tucker"])),
    )
