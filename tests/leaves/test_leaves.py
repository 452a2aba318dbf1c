"""One table of properties for all leaf families; a newcomer inherits every test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dspc_jax as pc
from dspc_jax.leaves.binomial import BinomialParams
from tests import cases
from tests.leaves.families import (
    FAMILIES,
    GRID,
    UNIFORM,
    Family,
    draw,
    jit_draw,
    line,
    log_prob,
)


def _total(leaf, params, uniform):
    """The sum of draws, and the draws."""
    draws = draw(leaf, params, uniform)
    return jnp.sum(draws), draws


_jit_slopes = cases.jit(jax.grad(_total, 1, has_aux=True), static_argnums=0)

each = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@functools.cache
def draws(name):
    """Draws from the uniform grid, ``[K, GRID]``."""
    family = FAMILIES[name]
    return np.asarray(jit_draw(family.leaf, family.params, UNIFORM), np.float64)


@each
def test_total_mass(family):
    total = (np.exp(family.log_prob(family.values)) * family.steps).sum(axis=1)
    # Terms of 255 * 15 nats cancel in the last row of binomial-255: 4 digits are left.
    np.testing.assert_allclose(
        total, 1, rtol=3e-4 if len(family.values) == 256 else 2e-5
    )


@each
def test_log_prob(family):
    result, exact = family.log_prob(family.values), family.oracle(family.values)
    inside = exact > -60  # float32 differences of logistic functions end there
    np.testing.assert_allclose(result[inside], exact[inside], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(result == -np.inf, exact == -np.inf)


@each
def test_outside_the_support(family):
    low, high = family.leaf.support
    outside = []
    if np.isfinite(low):
        outside += [low - 1, -1e9]
    if np.isfinite(high):
        outside += [high + 1, 1e9]
    if family.discrete:
        outside += [low + 0.5, low + 1.75]
    if not outside:
        return
    assert (family.log_prob(outside) == -np.inf).all()


@each
def test_mean_and_mode(family):
    distribution = np.exp(family.oracle(family.values)) * family.steps
    mean = (distribution * family.values).sum(axis=1)
    result, mode, log_prob = cases.jit(
        lambda leaf, params: (
            leaf.mean(leaf.components(params)),
            leaf.mode(params),
            leaf.mode_log_prob(params),
        ),
        static_argnums=0,
    )(family.leaf, family.params)
    np.testing.assert_allclose(result, mean, rtol=1e-4, atol=1e-4)
    at_mode = np.diagonal(family.oracle(mode))
    # No value is better, and the greatest log-probability is said to be what it is.
    np.testing.assert_allclose(at_mode, family.oracle(family.values).max(1), atol=2e-3)
    np.testing.assert_allclose(log_prob, at_mode, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", cases.parameters(FAMILIES, ("gamma-poisson",)))
def test_draws_follow_the_distribution(name):
    """The grid falls into pieces of the right size; one loses at most two points."""
    family = FAMILIES[name]
    if not family.discrete and family.reference is not None:
        exact = family.distribution.ppf(np.float64(UNIFORM)[None])
        np.testing.assert_allclose(draws(name), exact, rtol=2e-5, atol=1e-4)
        return
    if not family.discrete:
        for row, mean, scale in zip(
            draws(name),
            family.params.mean,
            family.leaf.components(family.params)[1],
            strict=True,
        ):
            exact = stats.norm.ppf(UNIFORM, mean, scale)
            np.testing.assert_allclose(row, exact, rtol=1e-5, atol=1e-4)
        return
    distribution = np.exp(family.oracle(family.values))
    for row, probs in zip(draws(name), distribution, strict=True):
        assert (row == row.round()).all()  # in the support, to the last digit
        counts = np.bincount(row.astype(int), minlength=len(probs))
        assert len(counts) == len(probs)
        assert (np.abs(counts - GRID * probs) <= 2.1).all()


@pytest.mark.parametrize(
    "name",
    cases.parameters(
        FAMILIES,
        (
            *(
                "binomial-255",
                "normal",
                "logistic",
                "geometric",
                "own",
                "zero-inflated",
            ),
            *("gamma-poisson", "log-normal", "negative-binomial", "gamma"),
        ),
    ),
)
def test_gradients_of_moments(name):
    """The mean over all noise of the draw's gradient is the gradient of the moments.

    Exact for mean and second moment (hence every quadratic function), except for the
    discretised logistic family, whose draws are clipped and rounded: there the gradient
    of the unrounded draw is biased, by less than 4 % of the largest for the scales here
    (a step or more; far below a step the mean is a staircase, and no slope is right).
    """
    family = FAMILIES[name]
    values, steps = (jnp.float32(a) for a in (family.values, family.steps))
    if name == "forbidden":
        return  # see test_gradients_at_the_ends

    def drawn(params, power):
        draws = draw(family.leaf, params, UNIFORM)
        return jnp.sum(jnp.mean(draws**power, axis=1))

    def exact(params, power):
        log_p = log_prob(family.leaf, params, values)
        return jnp.sum(jnp.exp(log_p) * (values**power * steps)[None])

    def gradients(params):
        return [
            [jax.grad(f)(params, power) for power in (1, 2)] for f in (drawn, exact)
        ]

    result, truth = map(jax.tree.leaves, cases.jit(gradients)(family.params))
    tolerance = 0.04 if name.startswith("logistic") else 2e-3
    for a, b in zip(result, truth, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize("logit", [-1000.0, -100.0, -30.0, 30.0, 100.0, 1000.0])
def test_extreme_coins(logit):
    """A certain coin: right draws, finite gradients, nothing impossible drawn."""
    for leaf in (pc.Bernoulli(), pc.Binomial(255)):
        family = Family(leaf, BinomialParams(line(logit)))
        u = np.array([2.0**-24, 0.3, 0.7, 1 - 2.0**-24], np.float32)
        gradient, values = _jit_slopes(leaf, family.params, u)
        expected = leaf.num_trials * (logit > 0)
        np.testing.assert_array_equal(values, np.full((1, 4), expected))
        assert np.isfinite(gradient.logits).all()
        assert np.diagonal(family.log_prob([expected])) > -1e-6
        assert np.isfinite(family.log_prob(family.values)).all()


def test_gradients_at_the_ends():
    """Forbidden values and one-point distributions: finite, none into the forbidden."""
    family = FAMILIES["forbidden"]

    def total(params):
        return jnp.sum(draw(family.leaf, params, jnp.array([0.2, 0.6])))

    gradient = cases.jit(jax.grad(total))(family.params).logits
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[family.params.logits == -jnp.inf] == 0).all()


@each
def test_from_moments(family):
    """The member with given moments has them, as far as the family can."""
    low, high = family.leaf.support
    if np.isinf(high) and np.isfinite(low):
        mean, std = line(1, 2, 5, 20), line(0.5, 1.5, 3, 8)
    elif np.isfinite(high):
        mean = jnp.linspace(low + 0.25 * (high - low), low + 0.75 * (high - low), 4)
        std = jnp.full(4, 0.12 * (high - low))
    else:
        mean, std = line(-1, 0, 1, 3), line(0.3, 0.5, 1, 1.4)
    made = family._replace(params=family.leaf.from_moments(mean, std))
    distribution = np.exp(made.oracle(made.values)) * made.steps
    result = (distribution * made.values).sum(axis=1)
    # A table of few values and a background of 10 % cannot hit a mean exactly.
    is_table = isinstance(family.leaf, pc.Categorical | pc.Histogram)
    loose = 0.06 * (high - low) if is_table else 0.03
    np.testing.assert_allclose(result, mean, atol=loose, rtol=1e-2)
    if family.two or (
        isinstance(family.leaf, pc.Normal | pc.DiscretizedLogistic)
        and len(distribution[0]) != 12
    ):
        second = (distribution * (made.values - result[:, None]) ** 2).sum(axis=1)
        np.testing.assert_allclose(np.sqrt(second), std, rtol=0.1)


@pytest.mark.parametrize(
    "name", cases.parameters(FAMILIES, ("negative-binomial", "gamma-poisson", "gamma"))
)
def test_blends_stay_in_the_hull(name):
    """A convex combination of leaves draws between the leaves' extreme draws."""
    family = FAMILIES[name]
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.ones(len(jax.tree.leaves(family.params)[0])), 200)
    u = np.float32(rng.random(200))

    @cases.jit
    def blend(params, share):
        components = tuple(
            jnp.einsum("nk,k...->n...", share, c)
            for c in family.leaf.components(params)
        )
        return family.leaf.draw(u, components)

    drawn = np.asarray(blend(family.params, np.float32(share)))
    assert np.isfinite(drawn).all()
    low, high = family.leaf.support
    assert (drawn >= low - 1e-3).all()
    assert (drawn <= high + 1e-3).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.UnitNormal(0.0), "min_scale must be positive.*got 0.0"),
        (lambda: pc.UnitNormal(2.0, 1.0), "min_scale .*max_scale=1.0, got 2.0"),
        (lambda: pc.Normal(1e-24), "min_scale must be at least 1e-15 .*got 1e-24"),
        (lambda: pc.Binomial(0), "num_trials must be at least 1, got 0"),
        (lambda: pc.Binomial(3, "other"), "reparametrization .*got 'other'"),
        (lambda: pc.Categorical(1), "num_values must be at least 2, got 1"),
        (lambda: pc.DiscretizedLogistic(1), "num_values must be at least 2, got 1"),
        (lambda: pc.DiscretizedLogistic(9, 0.0), "min_scale must be pos.*got 0.0"),
        (lambda: pc.Laplace(0.0), "min_scale must be at least 1e-15, got 0.0"),
        (lambda: pc.LogNormal(0.0), "min_scale must be positive, got 0.0"),
        (lambda: pc.Gamma(0.0), "min_dispersion must be from 1e-06 to 1, got 0.0"),
        (lambda: pc.GammaPoisson(2), "min_dispersion .* from 0.001 to 1, got 2.0"),
        (lambda: pc.NegativeBinomial(0), "concentration .* 0.01 to 1000, got 0.0"),
        (lambda: pc.ZeroInflated(pc.Poisson), "leaf must be .*class Poisson"),
        (lambda: pc.ZeroInflated(pc.Laplace()), "leaf must be .*M-step.*Laplace"),
        (
            lambda: pc.ZeroInflated(pc.Histogram((-3, -2, -1))),
            "leaf must have values from 0 on, got those from -3.0 to -1.0",
        ),
        (lambda: pc.Histogram((0, 1)), "edges must be at least 3 ascending .*got"),
        (lambda: pc.Histogram((0, 2, 1)), "edges must be .*got"),
        (lambda: pc.Histogram(3), "edges must be .*got 3"),
        (lambda: pc.Histogram((0, 1, np.inf)), "edges must be .*got"),
    ],
)
def test_impossible_families(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_papers_variance_is_an_ablation_only():
    """The named error has deviation Np(1-p); the likelihood is not touched."""
    right, wrong = pc.Binomial(20), pc.Binomial(20, "variance")
    params = BinomialParams(line(0.3))

    def std(leaf):
        return float(jit_draw(leaf, params, UNIFORM).std())

    p = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(std(right), np.sqrt(20 * p * (1 - p)), rtol=1e-2)
    np.testing.assert_allclose(std(wrong), 20 * p * (1 - p), rtol=0.05)
    np.testing.assert_array_equal(
        Family(right, params).log_prob(range(21)),
        Family(wrong, params).log_prob(range(21)),
    )
