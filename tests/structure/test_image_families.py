"""Quad trees of four, quad graphs, and Poon-Domingos graphs."""

import collections

import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure import image_families
from dspc_jax.structure import region_graph as rg
from dspc_jax.structure.folding import fold
from dspc_jax.structure.pairs import in_pairs


def counts(structure) -> tuple[int, int]:
    """Regions and partitions, without the sums over inputs that meet inner regions."""
    graph = structure.region_graph()
    num_sums = len(lifted(graph))
    return len(graph.scopes) - num_sums, len(graph.partitions) - num_sums


def lifted(graph: pc.RegionGraph) -> list[int]:
    """The regions that are nothing but a sum over an input region."""
    owners = [p.region for p in graph.partitions if len(p.children) == 1]
    return [region for region in owners if region != graph.root]


def inputs(graph: pc.RegionGraph) -> list[tuple[int, ...]]:
    return sorted(
        scope
        for scope, owned in zip(graph.scopes, graph.partitions_of, strict=True)
        if not owned
    )


def assert_rectangles(graph: pc.RegionGraph, width: int) -> None:
    """One region for each rectangle, and nothing else."""
    assert len(set(graph.scopes)) == len(graph.scopes) - len(lifted(graph))
    for scope in graph.scopes:
        rows, columns = np.divmod(scope, width)
        assert len(scope) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_quad_trees_of_four_cut_both_sides_at_once(exponent):
    size = 2**exponent
    structure = pc.QuadTree(size, size, arity=4)
    inner = (4**exponent - 1) // 3
    assert counts(structure) == (inner + 4**exponent, inner)
    graph = structure.region_graph()
    assert {len(p.children) for p in graph.partitions} == {4}
    # Folded in pairs they are the binary tree, with the same numbers of everything.
    folded, binary = (
        fold(in_pairs(s.region_graph())) for s in (structure, pc.QuadTree(size, size))
    )
    sizes = [
        [f.size for level in g.levels for f in level.folds] for g in (folded, binary)
    ]
    assert sizes[0] == sizes[1]
    np.testing.assert_array_equal(folded.input_scopes, binary.input_scopes)
    levels = fold(graph).levels  # as they are: one sum for each product of four
    assert [f.size for level in levels for f in level.folds] == [
        4**e for e in reversed(range(exponent))
    ]


@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 7), (6, 1), (7, 7), (1, 1)])
@pytest.mark.parametrize("leaf_size", [1, 2])
def test_images_of_any_shape_are_cut(height, width, leaf_size):
    for structure in (
        pc.QuadTree(height, width, leaf_size, arity=4),
        pc.QuadGraph(height, width, leaf_size),
    ):
        graph = structure.region_graph()
        if graph.num_variables > 1:
            assert_rectangles(graph, width)
        scopes = inputs(graph)
        assert sorted(v for s in scopes for v in s) == list(range(height * width))
        for scope in scopes:
            rows, columns = np.divmod(scope, width)
            assert max(np.ptp(rows), np.ptp(columns)) < leaf_size
    assert rg.is_structured_decomposable(
        pc.QuadTree(height, width, leaf_size, arity=4).region_graph()
    )


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_quad_graphs_cut_every_block_in_two_ways(exponent):
    """A block has 2 partitions and 4 halves, which have one each."""
    size = 2**exponent
    structure = pc.QuadGraph(size, size)
    blocks = (4**exponent - 1) // 3
    assert counts(structure) == (5 * blocks + 4**exponent, 6 * blocks)
    graph = structure.region_graph()
    owned = collections.Counter(map(len, graph.partitions_of))
    assert owned == {2: blocks, 1: 4 * blocks, 0: 4**exponent}
    assert len(graph.partitions_of[graph.root]) == 2
    assert_rectangles(graph, size)
    assert not rg.is_structured_decomposable(graph)


def test_quad_graphs_of_other_shapes():
    assert counts(pc.QuadGraph(3, 3)) == (21, 14)  # counted by hand
    line = pc.QuadGraph(1, 5).region_graph()
    assert rg.is_structured_decomposable(line)
    assert line == pc.QuadGraph(1, 5).region_graph()
    assert set(map(len, line.partitions_of)) == {0, 1}
    graph = pc.QuadGraph(2, 2).region_graph()
    splits = [[graph.scopes[c] for c in p.children] for p in graph.partitions]
    assert splits[:2] == [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]
    assert sorted(splits[2:]) == [
        [(a,), (b,)] for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))
    ]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (3, 2), (4, 4)])
