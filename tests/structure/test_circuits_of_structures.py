"""Small circuits of the structures, against enumeration."""

import dataclasses

import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure.trees_from_data import _latent_tree
from tests import cases, oracles

HIDDEN = _latent_tree(np.array([-1, 0, 0, 0, 1]))
STRUCTURES = {
    "quad-of-four": pc.QuadTree(2, 2, arity=4),
    "quad-graph": pc.QuadGraph(2, 3),
    "poon-domingos": pc.PoonDomingos(2, 3, 1),
    "hidden-tree": HIDDEN,
}
LONG = ("quad-of-four", "poon-domingos")


@pytest.mark.parametrize("name", cases.parameters(STRUCTURES, LONG))
def test_the_law_and_its_marginals(name):
    """Folded products of two are the graph that the oracle walks."""
    circuit = pc.build(
        pc.CircuitConfig(STRUCTURES[name], pc.Bernoulli(), num_leaves=2, num_sums=3)
    )
    params = cases.random_params(circuit, seed=1)
    graph = pc.parameter_rows(circuit).graph
    binary = pc.build(dataclasses.replace(circuit.config, structure=graph))
    table = oracles.tabulate(binary, params)
    num_variables = circuit.config.structure.num_variables
    observed = cases.masks(num_variables)
    some = np.concatenate([np.ones_like(table.values[..., 0], bool), observed])
    x = np.concatenate([table.values, table.values[-1:].repeat(len(observed), 0)])
    given = np.where(some[..., None], x, np.nan).astype(np.float32)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    found = np.exp(log_prob(params, given, some).astype(np.float64))
    wanted = [table.marginal(*pair) for pair in zip(x, some, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(found[: len(table.values)].sum(), 1, rtol=1e-5)
