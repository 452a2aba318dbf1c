"""Gradients through samples against the exact gradient, by enumeration or on a grid.

Two estimators are unbiased; the others are biased by design. A band states for each how
much bias is accepted, and where bias is known it has a lower end too: a change that
moves an estimator either way is noticed. Bands hold for four circuits;
docs/estimators.md has the numbers.
All tests are stochastic with fixed keys; a band is widened by three standard errors.
"""

import functools
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import enumeration, estimators
import dspc_jax as pc
from tests import cases

NUM_BATCHES = 50  # of 2000 samples: standard errors of 0.3 to 4 %, see `Estimate.error`

# (relaxation, function): the bias accepted at the temperatures 0.1, 0.5 and 1.0 (or, of
# those without one, anywhere), as shares of the exact gradient's norm, over all
# circuits.
BANDS = {
    ("gumbel_softmax", "linear"): [(0, 0.02), (0.02, 0.12), (0.08, 0.3)],
    ("straight_through", "linear"): [(0, 0.02), (0.01, 0.09), (0.03, 0.2)],
    ("dense", "linear"): [(0, 0.02), (0.02, 0.12), (0.08, 0.3)],
    # The softmax marginal is the exact mean of a choice, and all else is linear.
    ("simple", "linear"): [(0, 0)],
    ("gumbel_softmax", "quadratic"): [(0, 0.08), (0.05, 0.25), (0.14, 0.4)],
    ("straight_through", "quadratic"): [(0, 0.03), (0.01, 0.12), (0.02, 0.2)],
    ("dense", "quadratic"): [(0, 0.1), (0.05, 0.35), (0.14, 0.45)],
    ("simple", "quadratic"): [(0.01, 0.24)],
    # Most of this bias is the leaves', see below, unless they are Normal.
    ("gumbel_softmax", "kernel"): [(0.04, 0.5), (0.04, 0.5), (0.04, 0.65)],
    ("straight_through", "kernel"): [(0.04, 0.5)] * 3,
    ("dense", "kernel"): [(0.04, 0.5), (0.04, 0.5), (0.04, 0.65)],
    ("simple", "kernel"): [(0.06, 0.5)],
    # Exact up to quadratic functions; a kernel may suffer more than from the others.
    ("reinmax", "linear"): [(0, 0.003)],
    ("reinmax", "quadratic"): [(0, 0.01)],
    ("reinmax", "kernel"): [(0.06, 0.5)],
    # The leaves' bias, and nothing else.
    ("score_pathwise", "linear"): [(0, 0)],
    ("score_pathwise", "quadratic"): [(0, 0)],
    ("score_pathwise", "kernel"): [(0, 0.5)],
    ("rebar", "linear"): [(0, 0)] * 3,
    ("rebar", "quadratic"): [(0, 0)] * 3,
    ("rebar", "kernel"): [(0, 0.5)] * 3,
    **{
        (name, function): [(0, 0)]
        for name in ("score_function", "implicit")
        for function in enumeration.FUNCTIONS
    },
}
# The mean of straight_through, with less noise.
BANDS |= {
    ("gumbel_rao", f): BANDS["straight_through", f] for f in enumeration.FUNCTIONS
}

NORMAL = "two variables, normal"
DISCRETE = sorted({*enumeration.CIRCUITS} - {NORMAL})
# In every run the continuous circuit with all estimators, and a discrete one with some.
SOME = ("simple", "straight_through")
circuits = pytest.mark.parametrize(
    "name", cases.parameters([NORMAL, *DISCRETE], DISCRETE)
)
discrete = pytest.mark.parametrize("name", cases.parameters(DISCRETE, DISCRETE))


def band(relaxation, temperature, function):
    """The accepted bias of a row."""
    bands = BANDS[relaxation, function]
    if temperature is None:
        return bands[0]
    return bands[estimators.TEMPERATURES.index(temperature)]


