"""One query by the others: what two joint queries say is what a conditional one says.

Mixed leaves (Normal, categorical, counts) in forests, trees, shared regions, mixtures
inside, for both kinds of products, with classes.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases

_leaves = (pc.Normal(), pc.Categorical(3), pc.Binomial(2), pc.Normal())
_sizes = {"num_leaves": 2, "num_sums": 3, "num_classes": 2}
CONFIGS = {
    "forest, tucker": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2, 2), _leaves, sum_layer="tucker", **_sizes
    ),
    "quad tree, cp": pc.CircuitConfig(
        pc.QuadTree(2, 2), _leaves, sum_layer="cp", tie_sums="levels", **_sizes
    ),
    "quad graph, cp_t": pc.CircuitConfig(
        pc.QuadGraph(2, 2), _leaves, sum_layer="cp_t", **_sizes
    ),
    "nested": pc.CircuitConfig(cases.NESTED, _leaves, sum_layer="cp_t", **_sizes),
}
OBSERVED = np.array([True, False, True, False])
X = np.array([[0.4], [1.0], [2.0], [-0.3]], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_conditional_query_is_that_of_the_conditional_circuit(name):
    circuit = pc.build(CONFIGS[name])
    params = cases.random_params(circuit, 0)
    low, high = X - 1.4, X + 0.9
    first, second = {1: jnp.cos, 3: lambda x: x - 1}, {0: jnp.cos, 1: lambda x: x - 1}

    @cases.jit
    def both(params, x):
        built, own = pc.conditional_circuit(circuit, params, x, OBSERVED)
        seen = circuit.log_prob(params, x, OBSERVED)
        event = pc.Event(low[~OBSERVED], high[~OBSERVED])
        ours = (
            circuit.event_log_prob(params, pc.Event(low, high), x, OBSERVED) - seen,
            circuit.expectation(params, first, x, OBSERVED),
            circuit.mean(params, x, OBSERVED)[~OBSERVED],
            circuit.covariance(params, x, OBSERVED)[~OBSERVED][:, :, ~OBSERVED],
        )
        theirs = (
            built.event_log_prob(own, event),
            built.expectation(own, second),
            built.mean(own),
            built.covariance(own),
        )
        return ours, theirs

    for ours, theirs in zip(*both(params, X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_joint_queries_add_up(name):
    """Over the values of a set, over the parts of a line, over classes; chain rules."""
    circuit = pc.build(CONFIGS[name])
    params = cases.random_params(circuit, 0)
    discrete = np.array([False, True, True, False])
    one, other = discrete & OBSERVED, discrete & ~OBSERVED

    @cases.jit
    def queries(params, x):
        def of_value(value):
            allowed = jnp.ones((4, 1, 3), bool).at[1, 0].set(jnp.arange(3) == value)
            return circuit.event_log_prob(
                params, pc.Event(allowed=allowed), x, OBSERVED
            )

        def below(bound):
            high = jnp.full((4, 1), jnp.inf).at[3, 0].set(bound)
            return circuit.event_log_prob(params, pc.Event(high=high), x, OBSERVED)

        def above(bound):
            low = jnp.full((4, 1), -jnp.inf).at[3, 0].set(bound)
            return circuit.event_log_prob(params, pc.Event(low=low), x, OBSERVED)

        seen = circuit.log_prob(params, x, OBSERVED)
        return (
            (jax.vmap(of_value)(jnp.arange(3)), seen),
            (jnp.stack([below(0.3), above(0.3)]), seen),
            (circuit.joint_log_probs(params, x, OBSERVED), seen),
        ), (
            pc.mutual_information(circuit, params, one, other),
            pc.entropy(circuit, params, variables=one),
            pc.entropy(circuit, params, variables=other),
            pc.entropy(circuit, params, variables=discrete),
        )

    sums, (information, first, second, both) = queries(params, X)
    for parts, whole in sums:
        np.testing.assert_allclose(np.exp(parts).sum(), np.exp(whole), rtol=1e-5)
    np.testing.assert_allclose(information, first + second - both, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_exact_queries_are_means_of_samples(name):
    """Within 4 standard errors of 20,000 samples, given evidence."""
    circuit = pc.build(CONFIGS[name])
    params = cases.random_params(circuit, 0)
    low, high = X - 1.4, X + 0.9
    hidden = ~OBSERVED

    def function(x):
        inside = jnp.all(((x >= low) & (x <= high))[hidden])
        return jnp.stack(
            [
                inside.astype(x.dtype),
                jnp.cos(x[1, 0]) * (x[3, 0] - 1),
                x[1, 0] * x[3, 0],
            ]
        )

    @cases.user_jit
    def queries(key, params, x):
        given = {"x": x, "observed": OBSERVED}
        estimate = pc.expectation_estimate(
            circuit, key, params, function, 20_000, **given
        )
        event = circuit.event_log_prob(params, pc.Event(low, high), **given)
        mean = circuit.mean(params, **given)
        product = {1: jnp.cos, 3: lambda x: x - 1}
        return estimate, jnp.stack(
            [
                jnp.exp(event - circuit.log_prob(params, x, OBSERVED)),
                circuit.expectation(params, product, **given),
                circuit.covariance(params, **given)[1, 0, 3, 0]
                + mean[1, 0] * mean[3, 0],
            ]
        )

    estimate, exact = queries(jax.random.key(0), params, X)
    error = np.asarray(estimate.standard_error)
    assert (np.abs(estimate.value - exact) < 4 * error).all()
    assert (error < 0.03).all()


@pytest.mark.slow
def test_the_example_of_the_documentation_runs():
    page = pathlib.Path(__file__).parents[2] / "docs" / "queries.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(example, "docs/queries.md", "exec"), names)
    assert names["given"] <= 0
    assert names["small"].config.structure.num_variables == 2
    assert names["entropy"].standard_error > 0
