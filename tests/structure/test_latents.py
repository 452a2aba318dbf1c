"""Where latents stand in the region graph of an image."""

import pytest

import dspc_jax as pc
from dspc_jax.structure.latents import with_latents
from dspc_jax.structure.region_graph import (
    Partition,
    RegionGraph,
    is_structured_decomposable,
)
from tests import cases

STRUCTURES = {
    "quad": pc.QuadTree(4, 6, leaf_size=2),
    "pixels": pc.QuadTree(3, 3),
    "trees": pc.RandomBinaryTrees(9, 2, 3),
    "depth-0": pc.RandomBinaryTrees(5, 0, 2),
}


def _parents(graph: RegionGraph, region: int) -> list[Partition]:
    return [p for p in graph.partitions if region in p.children]


@pytest.mark.parametrize("name", list(STRUCTURES))
@pytest.mark.parametrize("num_latents", [1, 2, 3, 7, 40])
def test_every_region_of_the_image_is_reached(name, num_latents):
    """Each input region lies, in its tree, below or in one region with its latents."""
    structure = STRUCTURES[name]
    num_pixels = structure.num_variables
    graph = with_latents(structure, num_latents)
    assert graph.num_variables == num_pixels + num_latents
    num_trees = len(graph.partitions_of[graph.root])
    latents_seen = []
    for region, scope in enumerate(graph.scopes):
        if graph.partitions_of[region] or scope[0] >= num_pixels:
            continue
        # Up to the first region that has a latent in its scope.
        while not any(v >= num_pixels for v in graph.scopes[region]):
            (above,) = _parents(graph, region)
            region = above.region
        if region == graph.root:  # one latent for the whole image
            assert num_latents == 1
            latents_seen.append(num_pixels)
        else:
            latents_seen += [v for v in graph.scopes[region] if v >= num_pixels]
    for latent in range(num_pixels, num_pixels + num_latents):
        assert latents_seen.count(latent) >= num_trees


def test_shares_differ_by_at_most_one():
    structure = pc.QuadTree(4, 4, leaf_size=2)
    for num_latents in (4, 5, 11):
        graph = with_latents(structure, num_latents)
        shares = [
            sum(v >= 16 for v in scope)
            for region, scope in enumerate(graph.scopes)
            if not graph.partitions_of[region]
        ]
        assert sum(shares) == num_latents
        assert max(shares) - min(shares) <= 1


def test_few_latents_stand_beside_the_largest_regions():
    """Three latents on 2x4 pixels: one half stays whole, the other is cut in two."""
    graph = with_latents(pc.QuadTree(2, 4), 3)
    beside = sorted(
        tuple(v for v in graph.scopes[region] if v < 8)
        for region in range(len(graph.scopes))
        for p in _parents(graph, region)
        if any(graph.scopes[c][0] >= 8 for c in p.children)
        and graph.scopes[region][0] < 8
    )
    assert beside == [(0, 1), (2, 3, 6, 7), (4, 5)]
    assert is_structured_decomposable(graph)


def test_codes_of_neighbouring_input_regions_are_chosen_apart():
    """A sum layer stands over each input region: 2 x 2 patches, 2**4 combinations."""
    graph = with_latents(pc.QuadTree(4, 4, leaf_size=2), 4)
    for region in range(len(graph.scopes)):
        if not graph.partitions_of[region]:
            (above,) = _parents(graph, region)
            assert above.children == (region,)


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_latents must be at least 1, got 0"):
        with_latents(pc.QuadTree(2, 2), 0)
    with pytest.raises(ValueError, match="one parent"):
        with_latents(cases.SHARED, 2)
    with pytest.raises(ValueError, match="several partitions .* got 2 for region 1"):
        with_latents(
            RegionGraph(
                2,
                ((0, 1), (0, 1), (0,), (1,), (0,), (1,)),
                (Partition(0, (1,)), Partition(1, (2, 3)), Partition(1, (4, 5))),
            ),
            2,
        )
