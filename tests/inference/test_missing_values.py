"""NaN is harmless where it is not observed, and visible in its own row where it is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dspc_jax as pc
from dspc_jax import objectives
from dspc_jax.flows import ladder
from dspc_jax.ops import missing
from tests import cases

FAMILIES = (pc.Normal(), pc.Binomial(3), pc.Categorical(4), pc.DiscretizedLogistic(4))
V = len(FAMILIES)
BAD = np.arange(V)
"""Row v has a bad value of the family v; the last row has none."""


@functools.cache
def model(leaf=FAMILIES):
    structure = pc.RandomBinaryTrees(V, 1, 2)
    circuit = pc.build(pc.CircuitConfig(structure, leaf, 1, 2, 2, 2))
    return circuit, cases.jit(circuit.init)(jax.random.key(0))


def data(bad=None):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (V + 1, V, 1)).astype(np.float32)
    if bad is not None:
        x[BAD, BAD] = bad
    return x


def all_but(places):
    """What is observed, where in row v one variable of these is not."""
    observed = np.ones((V + 1, V), bool)
    observed[BAD, places] = False
    return observed


def has_nan(tree):
    return any(np.isnan(leaf).any() for leaf in jax.tree.leaves(tree))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5), a, b)


@functools.partial(cases.jit, static_argnums=0)
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

    return jax.vmap(each)(x, observed)


def test_an_observed_nan_is_seen_in_its_row_alone():
    circuit, params = model()
    observed = all_but(BAD - 1)
    wanted = answers(circuit, params, data(), observed)
    got = answers(circuit, params, data(np.nan), observed)
    for clean, broken in zip(wanted, got, strict=True):
        assert np.isnan(broken)[BAD].all()
        assert not np.isnan(clean).any()
        np.testing.assert_array_equal(np.asarray(broken)[-1], np.asarray(clean)[-1])


def test_a_nan_that_is_not_observed_changes_nothing():
    circuit, params = model()
    observed = all_but(BAD)

    def loss(params, x):
        return jax.vmap(circuit.log_prob, (None, 0, 0))(params, x, observed).sum()

    gradient = cases.jit(jax.grad(loss, (0, 1)))
    gradients = [gradient(params, data(bad)) for bad in (np.nan, 0.0)]
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    filled = [answers(circuit, params, data(bad), observed) for bad in (np.nan, 0.0)]
    jax.tree.map(np.testing.assert_array_equal, *filled)


def test_counts_do_not_see_what_is_not_observed():
    circuit, params = model(pc.Normal())
    observed = all_but(BAD)
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
        assert np.isneginf(log_p)[BAD].all()
        assert np.isfinite(log_p)[-1]
        for gradient in jax.tree.leaves(both):
            np.testing.assert_array_equal(np.asarray(gradient)[BAD], 0)


def test_starts_and_counts_refuse_it_and_name_row_and_variable():
    circuit, params = model(pc.Normal())
    x = data(np.nan)
    with pytest.raises(ValueError, match="^data must not be NaN .* row 0, variable 0 "):
        circuit.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="^x must not be NaN .* row 0, variable 0 "):
        pc.expected_counts(circuit, params, x)
    traced = cases.jit(lambda x: pc.expected_counts(circuit, params, x))(x)
    assert has_nan(traced)


@pytest.mark.parametrize(
    "leaf", [pc.Normal(), pc.Binomial(3), pc.Categorical(4)], ids=lambda leaf: str(leaf)
)
def test_parameters_are_not_kept_where_counts_are_nan(leaf):
    """One traced NaN is in every count of a batch; so it is in every parameter."""
    circuit, params = model(leaf)
    optimizer = pc.em(circuit)

    @cases.jit
    def step(params, x):
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = optimizer.update(counts, optimizer.init(params), params)
        return jax.tree.map(jnp.add, params, change)

    assert not has_nan(step(params, data()))
    broken = data()
    broken[0, 0] = np.nan
    new = step(params, broken)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(new))


def test_starts_do_not_see_what_is_not_observed():
    """The last variable has no values at all."""
    circuit, _ = model()
    x, observed = data(), np.ones((V + 1, V), bool)
    observed[BAD, BAD] = False
    observed[:, -1] = False
    broken = jnp.where(observed[..., None], x, jnp.nan)
    start = cases.jit(circuit.init)
    wanted = start(jax.random.key(0), x, observed)
    assert not has_nan(wanted)
    assert_same(start(jax.random.key(0), broken, observed), wanted)
    # Without a jit, and with random leaves where nothing is known.
    assert_close(circuit.init(jax.random.key(0), broken, observed), wanted)
    everything = np.ones_like(observed)
    assert_same(
        start(jax.random.key(0), x, everything),
        cases.jit(circuit.init)(jax.random.key(0), x),
    )


def test_leaves_start_at_what_is_observed_of_their_variable():
    rng = np.random.default_rng(0)
    family = pc.Normal()
    config = pc.CircuitConfig(pc.RandomBinaryTrees(3, 1, 2), family, 2, 40, 2)
    circuit = pc.build(config)
    x = rng.normal(size=(30, 3, 2)) + np.arange(3)[:, None] * 100
    observed = rng.random((30, 3)) < [0.9, 0.2, 0.0]
    x[~observed] = np.nan
    params = circuit.init(jax.random.key(0), x, observed, spread=1.0)
    rows = pc.parameter_rows(circuit).leaves
    for (_, variable), (i, row, place) in rows.items():
        leaf = jax.tree.map(
            lambda a, at=(row, place): a[at[0], :, at[1]], params.leaves[i]
        )
        known = x[observed[:, variable], variable].astype(np.float32)
        if not len(known):
            assert np.abs(leaf.mean).max() < 6  # at random, as without data
            continue
        # Both channels of one example, of nearly all examples that there are.
        pairs = {tuple(pair) for pair in np.asarray(leaf.mean).tolist()}
        assert pairs <= {tuple(pair) for pair in known.tolist()}
        assert len(pairs) > min(len(known), 10) / 2
        _, scale = family.components(leaf)
        wanted = np.broadcast_to(known.std(0), scale.shape)
        np.testing.assert_allclose(scale, wanted, rtol=1e-4)


def test_every_observed_row_stands_in_alike():
    observed = np.random.default_rng(0).random((11, 2)) < 0.5
    rows = np.tile(np.arange(11), 3000)[:, None]
    result = np.asarray(
        missing.observed_rows(
            jax.random.key(0), jnp.asarray(observed), rows, np.arange(2)[None]
        )
    )
    for column in range(2):
        there, got = observed[:, column], result[:, column]
        kept = there[rows[:, 0]]
        np.testing.assert_array_equal(got[kept], rows[kept, 0])
        counts = np.bincount(got[~kept], minlength=11)
        assert (counts[~there] == 0).all()
        assert stats.chisquare(counts[there]).pvalue > 1e-3


@pytest.mark.parametrize(
    "observed", [np.ones((V + 1, V)), np.ones((V, V), bool), np.ones(V, bool)]
)
def test_other_masks_of_data_are_refused(observed):
    circuit, _ = model(pc.Normal())
    with pytest.raises(ValueError, match="observed must be bool of shape"):
        circuit.init(jax.random.key(0), data(), observed)
    with pytest.raises(ValueError, match="data must be given with observed"):
        circuit.init(jax.random.key(0), observed=observed)


def test_starts_behind_a_flow_see_whole_blocks():
    """Statistics of the flow are those of observed pixels, leaves those of features."""
    flow = ladder.color_flow(2, 2, 1)
    circuit = pc.transform(model(pc.Normal())[0], flow)
    rng = np.random.default_rng(1)
    x = rng.normal(5.0, 2.0, (400, V, 1))
    observed = rng.random((400, V)) < 0.6
    observed[:, 3] = False
    start = cases.jit(circuit.init)
    params = start(jax.random.key(0), x, observed)
    assert_same(
        start(jax.random.key(0), np.where(observed[..., None], x, np.nan), observed),
        params,
    )
    features, _ = cases.jit(flow.forward)(params["flow"], x.astype(np.float32))
    known = np.asarray(features)[observed]
    np.testing.assert_allclose([known.mean(), known.std()], [0, 1], atol=0.2)
    with pytest.raises(ValueError, match="data must not be NaN .* row 2, variable 1 "):
        circuit.init(
            jax.random.key(0),
            np.where(np.arange(1600).reshape(x.shape) == 9, np.nan, x),
            np.ones_like(observed),
        )
    with pytest.raises(ValueError, match=r"observed must be bool of shape \(400, 4\)"):
        circuit.init(jax.random.key(0), x, observed[0])
    one_block = pc.transform(circuit.circuit, ladder.multi_scale_flow(2, 2))
    with pytest.raises(ValueError, match="observed must be None behind"):
        one_block.init(jax.random.key(0), x, observed)


def test_it_is_seen_behind_a_flow():
    flow = ladder.after_logit(ladder.identity_flow(2, 2))
    circuit = pc.transform(model(pc.Normal())[0], flow)
    params = cases.jit(circuit.init)(jax.random.key(0), data() / 4)
    with pytest.raises(ValueError, match="row 0, variable 0 "):
        circuit.init(jax.random.key(0), data(np.nan))
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    log_p = log_prob(params, data(np.nan) / 4)
    np.testing.assert_array_equal(np.isnan(log_p), [*[True] * V, False])


def test_parameters_that_are_nan_are_not_taken_for_impossible_ones():
    circuit, params = model(pc.Categorical(4))

    def nan_like(array):
        return np.full(array.shape, np.nan, np.float32)

    log_prob = cases.jit(circuit.log_prob)
    for broken in (
        params._replace(classes=np.array([np.nan, 0], np.float32)),
        params._replace(leaves=jax.tree.map(nan_like, params.leaves)),
        params._replace(sums=jax.tree.map(nan_like, params.sums)),
    ):
        assert np.isnan(log_prob(broken, data()[0]))


def test_distances_carry_it():
    @cases.jit
    def distances(x, y):
        return (
            objectives.median_bandwidths(x),
            objectives.safe_sqrt(x[0, 0]),
            objectives.mmd2_biased(x, y, objectives.gaussian_kernel([1.0])),
        )

    for distance in distances(data(np.nan), data()):
        assert np.isnan(distance).any()


def test_no_examples_have_no_likelihoods():
    circuit, params = model()
    assert jax.vmap(circuit.log_prob, (None, 0))(params, data()[:0]).shape == (0,)