@pytest.mark.parametrize("delta", [1, 3])
def test_poon_domingos_graphs_hold_every_rectangle(height, width, delta):
    """With n and m cells: the pairs of borders; a cut of a rectangle is a triple."""
    structure = pc.PoonDomingos(height * delta, width * delta, delta)
    (two_n, three_n), (two_m, three_m) = (
        ((n + 1) * n // 2, (n + 1) * n * (n - 1) // 6) for n in (height, width)
    )
    regions, partitions = two_n * two_m, three_n * two_m + two_n * three_m
    if height * width == 1:
        regions, partitions = 2, 1  # a sum over the one input region
    assert counts(structure) == (regions, partitions)
    graph = structure.region_graph()
    if height * width > 1:
        assert_rectangles(graph, width * delta)
    cell = np.add.outer(np.arange(delta) * width * delta, np.arange(delta)).ravel()
    assert inputs(graph)[0] == tuple(cell)
    assert len(inputs(graph)) == height * width


def test_poon_domingos_cuts_are_multiples_of_the_distance():
    """Five rows cut after the second and the fourth: the last cell is smaller."""
    graph = pc.PoonDomingos(5, 1, 2).region_graph()
    assert inputs(graph) == [(0, 1), (2, 3), (4,)]
    assert len(graph.partitions_of[graph.root]) == 2


def test_poon_domingos_from_coarse_to_fine():
    graph = pc.PoonDomingos(1, 8, (4, 1)).region_graph()
    splits = [[graph.scopes[c] for c in p.children] for p in graph.partitions]
    assert splits[0] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    # The root once, and each half in all ways: triples of its five borders. Every
    # pixel meets larger pieces.
    assert len(splits) - len(lifted(graph)) == 1 + 2 * 10
    assert len(lifted(graph)) == 8
    assert len(inputs(graph)) == 8
    assert pc.PoonDomingos(2, 2, [1]) == pc.PoonDomingos(2, 2, (1,))
    assert not rg.is_structured_decomposable(graph)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.QuadTree(2, 2, arity=3), "arity must be 2 or 4, got 3"),
        (lambda: pc.QuadGraph(0, 2), "height must be at least 1, got 0"),
        (lambda: pc.QuadGraph(2, 2, 0), "leaf_size must be at least 1, got 0"),
        (lambda: pc.PoonDomingos(2, 2, 0), "delta must be at least 1, got 0"),
        (lambda: pc.PoonDomingos(2, -1, 1), "width must be at least 1, got -1"),
        (lambda: pc.PoonDomingos(2, 2, ()), r"delta must be a .* got \(\)"),
        (lambda: pc.PoonDomingos(2, 2, (2, 0)), r"delta must be a .* got \(2, 0\)"),
        (lambda: pc.PoonDomingos(2, 2, (1, 2)), r"descend, got \(1, 2\)"),
        (lambda: pc.PoonDomingos(2, 2, (2.5,)), r"delta\[0\] must be a whole .*2.5"),
        (
            lambda: pc.PoonDomingos(64, 64, 1).region_graph(),
            "delta must give at most 200000 partitions.* got more with 1 on 64x64",
        ),
        (
            lambda: pc.PoonDomingos(10**5, 10**5, 10**4).region_graph(),
            r"delta must .*regions of 33554432 variables together, got more with 10000",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("structure", "num_levels"),
    [
        (pc.QuadTree(64, 64, arity=4), 6),
        (pc.QuadGraph(64, 64), 12),
        (pc.PoonDomingos(28, 28, 4), 12),
    ],
    ids=repr,
)
def test_large_images_stay_few_levels(structure, num_levels):
    """Building takes half a second; it took minutes if every split were compared."""
    folded = fold(structure.region_graph())
    assert len(folded.levels) == num_levels
    with jax.transfer_guard("disallow"):
        assert len(folded.input_scopes) in (64 * 64, 49)


def test_the_limit_is_above_what_is_usual():
    assert counts(pc.PoonDomingos(28, 28, (7, 2)))[1] < image_families._MOST_PARTITIONS
