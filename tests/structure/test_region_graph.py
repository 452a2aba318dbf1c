"""Region graphs, their families, and folding."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure import region_graph as rg
from dspc_jax.structure.folding import fold
from tests import cases, oracles, strategies

P = pc.Partition
STRUCTURES = {
    **{
        f"trees-{v}-{d}-{r}": pc.RandomBinaryTrees(v, d, r, seed=v)
        for v, d, r in [
            (1, 0, 1),
            (3, 0, 2),
            (5, 1, 3),
            (7, 2, 2),
            (13, 3, 4),
            (16, 4, 1),
        ]
    },
    **{
        f"quad-{h}x{w}-{s}": pc.QuadTree(h, w, s)
        for h, w, s in [
            (1, 1, 1),
            (1, 7, 1),
            (5, 3, 1),
            (4, 4, 1),
            (7, 6, 2),
            (3, 3, 3),
        ]
    },
    "quad-graph-4x3": pc.QuadGraph(4, 3),
    "poon-domingos-2x3": pc.PoonDomingos(2, 3, 1),
    "shared": cases.SHARED,
    "nested": cases.NESTED,
}
each = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


@settings(max_examples=80, derandomize=True, deadline=None, database=None)
@given(st.integers(2, 6).flatmap(lambda v: strategies.region_graphs(v, 12)))
def test_random_graphs_are_folded_alike(graph):
    check_folding(graph)
    check_noise(graph)


@each
def test_graphs_are_smooth_and_decomposable(structure):
    graph = structure.region_graph()
    assert rg.is_smooth(graph)
    assert rg.is_decomposable(graph)
    assert graph.scopes[graph.root] == tuple(range(graph.num_variables))
    assert all(graph.scopes)  # nothing is empty
    inputs = [r for r in range(len(graph.scopes)) if not graph.partitions_of[r]]
    assert set().union(*(graph.scopes[r] for r in inputs)) == set(
        range(graph.num_variables)
    )
    assert graph == structure.region_graph()
    assert hash(graph) == hash(structure.region_graph())


@each
def test_folding_keeps_every_region_and_partition(structure):
    check_folding(structure.region_graph())


def check_folding(graph):
    folded = fold(graph)
    places = oracles.locate(graph, folded)  # one to one, or it raises
    assert len(set(places.partitions.values())) == len(graph.partitions)
    for region, (level, row) in places.regions.items():
        if level == 0:
            scope = [v for v in folded.input_scopes[row] if v >= 0]
            assert tuple(scope) == graph.scopes[region]
    rows = sum(f.size for level in folded.levels for f in level.folds)
    assert rows == len(graph.partitions) + len(places.lifted)
    assert folded.levels[-1].num_regions == 1
    # Every reference to a child finds its way back to that child.
    for level in range(len(folded.levels)):
        parents = folded.parents[level]
        referred = sorted(parents[parents >= 0])
        assert referred == list(range(len(referred)))


@each
def test_noise_is_shared_only_where_one_is_taken(structure):
    check_noise(structure.region_graph())


def check_noise(graph):
    """Two partitions with one slot never stand in the same tree of choices."""
    folded = fold(graph)
    place = oracles.locate(graph, folded).partitions
    slot = {}
    for number, ((level, f, row), _) in place.items():
        slot[number] = (level, f, int(folded.levels[level - 1].folds[f].slots[row]))

    def taken(region):
        """All sets of partitions that one sample takes below a region."""
        if not graph.partitions_of[region]:
            return [frozenset()]
        out = []
        for number in graph.partitions_of[region]:
            below = [taken(c) for c in graph.partitions[number].children]
            for choice in itertools.product(*below):
                out.append(frozenset({number}).union(*choice))
        return out

    for choice in taken(graph.root):
        used = [slot[number] for number in choice]
        assert len(set(used)) == len(used)


def test_trees_share_noise_between_repetitions():
    folded = fold(pc.RandomBinaryTrees(16, 3, 5).region_graph())
    assert folded.alternatives == 5
    assert [f.num_slots for level in folded.levels for f in level.folds] == [4, 2, 1]
    assert [f.size for level in folded.levels for f in level.folds] == [20, 10, 5]
    assert fold(cases.NESTED).alternatives is None
    assert fold(cases.SHARED).alternatives is None
    assert fold(pc.QuadTree(3, 5).region_graph()).alternatives == 1


def test_trees_of_different_shapes_are_no_alternatives():
    """Two trees at one root, one deeper than the other: the general route."""
    graph = pc.RegionGraph(
        3,
        ((0, 1, 2), (0, 1), (2,), (0,), (1,), (0,), (1, 2)),
        (P(0, (1, 2)), P(1, (3, 4)), P(0, (5, 6))),
    )
    assert fold(graph).alternatives is None


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("num_variables", [8, 11, 13])
def test_random_trees_are_balanced(num_variables, depth):
    graph = pc.RandomBinaryTrees(num_variables, depth, 3, seed=1).region_graph()
    inputs = [r for r in range(len(graph.scopes)) if not graph.partitions_of[r]]
    assert len(inputs) == 3 * 2**depth
    sizes = [len(graph.scopes[r]) for r in inputs]
    assert max(sizes) - min(sizes) <= 1
    assert len(graph.partitions_of[graph.root]) == 3


def test_random_trees_are_random_but_repeatable():
    make = pc.RandomBinaryTrees
    assert make(9, 2, 2, seed=1).region_graph() == make(9, 2, 2, seed=1).region_graph()
    assert make(9, 2, 2, seed=1).region_graph() != make(9, 2, 2, seed=2).region_graph()
    graph = make(64, 1, 2, seed=0).region_graph()
    scopes = {s for s in graph.scopes if len(s) == 32}
    assert len(scopes) == 4  # two repetitions do not split alike


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 6), (7, 7)])
def test_quad_trees_join_neighbours(height, width):
    """Every region is a rectangle; halves differ by at most one row or column."""
    graph = pc.QuadTree(height, width).region_graph()
    for scope in graph.scopes:
        rows, columns = np.divmod(np.array(scope), width)
        assert (
            len(scope)
            == np.ptp(rows) * np.ptp(columns) + np.ptp(rows) + np.ptp(columns) + 1
        )
        sides = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(sides) <= 2 * min(sides) + 1 or 1 in (height, width)
    inputs = [s for r, s in enumerate(graph.scopes) if not graph.partitions_of[r]]
    assert sorted(inputs) == [(v,) for v in range(height * width)]


def test_quad_trees_stop_at_the_leaf_size():
    graph = pc.QuadTree(6, 6, leaf_size=3).region_graph()
    inputs = [s for r, s in enumerate(graph.scopes) if not graph.partitions_of[r]]
    assert sorted(map(len, inputs)) == [9, 9, 9, 9]


def test_structured_decomposability():
    assert rg.is_structured_decomposable(pc.QuadTree(4, 4).region_graph())
    assert rg.is_structured_decomposable(pc.RandomBinaryTrees(8, 2, 1).region_graph())
    assert not rg.is_structured_decomposable(cases.SHARED)


def test_heights():
    assert cases.NESTED.heights[:6] == (3, 2, 2, 1, 1, 1)
    assert set(cases.NESTED.heights[6:]) == {0}
    assert cases.NESTED.root == 0


BAD_GRAPHS = {
    "overlap": (
        (2, ((0, 1), (0, 1), (1,)), (P(0, (1, 2)),)),
        "must have disjoint children, got",
    ),
    "gap": ((3, ((0, 1, 2), (0,), (1,)), (P(0, (1, 2)),)), "cover exactly"),
    "empty": ((1, ((0,), ()), (P(0, (1,)),)), r"scopes\[1\] must not be empty"),
    "order": ((2, ((1, 0),), ()), r"scopes\[0\] .*ascending order, got \(1, 0\)"),
    "range": ((2, ((0, 2),), ()), r"variables 0..1 .*got \(0, 2\)"),
    "cycle": (
        (1, ((0,), (0,), (0,)), (P(0, (1,)), P(1, (2,)), P(2, (1,)))),
        "must not form a cycle, got region 1",
    ),
    "roots": (
        (1, ((0,), (0,), (0,)), (P(0, (2,)),)),
        r"one root, got regions \[0, 1\]",
    ),
    "small root": (
        (2, ((0,), (0,)), (P(0, (1,)),)),
        "hold all 2 variables, got 1",
    ),
    "fraction": (
        (1, ((0,), (0.5,)), ()),
        r"must be a whole number, got 0.5",
    ),
    "number": ((1, 3, ()), "scopes must be a sequence, got 3"),
    "size": (("2", (), ()), r"num_variables must be a whole number, got '2'"),
    "pair": ((1, ((0,), (0,)), ((0, (1,)),)), r"must be Partitions, got \(0, \(1,\)\)"),
    "larger gap": (
        (4, ((0, 1, 2, 3), (0,), (1,), (2,)), (P(0, (1, 2, 3)),)),
        "cover exactly",
    ),
    "childless": ((1, ((0,),), (P(0, ()),)), r"children, got .*\(\)"),
    "unknown": ((1, ((0,),), (P(0, (5,)),)), r"regions 0..0, got .*\(5,\)"),
    "nothing": ((0, (), ()), "num_variables must be at least 1, got 0"),
    "leaf alone": ((1, ((0,),), ()), "root"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_impossible_graphs(name):
    arguments, message = BAD_GRAPHS[name]
    with pytest.raises(ValueError, match=message):
        pc.RegionGraph(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.RandomBinaryTrees(4, 3), r"depth must .*num_variables=4.*got 3"),
        (lambda: pc.RandomBinaryTrees(4, -1), "depth must be at least 0, got -1"),
        (
            lambda: pc.RandomBinaryTrees(0, 0),
            "num_variables must be at least 1, got 0",
        ),
        (lambda: pc.RandomBinaryTrees(4, 1, 0), "num_repetitions .*got 0"),
        (lambda: pc.QuadTree(0, 3), "height must be at least 1, got 0"),
        (lambda: pc.QuadTree(3, -2), "width must be at least 1, got -2"),
        (lambda: pc.QuadTree(3, 3, 0), "leaf_size must be at least 1, got 0"),
    ],
)
def test_impossible_structures(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lists_and_arrays_are_tuples():
    graph = pc.RegionGraph(
        np.int64(2),
        [np.arange(2), [np.int32(0)], (1,)],
        np.array([P(0, [1, 2])], object),
    )
    again = pc.RegionGraph(2, ((0, 1), (0,), (1,)), (P(0, (1, 2)),))
    assert graph == again
    assert hash(graph) == hash(again)
    for value in (graph.num_variables, graph.scopes[1][0], graph.partitions[0].region):
        assert type(value) is int


def test_structures_do_not_touch_jax():
    """Plain data: building one needs no device."""
    with jax.transfer_guard("disallow"):
        fold(pc.QuadTree(3, 4).region_graph())


def test_shared_regions_have_as_many_slots_as_one_sample_takes():
    """Of an even quad graph: at each level half of the regions, or fewer."""
    folded = fold(pc.QuadGraph(4, 4).region_graph())
    sizes = [sum(f.size for f in level.folds) for level in folded.levels]
    slots = [sum(f.num_slots for f in level.folds) for level in folded.levels]
    assert sizes == [16, 8, 4, 2]
    assert slots == [8, 4, 2, 1]
