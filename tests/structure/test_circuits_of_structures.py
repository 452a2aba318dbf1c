"""Small circuits of the structures, against enumeration."""

import dataclasses

import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import parameters
from dspc_jax.structure.trees_from_data import latent_tree
from tests import cases, oracles
from tests.structure.test_random_graphs import (
    Drawn,
    check_conditional_queries,
    check_joint_queries,
)

HIDDEN = latent_tree(np.array([-1, 0, 0, 0, 1]))
STRUCTURES = {
    "quad-of-four": pc.QuadTree(2, 2, arity=4),
    "quad-graph": pc.QuadGraph(2, 3),
    "poon-domingos": pc.PoonDomingos(2, 3, 1),
    "hidden-tree": HIDDEN,
}
LONG = ("quad-of-four", "poon-domingos")
WIDE = {"hidden-tree": HIDDEN, "quad-of-four": pc.QuadTree(2, 3, arity=4)}


@pytest.mark.parametrize("name", cases.parameters(STRUCTURES, LONG))
def test_the_law_and_its_marginals(name):
    """The graph of the parameters' rows is the one that the oracle walks."""
    circuit = pc.build(
        pc.CircuitConfig(
            *(STRUCTURES[name], pc.Bernoulli()),
            num_leaves=2,
            num_sums=3,
            sum_layer="cp_t" if name == "quad-graph" else "tucker",
        )
    )
    params = cases.random_params(circuit, seed=1)
    graph = pc.parameter_rows(circuit).graph
    binary = pc.build(dataclasses.replace(circuit.config, structure=graph))
    table = oracles.tabulate(binary, params)
    num_variables = circuit.config.structure.num_variables
    observed = cases.masks(num_variables)
    some = np.concatenate([np.ones_like(table.values[..., 0], bool), observed])
    x = np.concatenate([table.values, table.values[-1:].repeat(len(observed), 0)])
    known = np.where(some[..., None], x, np.nan).astype(np.float32)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    probs = np.exp(log_prob(params, known, some).astype(np.float64))
    wanted = [table.marginal(*pair) for pair in zip(x, some, strict=True)]
    np.testing.assert_allclose(probs, wanted, rtol=1e-4)
    np.testing.assert_allclose(probs[: len(table.values)].sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("zeros", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("check", [check_conditional_queries, check_joint_queries])
@pytest.mark.parametrize("name", cases.parameters(WIDE, ["quad-of-four"]))
def test_queries_where_products_are_wide(name, check, zeros):
    """One sum for each product, with leaves and sums among its factors."""
    config = pc.CircuitConfig(
        WIDE[name], pc.Bernoulli(), num_leaves=2, num_sums=2, num_classes=2
    )
    layout = pc.build(config).layout
    graph = WIDE[name].region_graph()
    assert layout.graph.places.graph == graph
    assert sum(table.shape[0] for table in _tables(layout)) == len(graph.partitions)
    check(Drawn(config, zeros=zeros, seed=2))


def _tables(layout):
    return [table for level in parameters.shapes(layout).sums for table in level]


@pytest.mark.parametrize("name", cases.parameters(WIDE, ["hidden-tree"]))
@pytest.mark.parametrize(
    "sum_layer", ["cp", pytest.param("cp_t", marks=pytest.mark.slow)]
)
def test_hard_relaxations_are_the_samples_where_products_are_wide(name, sum_layer):
    """Node by node, too, as the temperature falls."""
    case = cases.compiled(
        pc.CircuitConfig(
            *(WIDE[name], pc.Bernoulli()), num_leaves=2, num_sums=2, sum_layer=sum_layer
        )
    )
    hard = case.sample(cases.fresh_keys(3, 50), case.params)
    drawn = case.soft(cases.fresh_keys(3, 50), case.params, 1e-4, cases.RELAXATIONS)
    for relaxation, x in drawn.items():
        close = np.isclose(x, hard, atol=0.05).all((1, 2))
        assert close.mean() >= 0.9, relaxation