@functools.cache
def measured(name, only=None):
    rows = estimators.measure(name, NUM_BATCHES, only)
    return {row[:-1]: row[-1] for row in rows}


@circuits
def test_bias_is_within_the_stated_band(name):
    check_bias(name, measured(name))


def check_bias(name, rows):
    for (relaxation, temperature, function), found in rows.items():
        low, high = band(relaxation, temperature, function)
        where = (relaxation, temperature, function, found)
        assert low - 3 * found.error <= found.bias <= high + 3 * found.error, where
        # Whatever the bias, it points the right way.
        least = 0.84 if name == NORMAL else 0.92
        assert found.cosine > least - found.error, where
        # The error must leave the band its meaning.
        assert found.error < 0.045, where


HARD = (
    *("straight_through", "simple", "gumbel_rao", "reinmax", "score_pathwise"),
    "rebar",
)


@discrete
def test_hard_samples_have_unbiased_leaf_gradients(name):
    """Exact up to quadratic functions: draws are matched in their first two moments."""
    check_leaves(measured(name))


@pytest.mark.parametrize("relaxation", SOME)
def test_some_estimators_on_a_discrete_circuit(relaxation):
    """As the others of it, which are checked by name."""
    rows = measured("trees, tucker", relaxation)
    assert {row[0] for row in rows} == {relaxation}
    check_bias("trees, tucker", rows)
    check_leaves(rows)


def check_leaves(rows):
    for (relaxation, _, function), found in rows.items():
        if relaxation in HARD and function != "kernel":
            assert found.leaf_bias < 3 * found.leaf_error
        if function == "kernel" and relaxation != "score_function":  # and no further
            assert found.leaf_bias > 0.03


def test_hard_samples_have_unbiased_normal_leaf_gradients():
    """Of all functions: a Normal draw is reparametrised exactly."""
    for (relaxation, _, _), found in measured(NORMAL).items():
        if relaxation in HARD:
            assert found.leaf_bias < 3 * found.leaf_error
        if relaxation in ("score_pathwise", "rebar"):  # and all the rest
            assert found.bias < 3 * found.error


def test_implicit_gradients_have_less_noise():
    """Than any other of the same circuit with as little bias, half of it at most."""
    for function in enumeration.FUNCTIONS:
        ours = measured(NORMAL)["implicit", None, function].variance
        for other in ("straight_through", "score_function", "reinmax"):
            temperature = 0.5 if other == "straight_through" else None
            assert ours < 0.55 * measured(NORMAL)[other, temperature, function].variance


@circuits
def test_rebar_does_not_beat_the_exact_score(name):
    """At no temperature: a control variate for what need not be drawn."""
    for t, f in itertools.product(estimators.TEMPERATURES, enumeration.FUNCTIONS):
        ours = measured(name)["rebar", t, f].variance
        assert ours > measured(name)["score_pathwise", None, f].variance


@circuits
def test_gumbel_rao_is_straight_through_with_less_noise(name):
    for t, f in itertools.product(estimators.TEMPERATURES, enumeration.FUNCTIONS):
        plain, rao = (
            measured(name)[r, t, f] for r in ("straight_through", "gumbel_rao")
        )
        assert rao.variance < plain.variance
        assert abs(rao.bias - plain.bias) < 3 * plain.error


@circuits
def test_temperature_trades_bias_for_variance(name):
    for relaxation in ("gumbel_softmax", "straight_through", "dense"):
        cold, warm, hot = (
            measured(name)[relaxation, t, "linear"] for t in (0.1, 0.5, 1)
        )
        assert cold.bias < warm.bias < hot.bias
        assert cold.variance > warm.variance > hot.variance


