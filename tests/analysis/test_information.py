"""Entropies, divergences and informations: exact ones, and estimates within errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases

EXACT = ("trees-tucker", "channels", "mixed", "nested", "quad-2x3")


def masks(num_variables):
    """Two sets of variables, and the observed ones."""
    numbers = np.arange(num_variables) % 3
    return numbers == 0, numbers == 1, numbers == 2


def marginals(table, probs, mask):
    """``p`` of each value's own part, ``[S]``."""
    part = table.values[:, mask].reshape(len(table.values), -1)
    _, number = np.unique(part, axis=0, return_inverse=True)
    return np.bincount(number.ravel(), probs)[number.ravel()]


def log(p):
    return np.log(np.where(p > 0, p, 1))


@pytest.mark.parametrize("name", cases.parameters(EXACT))
def test_exact_ones_are_sums_over_the_table(name):
    case, table = cases.case(name), cases.case(name).table
    circuit, params = case.circuit, case.params
    first, second, seen = masks(case.config.structure.num_variables)
    x = table.values[len(table.values) // 2]

    @cases.jit
    def queries(params, x):
        return (
            pc.entropy(circuit, params),
            pc.mutual_information(circuit, params, first, second),
            pc.entropy(circuit, params, x=x, observed=seen),
            pc.mutual_information(circuit, params, first, second, x=x, observed=seen),
        )

    evidence = np.where(seen[:, None], x, np.nan)
    results = queries(params, np.float32(evidence))
    for probs, (entropy, information) in (
        (table.probs, results[:2]),
        (table.conditional(x, seen), results[2:]),
    ):
        np.testing.assert_allclose(entropy, -probs @ log(probs), rtol=2e-5)
        both, one, two = (
            log(marginals(table, probs, mask))
            for mask in (first | second, first, second)
        )
        expected = probs @ (both - one - two)
        np.testing.assert_allclose(information, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.slow
def test_divergences_of_two_structures():
    case = cases.case("trees-tucker")
    circuit, params, p = case.circuit, case.params, case.table.probs
    config = dataclasses.replace(case.config, structure=pc.QuadTree(2, 2), num_sums=3)
    other = pc.build(config)
    others = cases.random_params(other, 5)

    number = 4000

    @cases.jit
    def queries(key, params, others, x):
        keys = jax.random.split(key)
        pair = params, others
        return (
            jax.vmap(other.log_prob, (None, 0))(others, x),
            pc.cross_entropy(circuit, *pair, other=other),
            pc.kl_divergence(circuit, *pair, other=other),
            pc.kl_divergence(circuit, params, params),
            pc.cross_entropy_estimate(circuit, keys[0], *pair, number, other=other),
            pc.kl_divergence_estimate(circuit, keys[1], *pair, number, other=other),
        )

    log_q, cross, divergence, none, *estimates = queries(
        jax.random.key(0), params, others, case.values
    )
    np.testing.assert_allclose(cross, -p @ log_q, rtol=1e-5)
    np.testing.assert_allclose(divergence, p @ (np.log(p) - log_q), rtol=1e-4)
    assert abs(none) < 1e-6
    for exact, estimate in zip((cross, divergence), estimates, strict=True):
        assert 0 < estimate.standard_error < 0.05
        assert abs(estimate.value - exact) < 4 * estimate.standard_error


@pytest.mark.parametrize(
    "kind",
    cases.parameters(("entropy", "information", "mean"), ("information", "mean")),
)
def test_estimates_are_within_their_errors(kind):
    """Given evidence, and 4 deviations; the errors are those of the terms."""
    case, table = cases.case("trees-tucker"), cases.case("trees-tucker").table
    circuit, number = case.circuit, 3000
    first, second, seen = masks(4)
    x = np.float32(table.values[5])
    given = {"x": x, "observed": seen}

    def function(x):
        return jnp.stack([x[0, 0] * x[3, 0], jnp.max(x) - x[1, 0]])

    def query(key, params):
        if kind == "entropy":
            return pc.entropy_estimate(circuit, key, params, number, **given)
        if kind == "mean":
            return pc.expectation_estimate(
                circuit, key, params, function, number, **given
            )
        return pc.mutual_information_estimate(
            circuit, key, params, first, second, number, **given
        )

    estimate = cases.jit(query)(jax.random.key(1), case.params)
    probs = table.conditional(np.float64(x), seen)
    one, two = (log(marginals(table, probs, mask)) for mask in (first, second))
    both = log(marginals(table, probs, first | second))
    terms = {"entropy": -log(probs), "information": both - one - two}
    if kind == "mean":
        terms["mean"] = np.array([function(value) for value in table.values])
    exact = probs @ terms[kind]
    error = np.sqrt((probs @ terms[kind] ** 2 - exact**2) / number)
    np.testing.assert_allclose(estimate.standard_error, error, rtol=0.2)
    assert (np.abs(estimate.value - exact) < 4 * error + 1e-5).all()


def test_what_is_refused():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params
    first, second, seen = masks(4)
    normal = cases.case("normal-trees").circuit
    wide = pc.build(
        pc.CircuitConfig(pc.RandomBinaryTrees(21, 1), pc.Bernoulli(), num_sums=2)
    )
    key = jax.random.key(0)
    for call, match in (
        (lambda: pc.entropy(normal, params), "leaves with finitely many values"),
        (lambda: pc.entropy(wide, params), "at most 1048576 joint values.*2097152"),
        (
            lambda: pc.mutual_information(circuit, params, first, first),
            "no variable in common",
        ),
        (
            lambda: pc.mutual_information(
                circuit, params, first, second, x=case.values[0], observed=second
            ),
            "no variable in common",
        ),
        (
            lambda: pc.mutual_information(circuit, params, ~(first | ~first), second),
            "first must be bool of shape",
        ),
        (lambda: pc.entropy_estimate(circuit, key, params, 1), "at least 2, got 1"),
        (lambda: pc.entropy_estimate(circuit, 0, params, 2), "key must be one typed"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert seen.any()
