"""Most probable explanations against enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from tests import cases, oracles

# Float32 sums of a few terms of size up to 10 nats.
assert_close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", cases.parameters(cases.DISCRETE))
def test_mpe_is_the_max_product_optimum(name):
    case, table = cases.case(name), cases.case(name).table
    x, observed = cases.every_query(case)
    evidence = np.where(observed[..., None], x, np.nan).astype(np.float32)
    result = np.asarray(case.mpe(case.params, evidence, observed))
    index = table.find(result)
    assert (index >= 0).all()
    for a, o, i in zip(x, observed, index, strict=True):
        agrees = table.agrees(a, o)
        assert agrees[i]  # observed values are kept
        assert_close(table.best[i], table.best[agrees].max())
        # A sum is never below its greatest term: the bound that makes MPE useful.
        assert table.best[i] <= np.log(table.probs[agrees].max()) + 1e-9


@pytest.mark.parametrize(
    "name", cases.parameters(("trees-tucker", "mixed", "odd-trees-cp"))
)
def test_the_better_explanation(name):
    """Here each pass is better than the other for some evidence."""
    case = cases.case(name)
    x, observed = cases.every_query(case)
    evidence = np.where(observed[..., None], x, np.nan).astype(np.float32)

    def explain(method):
        return jax.vmap(
            functools.partial(case.circuit.mpe, method=method), (None, 0, 0)
        )

    methods = [explain(method) for method in ("max_product", "sum_product", "best")]
    results = cases.jit(lambda *given: [method(*given) for method in methods])(
        case.params, evidence, observed
    )
    for values in results:
        np.testing.assert_array_equal(values[observed], x[observed])
    by_max, by_sum, best = (case.table.probs[case.table.find(x)] for x in results)
    assert (by_sum > by_max).any()
    assert (by_max > by_sum).any() or name == "trees-tucker"
    np.testing.assert_allclose(best, np.maximum(by_max, by_sum), rtol=1e-6)


def test_the_most_probable_component_of_a_mixture():
    """``sum_product`` by Bayes' rule in NumPy, where there is one latent choice."""
    structure = pc.RandomBinaryTrees(2, 1, 1)
    circuit = pc.build(
        pc.CircuitConfig(
            structure, pc.Categorical(3), num_leaves=4, num_sums=1, sum_layer="cp_t"
        )
    )
    params = cases.random_params(circuit, seed=1)
    leaves = np.empty((2, 4, 3))
    variables = circuit.layout.blocks[0].scopes[:, 0]
    leaves[variables] = special.softmax(params.leaves[0].logits[:, :, 0, 0], axis=-1)
    weights = special.softmax(np.asarray(params.sums[0][0])[0, 0])
    explain = functools.partial(circuit.mpe, method="sum_product")
    explain = cases.jit(jax.vmap(explain, (None, 0, 0)))
    x = np.array([[[a], [b]] for a in range(3) for b in range(3)] * 4, np.float32)
    observed = np.repeat(cases.masks(2), 9, axis=0)
    components = set()
    for values, one, mask in zip(
        explain(params, x, observed), x, observed, strict=True
    ):
        joint = weights.copy()
        for variable in np.flatnonzero(mask):
            joint *= leaves[variable, :, int(one[variable, 0])]
        component = joint.argmax()
        components.add(component)
        modes = leaves[:, component].argmax(axis=-1)[:, None]
        np.testing.assert_array_equal(values, np.where(mask[:, None], one, modes))
    assert len(components) > 1


def test_mpe_without_evidence():
    case = cases.case("trees-tucker")
    table, x = case.table, case.circuit.mpe(case.params)
    best = table.best[table.find(np.asarray(x)[None])]
    assert_close(best, table.best.max())


def parity_circuit():
    """Unit ``o`` of every region holds the values of parity ``o``: deterministic."""
    config = pc.CircuitConfig(
        pc.QuadTree(2, 2), pc.Bernoulli(), num_leaves=2, num_sums=2, sum_layer="tucker"
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=4)
    odd = np.indices((2, 2, 2)).sum(axis=0) % 2
    (low,), (top,) = params.sums
    low = jnp.where(odd[None] == 0, low, -jnp.inf)
    (leaf,) = params.leaves
    sign = jnp.array([-1.0, 1.0])[None, :, None, None]
    # At 120 a coin's other side has probability e^-120, 0 in float32.
    leaf = leaf._replace(logits=jnp.broadcast_to(120 * sign, leaf.logits.shape))
    return circuit, params._replace(leaves=(leaf,), sums=((low,), (top,)))


def test_mpe_is_exact_on_a_deterministic_circuit():
    circuit, params = parity_circuit()
    table = oracles.tabulate(circuit, params)
    np.testing.assert_allclose(table.best, np.log(table.probs), atol=1e-9)
    mpe = cases.jit(jax.vmap(circuit.mpe, (None, 0, 0)))
    values, observed = table.values, cases.masks(4)
    x = np.tile(values, (len(observed), 1, 1))
    observed = np.repeat(observed, len(values), axis=0)
    index = table.find(np.asarray(mpe(params, x.astype(np.float32), observed)))
    for a, o, i in zip(x, observed, index, strict=True):
        assert table.probs[i] == table.probs[table.agrees(a, o)].max()