@pytest.mark.parametrize("relaxation", ["simple", "reinmax"])
def test_temperature_is_nothing_to_some(relaxation):
    circuit = pc.build(enumeration.CIRCUITS["quad tree"])

    def total(params, temperature):
        x = circuit.sample_differentiable(
            jax.random.key(0), params, relaxation=relaxation, temperature=temperature
        )
        return jnp.sum(x)

    gradient = jax.jit(jax.grad(total))
    params = enumeration.parameters(circuit)
    cold, hot = (gradient(params, jnp.float32(t)) for t in (0.1, 1.0))
    jax.tree.map(np.testing.assert_array_equal, cold, hot)


@pytest.mark.parametrize("name", ["trees, cp", NORMAL])
def test_the_exact_gradient_is_the_derivative_of_the_enumerated_mean(name):
    """Central differences of the oracle's mean, in float64."""
    circuit = pc.build(enumeration.CIRCUITS[name])
    params = jax.tree.map(np.asarray, enumeration.parameters(circuit))
    exact = enumeration.exact_gradients(name)
    values, volume = enumeration.points(name)
    f = jax.vmap(functools.partial(enumeration.functions, top=enumeration.top_of(name)))
    f = np.asarray(f(jnp.asarray(values, jnp.float32)), np.float64)

    def means(params):
        density = np.exp(cases.oracles.Oracle(circuit, params).log_prob(values))
        np.testing.assert_allclose(density.sum() * volume, 1, rtol=1e-9)
        return volume * density @ f

    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    for number, leaf in enumerate(leaves):
        at = tuple(rng.integers(leaf.shape))
        step = np.zeros(leaf.shape)
        step[at] = 1e-5
        up, down = (
            means(tree.unflatten([a + s * step if i == number else a for i, a in rows]))
            for s in (1, -1)
            for rows in [list(enumerate(leaves))]
        )
        found = jax.tree.leaves(exact)[number][(slice(None), *at)]
        np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-3, atol=2e-6)


def test_a_wrong_gradient_is_seen():
    """Negative control: the gradient at parameters 0.1 off is not within 3 errors."""
    name = "trees, tucker"
    circuit = pc.build(enumeration.CIRCUITS[name])
    params = enumeration.parameters(circuit)
    table = cases.oracles.tabulate(circuit, params)
    x = jnp.asarray(table.values, jnp.float32)
    f = jax.vmap(functools.partial(enumeration.functions, top=1.0))(x)

    def linear(params):
        return jnp.exp(jax.vmap(circuit.log_prob, (None, 0))(params, x)) @ f[:, 0]

    def flat(tree):
        return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])

    gradient = jax.jit(jax.grad(linear))
    exact, other = (
        flat(gradient(params)),
        flat(gradient(cases.randomize(params, 0, 0.1))),
    )
    off = np.linalg.norm(exact - other) / np.linalg.norm(exact)
    assert off > 3 * 3 * measured(name, "simple")["simple", None, "linear"].error


def test_the_document_tells_what_is_measured():
    """Every row of the table in docs/estimators.md, within the same bands."""
    text = (pathlib.Path(__file__).parents[2] / "docs/estimators.md").read_text()
    number = r"(\d+) % \(± ([\d.]+)\) \| ([\d.]+) \| [\d.e+]+"
    row = re.compile(
        r"\| `(\w+)` \| ([\d.]+|none) \| " + r" \| ".join([number] * 3) + r" \|"
    )
    rows = row.findall(text)
    expected = [
        (relaxation, str(temperature or "none"))
        for name in enumeration.CIRCUITS
        for relaxation, temperature in estimators.estimators_of(name)
    ]
    assert [row[:2] for row in rows] == expected
    for relaxation, temperature, *cells in rows:
        t = None if temperature == "none" else float(temperature)
        for i, function in enumerate(enumeration.FUNCTIONS):
            bias, error = float(cells[3 * i]) / 100, float(cells[3 * i + 1]) / 100
            low, high = band(relaxation, t, function)
            # Half a per cent is the rounding of the table.
            assert low - 3 * error - 0.005 <= bias <= high + 3 * error + 0.005
