"""Gradients through samples against the exact gradient, by enumeration or on a grid.

Some estimators are unbiased; the others are biased by design. How much is measured for
four circuits in docs/estimators.md: a change that moves an estimator either way is
noticed, and has to be written down there.
All tests are stochastic with fixed keys; bounds are three standard errors wide.
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

NUM_BATCHES = 40  # of 2000 samples: standard errors of 0.3 to 4 %, see `Estimate.error`
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/estimators.md"
ROUNDING = 0.005  # of the document: whole per cents

# What has no bias at all: of every function, of these, or with Normal leaves.
ALWAYS = ("score_function", "implicit")
UNBIASED = {
    # The softmax marginal is the exact mean of a choice, and all else is linear.
    "simple": ("linear",),
    # The leaves' bias, and nothing else: their draws match two moments.
    "score_pathwise": ("linear", "quadratic"),
    "rebar": ("linear", "quadratic"),
}
WITH_NORMAL_LEAVES = ("score_pathwise", "rebar")

NORMAL = "two variables, normal"
# In every run two estimators of a discrete circuit. Of the others, gumbel_softmax and
# dense are biased by design, test_implicit has the derivative of implicit, test_rebar
# and test_relaxation have the means of rebar and of gumbel_rao, test_relaxation and
# tests/objectives/test_score.py the gradients of reinmax and of score_pathwise by
# formula, tests/objectives/test_score_function.py the mean of score_function.
SOME = ("trees, tucker", ("straight_through", "simple"))
every_circuit = [
    pytest.param(name, None, marks=pytest.mark.slow) for name in enumeration.CIRCUITS
]
circuits = pytest.mark.parametrize(("name", "only"), [SOME, *every_circuit])
slow_circuits = pytest.mark.parametrize(("name", "only"), every_circuit)


def is_unbiased(name: str, relaxation: str, function: str) -> bool:
    """Whether theory leaves no bias."""
    normal = name == NORMAL and relaxation in WITH_NORMAL_LEAVES
    return normal or relaxation in ALWAYS or function in UNBIASED.get(relaxation, ())


Figure = tuple[float, float]  # a share of the exact gradient's norm, and its error


def figures(line: str) -> list[Figure]:
    """The biases in a line of a table, one for each function."""
    result = re.findall(r"(\d+) % \(± ([\d.]+)\)", line)
    return [(float(bias) / 100, float(error) / 100) for bias, error in result]


@functools.cache
def documented(name: str) -> dict[tuple[str, float | None, str], Figure]:
    """Biases of all parameters, the table of a circuit."""
    table = DOCUMENT.read_text().split(f"### {name}\n")[1].split("###")[0]
    rows = re.findall(r"\| `(\w+)` \| ([\d.]+|none) (\|.*)", table)
    return {
        (row, None if temperature == "none" else float(temperature), function): figure
        for row, temperature, rest in rows
        for function, figure in zip(enumeration.FUNCTIONS, figures(rest), strict=True)
    }


@functools.cache
def documented_leaves(name: str) -> dict[tuple[str, str], Figure]:
    """Biases of the leaves' parameters alone, at temperature 0.5 or without one."""
    rows = re.findall(rf"\| {name} \| `(\w+)` (\|.*)", DOCUMENT.read_text())
    return {
        (row, function): figure
        for row, rest in rows
        for function, figure in zip(enumeration.FUNCTIONS, figures(rest), strict=True)
    }


def assert_as_documented(bias: float, error: float, figure: Figure) -> None:
    assert abs(bias - figure[0]) < 3 * np.hypot(error, figure[1]) + ROUNDING


@functools.cache
def measured(name, only):
    rows = estimators.measure(name, NUM_BATCHES, only)
    return {row[:-1]: row[-1] for row in rows}


@circuits
def test_biases_are_those_of_the_document(name, only):
    for (relaxation, temperature, function), result in measured(name, only).items():
        where = (relaxation, temperature, function, result)
        figure = documented(name)[relaxation, temperature, function]
        assert_as_documented(result.bias, result.error, figure)
        if is_unbiased(name, relaxation, function):
            assert result.bias < 3 * result.error, where
        # Whatever the bias, it points the right way.
        least = 0.84 if name == NORMAL else 0.92
        assert result.cosine > least - result.error, where
        # The error must leave the bounds their meaning.
        assert result.error < 0.045, where


HARD = (
    *("straight_through", "simple", "gumbel_rao", "reinmax", "score_pathwise"),
    "rebar",
)


@circuits
def test_hard_samples_have_unbiased_leaf_gradients(name, only):
    """Exact up to quadratic functions: draws are matched in their first two moments.

    A Normal draw is reparametrised exactly.
    """
    for (relaxation, temperature, function), result in measured(name, only).items():
        if relaxation in HARD and (function != "kernel" or name == NORMAL):
            assert result.leaf_bias < 3 * result.leaf_error
        if temperature in (0.5, None):
            figure = documented_leaves(name)[relaxation, function]
            assert_as_documented(result.leaf_bias, result.leaf_error, figure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "temperature"), [("straight_through", 0.5), ("score_function", None)]
)
def test_implicit_gradients_have_less_noise(other, temperature):
    """Than any other of the same circuit with as little bias, half of it at most."""
    rows = measured(NORMAL, None)
    for function in enumeration.FUNCTIONS:
        ours = rows["implicit", None, function].variance
        assert ours < 0.55 * rows[other, temperature, function].variance


@slow_circuits
def test_rebar_does_not_beat_the_exact_score(name, only):
    """At no temperature: a control variate for what need not be drawn."""
    rows = measured(name, only)
    for t, f in itertools.product(estimators.TEMPERATURES, enumeration.FUNCTIONS):
        assert rows["rebar", t, f].variance > rows["score_pathwise", None, f].variance


@slow_circuits
def test_gumbel_rao_is_straight_through_with_less_noise(name, only):
    rows = measured(name, only)
    for t, f in itertools.product(estimators.TEMPERATURES, enumeration.FUNCTIONS):
        plain, rao = (rows[r, t, f] for r in ("straight_through", "gumbel_rao"))
        assert rao.variance < plain.variance
        assert abs(rao.bias - plain.bias) < 3 * plain.error


@circuits
def test_temperature_trades_bias_for_variance(name, only):
    rows = measured(name, only)
    for relaxation in {row[0] for row in rows if row[1] and row[0] not in UNBIASED}:
        cold, warm, hot = (rows[relaxation, t, "linear"] for t in (0.1, 0.5, 1))
        assert cold.bias < warm.bias < hot.bias
        assert cold.variance > warm.variance > hot.variance


@pytest.mark.parametrize("name", cases.parameters(["trees, tucker", NORMAL], [NORMAL]))
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
        result = jax.tree.leaves(exact)[number][(slice(None), *at)]
        np.testing.assert_allclose(result, (up - down) / 2e-5, rtol=1e-3, atol=2e-6)


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
    rows = measured(*SOME)
    assert off > 3 * 3 * rows["simple", None, "linear"].error


@pytest.mark.parametrize("name", enumeration.CIRCUITS)
def test_the_document_has_every_row_and_no_bias_where_there_is_none(name):
    rows = documented(name)
    assert list(rows) == [
        (*row, function)
        for row in estimators.estimators_of(name)
        for function in enumeration.FUNCTIONS
    ]
    for (relaxation, _, function), (bias, error) in rows.items():
        if is_unbiased(name, relaxation, function):
            assert bias < 3 * error + ROUNDING
