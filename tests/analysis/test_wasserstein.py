"""Circuit-Wasserstein distances: where they are Wasserstein distances, and bounds."""

import jax
import numpy as np
import pytest
from scipy import stats

import dspc_jax as pc
from dspc_jax.analysis import wasserstein
from tests import cases, oracles

_trees = pc.RandomBinaryTrees


def _config(structure, leaf, units, sum_layer="cp_t", **sizes):
    return pc.CircuitConfig(
        structure, leaf, num_leaves=units, num_sums=units, sum_layer=sum_layer, **sizes
    )


DISCRETE = {
    "tucker": _config(_trees(4, 2), pc.Bernoulli(), 2, "tucker", num_classes=2),
    "mixed": _config(
        _trees(4, 1), (pc.Binomial(2), pc.Categorical(2)) * 2, 3, num_classes=2
    ),
    "chain": _config(
        pc.RegionGraph(
            4,
            [*[tuple(range(v, 4)) for v in range(4)], *[(v,) for v in range(3)]],
            [pc.Partition(v, (4 + v, v + 1)) for v in range(3)],
        ),
        *(pc.Bernoulli(), 2),
    ),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", cases.parameters(DISCRETE, ("mixed",)))
def test_it_is_a_metric_above_the_wasserstein_distance(name, order):
    circuit = pc.build(DISCRETE[name])
    many = [cases.random_params(circuit, seed) for seed in range(3)]
    tables = [oracles.tabulate(circuit, params) for params in many]

    def distance(i, j):
        return pc.circuit_wasserstein(circuit, many[i], many[j], order=order)

    values = tables[0].values.reshape(len(tables[0].values), -1)
    costs = np.sum(np.abs(values[:, None] - values[None]) ** order, axis=-1)
    least = wasserstein.transport(costs, tables[0].probs, tables[1].probs)
    between = distance(0, 1)
    assert between >= least ** (1 / order) - 1e-6
    assert between < 3 * least ** (1 / order)
    assert distance(0, 0) < 1e-3
    np.testing.assert_allclose(distance(1, 0), between, rtol=1e-5)
    assert between <= distance(0, 2) + distance(2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_of_independent_variables_it_is_the_wasserstein_distance(order):
    """One unit a region: by the quantiles of every variable."""
    leaves = (pc.Normal(), pc.Binomial(3), pc.DiscretizedLogistic(4))
    circuit = pc.build(_config(_trees(3, 1), leaves, 1))
    params, others = (cases.random_params(circuit, seed) for seed in (0, 1))
    u = (np.arange(200_000) + 0.5) / 200_000
    total = 0.0
    for variable, leaf in enumerate(leaves):
        quantiles = []
        for own in (params, others):
            built, part = pc.marginal_circuit(circuit, own, np.arange(3) == variable)
            if isinstance(leaf, pc.Normal):
                mean, std = leaf.components(part.leaves[0])
                quantiles.append(stats.norm.ppf(u, mean.item(), std.item()))
            else:
                table = oracles.tabulate(built, part)
                quantiles.append(np.searchsorted(np.cumsum(table.probs), u))
        total += np.mean(np.abs(quantiles[0] - quantiles[1]) ** order)
    result = pc.circuit_wasserstein(circuit, params, others, order=order)
    np.testing.assert_allclose(result, total ** (1 / order), rtol=1e-3)


def test_of_mixtures_components_are_coupled():
    """Depth 0: one program over pairs of components; other numbers of them."""
    circuit = pc.build(_config(_trees(2, 0), pc.Normal(), 2))
    other = pc.build(_config(_trees(2, 0), pc.Normal(), 3))
    params, others = cases.random_params(circuit, 0), cases.random_params(other, 1)
    leaf = pc.Normal()

    def parts(params):
        mean, std = (
            np.asarray(c)[0, :, :, 0] for c in leaf.components(params.leaves[0])
        )
        return mean, std, np.asarray(jax.nn.softmax(params.sums[0][0].ravel()))

    (m, s, p), (n, t, q) = parts(params), parts(others)
    costs = ((m[:, None] - n[None]) ** 2 + (s[:, None] - t[None]) ** 2).sum(-1)
    result = pc.circuit_wasserstein(circuit, params, others, other=other)
    expected = wasserstein.transport(costs.astype(float), p, q)
    np.testing.assert_allclose(result, np.sqrt(expected), rtol=1e-5)
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        pc.circuit_wasserstein(circuit, params, params, order=3)
