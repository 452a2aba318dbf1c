"""Region graphs of cirkit: ``cirkit_graphs.json`` has what commit 74e4e02 dumped."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc

GRAPHS = json.loads((pathlib.Path(__file__).parent / "cirkit_graphs.json").read_text())


def read(folder: pathlib.Path, content: Any) -> pc.RegionGraph:
    path = folder / "graph.json"
    path.write_text(json.dumps(content, indent=4))  # as cirkit does
    return pc.region_graph_from_json(path)


@pytest.mark.parametrize("name", GRAPHS)
def test_regions_and_partitions_are_those_of_the_file(
    name: str, tmp_path: pathlib.Path
):
    content = GRAPHS[name]
    graph = read(tmp_path, content)
    scopes = [tuple(sorted(region["scope"])) for region in content["regions"].values()]
    assert list(graph.scopes) == scopes
    names = list(content["regions"])
    assert [(p.region, p.children) for p in graph.partitions] == [
        (names.index(str(p["output"])), tuple(names.index(str(i)) for i in p["inputs"]))
        for p in content["graph"]
    ]
    assert str(graph.root) == content["roots"][0]


def splits(graph: pc.RegionGraph) -> set[frozenset[tuple[int, ...]]]:
    """The ways to split, by scopes; a sum over one region, which ours have, is none."""
    return {
        frozenset(graph.scopes[c] for c in p.children)
        for p in graph.partitions
        if len(p.children) > 1
    }


def test_the_same_families_are_the_same_graphs(tmp_path: pathlib.Path):
    theirs = read(tmp_path, GRAPHS["quad_tree"])
    assert splits(theirs) == splits(pc.QuadTree(3, 3, arity=4).region_graph())
    theirs = read(tmp_path, GRAPHS["quad_graph"])
    assert splits(theirs) == splits(pc.QuadGraph(3, 3).region_graph())
    theirs = read(tmp_path, GRAPHS["poon_domingos"])
    assert splits(theirs) == splits(pc.PoonDomingos(2, 3, 1).region_graph())


def test_a_circuit_on_it_sums_to_one(tmp_path: pathlib.Path):
    graph = read(tmp_path, GRAPHS["poon_domingos"])
    config = pc.CircuitConfig(graph, pc.Bernoulli(), num_leaves=2, num_sums=2)
    circuit = pc.build(config)
    params = circuit.init(jax.random.key(0))
    states = np.indices((2,) * 6).reshape(6, -1).T[:, :, None]
    log_p = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, states)
    assert float(jax.scipy.special.logsumexp(jnp.asarray(log_p))) == pytest.approx(
        0, abs=1e-5
    )


def with_part(**parts: Any) -> dict[str, Any]:
    return {**GRAPHS["linear_tree"], **parts}


ROOT = GRAPHS["linear_tree"]["roots"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be a region graph of cirkit, got no regions in []"),
        ({"regions": {}}, "must be a region graph of cirkit, got no graph in"),
        (with_part(roots=[]), "roots must be the one region that no other has, got []"),
        (with_part(roots=["none"]), "regions must have all that is named, got 'none'"),
        (with_part(graph=[{"output": True, "inputs": [0]}]), "that is named, got True"),
        (with_part(graph=[{"output": 0}]), "got no inputs in {'output': 0}"),
        (with_part(regions={"0": {"scope": ["a"]}}, graph=[]), "scopes[0]"),
        (with_part(regions={"0": {"scope": [0, 10**30]}}), "must be 0 to 1, got 1000"),
        (with_part(regions={"0": 3}), "got no scope in 3"),
    ],
)
def test_other_content_is_refused(content: Any, message: str, tmp_path: pathlib.Path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(tmp_path, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: pathlib.Path):
    for text in ("{", "[" * 100_000):
        path = tmp_path / "graph.json"
        path.write_text(text)
        with pytest.raises(ValueError, match="the file must be JSON"):
            pc.region_graph_from_json(path)
