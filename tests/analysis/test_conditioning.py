"""Conditional and marginal circuits against the queries of the whole circuit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases

_trees = pc.RandomBinaryTrees
OTHERS = {
    "cp": pc.CircuitConfig(
        *(_trees(5, 2, 2), pc.Categorical(3)),
        **{"num_leaves": 2, "num_sums": 3, "num_classes": 2, "sum_layer": "cp"},
    ),
    "uniform, tied": pc.CircuitConfig(
        *(pc.QuadGraph(2, 3), pc.Bernoulli()),
        **{"num_leaves": 2, "num_sums": 2, "mixing": "uniform"},
        **{"tie_leaves": "all", "tie_sums": "levels"},
    ),
    "wide tucker": pc.CircuitConfig(
        *(pc.QuadTree(3, 3, arity=4), pc.Bernoulli()),
        **{"num_leaves": 3, "num_sums": 2, "sum_layer": "tucker"},
    ),
    "chain": pc.CircuitConfig(
        pc.RegionGraph(
            6,
            [
                *[tuple(range(v, 6)) for v in range(6)],
                *[(v,) for v in range(5)],
            ],
            [pc.Partition(v, (6 + v, v + 1)) for v in range(5)],
        ),
        *(pc.Categorical(3),),
        **{"num_leaves": 2, "num_sums": 2, "sum_layer": "cp_t"},
    ),
}
NAMES = (*(n for n in cases.DISCRETE if n != "one-variable"), *OTHERS)
LONG = tuple(n for n in NAMES if n != "trees-tucker")


@pytest.mark.parametrize("name", cases.parameters(NAMES, LONG))
def test_they_have_the_likelihoods_of_conditional_queries(name):
    """A third, a half and all but one of the variables are observed; one in haste."""
    config = (cases.DISCRETE | OTHERS)[name]
    circuit = pc.build(config)
    params = cases.random_params(circuit, 1)
    rng = np.random.default_rng(0)
    num_variables = config.structure.num_variables
    x = np.stack(
        [
            rng.integers(0, int(leaf.support[1]) + 1, (8, config.num_channels))
            for leaf in config.leaves
        ],
        axis=1,
    ).astype(np.float32)
    counts = {num_variables // 3 or 1, num_variables // 2, num_variables - 1}
    for count in counts if name in LONG else {num_variables // 2}:
        observed = np.isin(
            np.arange(num_variables), rng.permutation(num_variables)[:count]
        )
        hidden = ~observed

        @cases.jit
        def queries(params, x, hidden=hidden, observed=observed):
            def given(x):
                built, own = pc.conditional_circuit(circuit, params, x, observed)
                seen = circuit.log_prob(params, x, observed)
                expected = circuit.joint_log_probs(params, x) - seen
                return built.joint_log_probs(own, x[hidden]), expected

            built, own = pc.marginal_circuit(circuit, params, hidden)
            marginal = jax.vmap(built.log_prob, (None, 0))(own, x[:, hidden])
            log_prob = jax.vmap(circuit.log_prob, (None, 0, None))
            return jax.vmap(given)(x), (marginal, log_prob(params, x, hidden))

        for own, expected in queries(params, x):
            np.testing.assert_allclose(own, expected, rtol=2e-5, atol=3e-5)


@pytest.mark.slow
def test_normal_leaves_and_gradients():
    """The gradient in parameters and evidence is that of the conditional query."""
    case = cases.case("normal-trees")
    circuit, params = case.circuit, case.params
    x = jnp.array([[0.3], [-0.8]])
    observed = np.array([True, False])

    def direct(params, x):
        return circuit.log_prob(params, x) - circuit.log_prob(params, x, observed)

    def built(params, x):
        small, own = pc.conditional_circuit(circuit, params, x, observed)
        return small.log_prob(own, x[~observed])

    @cases.jit
    def both(params, x):
        return [jax.value_and_grad(f, (0, 1))(params, x) for f in (direct, built)]

    expected, result = both(params, x)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_impossible_evidence_and_what_is_refused():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params
    observed = np.array([True, False, False, True])
    nothing = np.full((4, 1), 7.0, np.float32)
    built, own = pc.conditional_circuit(circuit, params, nothing, observed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own))
    for call, match in (
        (
            lambda: pc.conditional_circuit(circuit, params, nothing, np.ones(4, bool)),
            "observed must leave a variable, got 4 of 4",
        ),
        (
            lambda: pc.marginal_circuit(circuit, params, np.zeros(4, bool)),
            "variables must leave a variable, got 0 of 4",
        ),
        (
            lambda: pc.marginal_circuit(circuit, params, np.zeros(3, bool)),
            r"variables must be bool of shape \[V\] = \(4,\)",
        ),
        (
            lambda: jax.jit(lambda seen: pc.marginal_circuit(circuit, params, seen)[1])(
                observed
            ),
            "variables must not be traced",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert built.config.structure.num_variables == 2
