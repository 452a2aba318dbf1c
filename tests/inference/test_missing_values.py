"""NaN is harmless where it is not observed, and visible in its own row where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import objectives
from dspc_jax.flows import ladder
from tests import cases

FAMILIES = (pc.Normal(), pc.Binomial(3), pc.Categorical(4), pc.DiscretizedLogistic(4))
V = len(FAMILIES)
BAD = np.arange(V)
"""Row v has a bad value of the family v; the last row has none."""


def model(leaf=FAMILIES):
    structure = pc.RandomBinaryTrees(V, 1, 2)
    circuit = pc.build(pc.CircuitConfig(structure, leaf, 1, 2, 2, 2))
    return circuit, circuit.init(jax.random.key(0))


def data(bad=None):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (V + 1, V, 1)).astype(np.float32)
    if bad is not None:
        x[BAD, BAD] = bad
    return jnp.asarray(x)


def has_nan(tree):
    return any(bool(jnp.isnan(leaf).any()) for leaf in jax.tree.leaves(tree))


def answers(circuit, params, x, observed):
    """What every query says of every row."""

    def each(x, observed):
        key = jax.random.key(1)
        return (
            circuit.log_prob(params, x, observed),
            circuit.class_log_probs(params, x, observed),
            circuit.class_posterior(params, x, observed),
            circuit.mean(params, x, observed),
            circuit.mpe(params, x, observed),
            circuit.sample(jax.random.clone(key), params, x, observed),
            circuit.sample_differentiable(key, params, x=x, observed=observed),
        )

    return cases.jit(jax.vmap(each))(x, observed)


def test_an_observed_nan_is_seen_in_its_row_alone():
    circuit, params = model()
    observed = jnp.ones((V + 1, V), bool).at[BAD, BAD - 1].set(False)
    wanted = answers(circuit, params, data(), observed)
    got = answers(circuit, params, data(np.nan), observed)
    for clean, broken in zip(wanted, got, strict=True):
        assert jnp.isnan(broken[BAD]).all()
        assert not jnp.isnan(clean).any()
        np.testing.assert_array_equal(broken[-1], clean[-1])


def test_a_nan_that_is_not_observed_changes_nothing():
    circuit, params = model()
    observed = jnp.ones((V + 1, V), bool).at[BAD, BAD].set(False)

    def loss(params, x):
        return jax.vmap(circuit.log_prob, (None, 0, 0))(params, x, observed).sum()

    gradient = cases.jit(jax.grad(loss, (0, 1)))
    gradients = [gradient(params, data(bad)) for bad in (np.nan, 0.0)]
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    filled = [answers(circuit, params, data(bad), observed) for bad in (np.nan, 0.0)]
    jax.tree.map(np.testing.assert_array_equal, *filled)


def test_counts_do_not_see_what_is_not_observed():
    circuit, params = model(pc.Normal())
    observed = jnp.ones((V + 1, V), bool).at[BAD, BAD].set(False)
    counts = [
        pc.expected_counts(circuit, params, data(bad), observed)
        for bad in (np.nan, 0.0)
    ]
    jax.tree.map(np.testing.assert_array_equal, *counts)


def test_a_value_out_of_reach_is_impossible_and_moves_nothing():
    circuit, params = model()
    gradients = cases.jit(
        jax.vmap(jax.value_and_grad(circuit.log_prob, (0, 1)), (None, 0))
    )
    for fill in (1e30, -1e30, np.inf, -np.inf):
        log_p, both = gradients(params, data(fill))
        assert jnp.isneginf(log_p[BAD]).all()
        assert jnp.isfinite(log_p[-1])
        for gradient in jax.tree.leaves(both):
            np.testing.assert_array_equal(gradient[BAD], 0)


def test_starts_and_counts_refuse_it_and_name_row_and_variable():
    circuit, params = model(pc.Normal())
    x = data(np.nan)
    with pytest.raises(ValueError, match="^data must not be NaN .* row 0, variable 0 "):
        circuit.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="^x must not be NaN .* row 0, variable 0 "):
        pc.expected_counts(circuit, params, x)
    traced = cases.jit(lambda x: pc.expected_counts(circuit, params, x))(x)
    assert has_nan(traced)


def test_it_is_seen_behind_a_flow():
    flow = ladder.after_logit(ladder.identity_flow(2, 2))
    circuit = pc.transform(model(pc.Normal())[0], flow)
    params = circuit.init(jax.random.key(0), data() / 4)
    with pytest.raises(ValueError, match="row 0, variable 0 "):
        circuit.init(jax.random.key(0), data(np.nan))
    log_p = jax.vmap(circuit.log_prob, (None, 0))(params, data(np.nan) / 4)
    np.testing.assert_array_equal(jnp.isnan(log_p), [*[True] * V, False])


def test_parameters_that_are_nan_are_not_taken_for_impossible_ones():
    circuit, params = model(pc.Categorical(4))
    for broken in (
        params._replace(classes=params.classes.at[0].set(jnp.nan)),
        params._replace(leaves=jax.tree.map(lambda a: a * jnp.nan, params.leaves)),
        params._replace(sums=jax.tree.map(lambda a: a * jnp.nan, params.sums)),
    ):
        assert jnp.isnan(circuit.log_prob(broken, data()[0]))


def test_distances_carry_it():
    assert has_nan(objectives.median_bandwidths(data(np.nan)))
    assert jnp.isnan(objectives.safe_sqrt(jnp.array(jnp.nan)))
    kernel = objectives.gaussian_kernel([1.0])
    assert jnp.isnan(objectives.mmd2_biased(data(np.nan), data(), kernel))


def test_no_examples_have_no_likelihoods():
    circuit, params = model()
    assert jax.vmap(circuit.log_prob, (None, 0))(params, data()[:0]).shape == (0,)
