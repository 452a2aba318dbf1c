"""Channels of a pixel as variables of their own."""

import dataclasses

import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure.folding import fold
from tests import cases, oracles

COLORED = {
    "tree": pc.QuadTree(1, 2, channels=3),
    "four": pc.QuadTree(2, 1, arity=4, channels=3),
    "graph": pc.QuadGraph(2, 2, channels=2),
    "block": pc.QuadTree(1, 4, leaf_size=2, channels=2),
}


@pytest.mark.parametrize("name", COLORED)
def test_the_channels_of_a_pixel_meet_first(name):
    structure = COLORED[name]
    graph, channels = structure.region_graph(), structure.channels
    plain = dataclasses.replace(structure, channels=1)
    assert structure.num_variables == graph.num_variables
    assert graph.num_variables == plain.num_variables * channels
    assert graph == structure.region_graph()
    pixels = plain.region_graph()
    num_inputs = sum(not owned for owned in pixels.partitions_of)
    assert len(graph.partitions) == len(pixels.partitions) + num_inputs
    for p in graph.partitions:
        parts = [np.array(graph.scopes[c]) for c in p.children]
        places = [part // channels for part in parts]
        if graph.partitions_of[p.children[0]]:  # of whole pixels
            for place in places:
                assert set(np.unique(place, return_counts=True)[1]) == {channels}
            continue
        for c, part in enumerate(parts):
            assert set(part % channels) == {c}
            np.testing.assert_array_equal(places[c], places[0])
    fold(graph)


@pytest.mark.parametrize(
    ("name", "sum_layer"),
    [
        ("tree", "cp_t"),
        pytest.param("graph", "tucker", marks=pytest.mark.slow),
        pytest.param("four", "cp_t", marks=pytest.mark.slow),
    ],
)
def test_the_law_and_its_marginals_by_enumeration(name, sum_layer):
    config = pc.CircuitConfig(COLORED[name], pc.Bernoulli(), 1, 2, 2, 2, sum_layer)
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)
    table = oracles.tabulate(circuit, params)
    masks = cases.masks(config.structure.num_variables)
    x = np.resize(table.values, (len(masks), *table.values.shape[1:]))
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    result = np.exp(log_prob(params, x.astype(np.float32), masks))
    wanted = [table.marginal(*pair) for pair in zip(x, masks, strict=True)]
    np.testing.assert_allclose(result, wanted, rtol=1e-4)
    np.testing.assert_allclose(table.probs.sum(), 1, rtol=1e-6)
    assert (np.abs(table.probs - 1 / len(table.probs)) > 1e-4).any()


def test_files_and_mistakes(tmp_path):
    config = pc.CircuitConfig(COLORED["graph"], pc.Bernoulli(), 1, 2, 2)
    params = cases.random_params(pc.build(config), seed=0)
    pc.save(tmp_path / "file.npz", config, params)
    assert pc.load(tmp_path / "file.npz")[0] == config
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        pc.QuadTree(2, 2, channels=0)
    assert pc.QuadTree(2, 3).region_graph() == pc.QuadTree(2, 3, 1, 2, 1).region_graph()
