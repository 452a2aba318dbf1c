"""The graphs of ``cp`` layers, and circuits on them."""

import collections
import itertools

import jax
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure.sums_first import sums_first
from tests import cases

GRAPHS = {
    "quad": pc.QuadTree(2, 3).region_graph(),
    "nested": cases.NESTED,
    "shared": cases.SHARED,
    "one": pc.RandomBinaryTrees(2, 0, 2).region_graph(),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_factor_has_sums_of_its_own(name):
    """No input enters a product, and no region two products of different patches.

    Copies of a region share their products, so these may count several times.
    """
    old = GRAPHS[name]
    new = sums_first(old)
    assert new.scopes[: len(old.scopes)] == old.scopes
    entered = collections.defaultdict(set)
    for p in new.partitions:
        if len(p.children) > 1:
            assert all(new.partitions_of[child] for child in p.children)
            for child in p.children:
                entered[child].add(p.children)
    assert all(len(products) == 1 for products in entered.values())
    factors = sum(len(p.children) for p in old.partitions if len(p.children) > 1)
    assert len(entered) == factors
    is_tree = name == "quad"
    assert (len(new.partitions) == len(old.partitions) + old.num_variables) == is_tree


@pytest.mark.parametrize("name", ["shared", "quad"])
def test_the_distribution_by_enumeration(name):
    """Probabilities add up to 1, to marginals, and samples follow them."""
    graph = GRAPHS[name]
    config = pc.CircuitConfig(graph, pc.Bernoulli(), 1, 2, 3, 2, sum_layer="cp")
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)
    num = graph.num_variables
    x = np.array(list(itertools.product([0.0, 1.0], repeat=num)), np.float32)[..., None]
    observed = np.arange(num) % 2 == 0

    @cases.jit
    def queries(params):
        log_prob = jax.vmap(circuit.log_prob, (None, 0, None))
        samples = jax.vmap(circuit.sample, (0, None))(cases.fresh_keys(0, 4000), params)
        return log_prob(params, x, None), log_prob(params, x, observed), samples

    log_p, log_m, samples = queries(params)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)
    alike = (x[:, None, observed, 0] == x[None, :, observed, 0]).all(-1)
    np.testing.assert_allclose(np.exp(log_m), alike @ np.exp(log_p), rtol=1e-4)
    index = (samples[:, :, 0] @ 2.0 ** np.arange(num)[::-1]).astype(int)
    share = np.bincount(index, minlength=len(x)) / len(samples)
    p = np.exp(log_p)
    assert (np.abs(share - p) < 5 * np.sqrt(p / len(samples)) + 1e-3).all()


def test_a_pixel_under_one_unit_is_a_mixture_of_all_its_leaves():
    """The definition on two variables, in NumPy."""
    graph = pc.RandomBinaryTrees(2, 1).region_graph()
    config = pc.CircuitConfig(graph, pc.Categorical(3), 1, 2, 4, sum_layer="cp")
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)

    def softmax(logits):
        e = np.exp(np.asarray(logits, np.float64))
        return e / e.sum(-1, keepdims=True)

    (leaf,) = params.leaves
    tables = softmax(leaf.logits)[:, :, 0, 0]  # [2, L, M]
    (first,), (last,) = params.sums
    factors = np.einsum("gok,gkm->gom", softmax(first), tables)
    graph = circuit.layout.graph
    order = [int(v) for v in graph.input_scopes[:, 0]]
    joint = np.einsum("k,km,kn->mn", softmax(last)[0, 0], *factors[np.argsort(order)])
    x = np.array(list(itertools.product(range(3), repeat=2)), np.float32)[..., None]
    log_p = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, x)
    np.testing.assert_allclose(np.exp(log_p).reshape(3, 3), joint, rtol=1e-5)
