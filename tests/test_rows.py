"""Weights set by hand through the public map, and the oracle's through it as well."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from tests import cases, oracles


def by_hand() -> tuple[pc.RegionGraph, Any, Any]:
    """Three coins: the root mixes ``(01)(2)`` and ``(0)(12)``; one unit each."""
    builder = pc.RegionGraphBuilder(3)
    coins = [builder.add_region([v]) for v in range(3)]
    left, right = builder.add_region([0, 1]), builder.add_region([1, 2])
    builder.add_partition(0, left, coins[2])
    builder.add_partition(0, coins[0], right)
    builder.add_partition(left, coins[0], coins[1])
    builder.add_partition(right, coins[1], coins[2])
    graph = builder.build()
    config = pc.CircuitConfig(
        graph, pc.Bernoulli(), num_leaves=2, num_sums=1, sum_layer="tucker"
    )
    circuit = pc.build(config)
    return graph, circuit, jax.tree.map(np.array, cases.random_params(circuit, seed=0))


def test_weights_by_hand_give_the_likelihood_by_hand():
    """Units of a coin: heads with probability 1/4 and 3/4."""
    _, circuit, params = by_hand()
    rows = pc.parameter_rows(circuit)
    for coin in (1, 2, 3):
        i, row, place = rows.leaves[coin, coin - 1]
        params.leaves[i].logits[row, :, place] = special.logit([[0.25], [0.75]])
    agree = np.log([[0.4, 0.1], [0.1, 0.4]])  # two coins are alike
    for partition, share in ((0, 0.3), (1, 0.7)):
        result = rows.mixtures[partition]
        assert result is not None
        i, row, place = result
        params.mixtures[i][row, :, place] = np.log(share)
    for partition in (2, 3):
        i, j, row = rows.sums[partition]
        params.sums[i][j][row] = agree
    # Beside an inner region, a coin has a sum over its units: one or the other.
    lifted = {rows.graph.partitions[n].children: rows.sums[n] for n in (4, 5)}
    for coin, shares in (((3,), [0.2, 0.8]), ((1,), [0.5, 0.5])):
        i, j, row = lifted[coin]
        params.sums[i][j][row] = np.log(shares)
    heads = np.array([0.25, 0.75])
    alike = heads @ np.exp(agree) @ heads  # both are heads
    third = heads @ [0.2, 0.8]
    first = heads @ [0.5, 0.5]
    expected = 0.3 * alike * third + 0.7 * first * alike
    log_p = cases.jit(circuit.log_prob)(params, jnp.ones(3))
    np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-5)
    # Only the last coin is tails: (01)(2) and (0)(12).
    differ = heads @ np.exp(agree) @ (1 - heads)
    expected = 0.3 * alike * (1 - third) + 0.7 * first * differ
    log_p = cases.jit(circuit.log_prob)(params, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name", cases.parameters(["trees-tucker", "nested", "shared", "mixed"])
)
def test_the_map_is_that_of_the_circuit(name):
    """An oracle that finds its rows by the map gives the circuit's likelihood."""
    config = cases.DISCRETE[name]
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=4)
    rows = pc.parameter_rows(circuit)
    oracle = oracles.Oracle(circuit, params)
    graph = config.structure.region_graph()
    sums = [(level + 1, fold, row) for level, fold, row in rows.sums]
    mixtures = [(0, 0, 0) if place is None else place for place in rows.mixtures]
    added = range(len(graph.partitions), len(rows.graph.partitions))
    regions = {0: (len(circuit.layout.graph.levels), 0)}
    for (region, _), (_, row, _) in rows.leaves.items():
        regions[region] = (0, row)
    for number, p in enumerate(rows.graph.partitions):
        if rows.mixtures[number] is not None:
            regions[p.region] = (sums[number][0], mixtures[number][1])
        else:
            regions.setdefault(p.region, (sums[number][0], 0))
    oracle.location = oracles.Location(
        regions,
        {n: (sums[n], mixtures[n][2]) for n in range(len(graph.partitions))},
        {rows.graph.partitions[n].children[0]: sums[n] for n in added},
    )
    x = oracles.all_values(circuit)[::3]
    log_p = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, jnp.asarray(x))
    np.testing.assert_allclose(log_p, oracle.log_prob(x), rtol=1e-4)


def test_larger_products_are_products_of_two():
    """Five regions at once: halves of the list, halved again."""
    wide = pc.RegionGraph(
        5, [range(5), *([v] for v in range(5))], [pc.Partition(0, np.arange(1, 6))]
    )
    assert wide.partitions[0].children == (1, 2, 3, 4, 5)
    builder = pc.RegionGraphBuilder(5)
    coins = [builder.add_region([v]) for v in range(5)]
    first, rest = builder.add_region([0, 1, 2]), builder.add_region([3, 4])
    pair = builder.add_region([0, 1])
    builder.add_partition(0, first, rest)
    builder.add_partition(first, pair, coins[2])
    builder.add_partition(pair, coins[0], coins[1])
    builder.add_partition(rest, coins[3], coins[4])
    circuits = [
        pc.build(
            pc.CircuitConfig(
                *(graph, pc.Bernoulli()), num_leaves=2, num_sums=3, sum_layer="tucker"
            )
        )
        for graph in (wide, builder.build())
    ]
    params = cases.random_params(circuits[0], seed=1)
    x = oracles.all_values(circuits[0])
    log_p = [
        cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, jnp.asarray(x))
        for circuit in circuits
    ]
    np.testing.assert_allclose(np.exp(log_p[0]).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(*log_p, rtol=1e-5)
    rows = pc.parameter_rows(circuits[0])
    assert rows.graph.partitions[0].region == 0
    assert {p.region for p in rows.graph.partitions} >= {6, 7, 8}
    assert rows.graph.scopes[:6] == wide.scopes
