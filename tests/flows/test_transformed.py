"""A circuit through a flow, against quadrature in the space of values."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dspc_jax as pc
from dspc_jax.evaluation import bits_per_dimension
from dspc_jax.flows.ladder import (
    after_logit,
    color_flow,
    identity_flow,
    multi_scale_flow,
    patch_flow,
)
from tests import cases
from tests.flows.test_ladder import random_params


class Model(NamedTuple):
    """A circuit through a flow, with random parameters."""

    pulled: pc.TransformedCircuit
    params: Any


def circuit_of(flow, num_channels):
    return pc.build(
        pc.CircuitConfig(
            structure=pc.RandomBinaryTrees(
                len(flow.blocks), depth=min(1, len(flow.blocks) - 1)
            ),
            leaf=pc.UnitNormal(max_scale=2.0),
            num_channels=num_channels,
            num_leaves=3,
            num_sums=2,
            num_classes=2,
        )
    )


@functools.cache
def model(flow, num_channels):
    circuit = circuit_of(flow, num_channels)
    params = {
        "circuit": cases.random_params(circuit, seed=4),
        "flow": random_params(flow, num_channels, seed=5),
    }
    return Model(pc.transform(circuit, flow), params)


# Two pixels of two channels: two blocks, each of them coupled inside.
PIXELS = patch_flow(1, 2, 2, patch=1, num_steps=2, num_filters=4)
COLORS = color_flow(1, 2, 2)
BOUNDED = after_logit(identity_flow(1, 2), alpha=0.2)
WHOLE = multi_scale_flow(2, 2, num_steps=1, num_filters=4)

SIDE = 501  # points of a grid's axis
GRID = np.linspace(-25, 25, SIDE)
CELL = (GRID[1] - GRID[0]) ** 2


def grid():
    """The points of a square ``[SIDE**2, 2]``."""
    return np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 2)


@functools.cache
def densities():
    """Of a block alone, and of the other block beside a given one, on the grid.

    Returns:
      The given pixel ``[2]``, its density by the circuit's marginal, the marginal
      density ``[S]`` of the first pixel, and the joint density ``[S]`` with the second.
    """
    pulled, params = model(PIXELS, 2)
    evidence = np.array([0.4, -0.3])
    first = np.stack([grid(), np.full_like(grid(), np.nan)], 1)
    joint = np.stack([np.broadcast_to(evidence, grid().shape), grid()], 1)
    # One program for all: a mask for every example.
    x = jnp.asarray(np.concatenate([first, joint, first[:1]]), jnp.float32)
    x = x.at[-1, 0].set(jnp.asarray(evidence, jnp.float32))
    alone = np.arange(len(x))
    alone = (alone < SIDE**2) | (alone == len(x) - 1)
    observed = jnp.asarray(np.stack([np.ones(len(x), bool), ~alone], 1))
    log_prob = cases.jit(jax.vmap(pulled.log_prob, (None, 0, 0)))(params, x, observed)
    density = np.exp(np.asarray(log_prob, np.float64))
    return evidence, density[-1], density[: SIDE**2], density[SIDE**2 : -1]


def test_total_probability_and_marginals_of_whole_blocks():
    _, at_given, alone, joint = densities()
    np.testing.assert_allclose(alone.sum() * CELL, 1, rtol=5e-3)
    np.testing.assert_allclose(joint.sum() * CELL, at_given, rtol=5e-3)


def test_samples_and_conditional_samples_have_the_right_moments():
    pulled, params = model(PIXELS, 2)
    evidence, _, alone, joint = densities()
    num_samples = 4000
    x0 = jnp.asarray([evidence, [np.nan, np.nan]], jnp.float32)
    observed = jnp.asarray([True, False])

    @cases.jit
    def draw(keys):
        free = jax.vmap(pulled.sample, (0, None))(keys[0], params)
        completed = jax.vmap(pulled.sample, (0, None, None, None))
        return free, completed(keys[1], params, x0, observed)

    keys = cases.fresh_keys(6, 2 * num_samples).reshape(2, num_samples)
    free, completed = draw(keys)
    np.testing.assert_array_equal(completed[:, 0], jnp.broadcast_to(x0[0], (4000, 2)))
    for samples, density in ((free[:, 0], alone), (completed[:, 1], joint)):
        mass = density / density.sum()
        mean = mass @ grid()
        deviation = np.sqrt(mass @ (grid() - mean) ** 2)
        tolerance = 5 * deviation / np.sqrt(num_samples)  # of a mean: 5 sigma
        assert np.all(np.abs(np.mean(samples, 0) - mean) < tolerance)
        # The fraction below the mean of one coordinate, and of both.
        for below in (grid() < mean, np.all(grid() < mean, 1, keepdims=True)):
            share = mass @ below
            if below.shape[1] == 2:
                result = np.mean(np.asarray(samples) < mean, 0)
            else:
                result = np.mean(
                    np.all(np.asarray(samples) < mean, 1, keepdims=True), 0
                )
            # 5 sigma, and a grid cell of mass on the border
            assert np.all(np.abs(result - share) < 2.5 / np.sqrt(num_samples) + 0.05)


def test_a_sample_is_the_inverse_of_the_circuit_s_and_soft_ones_become_it():
    pulled, params = model(PIXELS, 2)

    @cases.jit
    def draw(key):
        z = pulled.circuit.sample(jax.random.clone(key), params["circuit"])
        soft = [
            pulled.sample_differentiable(
                jax.random.clone(key), params, relaxation=name, temperature=1e-4
            )
            for name in ("gumbel_softmax", "straight_through")
        ]
        hard = pulled.sample(jax.random.clone(key), params)
        return pulled.flow.inverse(params["flow"], z[None])[0], hard, *soft

    expected, *others = draw(jax.random.key(7))
    for other in others:
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_samples_reach_the_circuit_and_the_flow():
    pulled, params = model(PIXELS, 2)
    x = jnp.asarray([[0.1, 0.2], [np.nan, np.nan]])
    observed = jnp.asarray([True, False])

    def loss(params, key):
        free, filled = jax.random.split(key)
        draw = pulled.sample_differentiable
        out = draw(filled, params, temperature=0.5, x=x, observed=observed)
        return jnp.sum(draw(free, params, temperature=0.5) ** 2) + jnp.sum(out**2)

    grads = cases.jit(jax.grad(loss))(params, jax.random.key(0))
    for leaf in jax.tree.leaves(grads):
        assert jnp.all(jnp.isfinite(leaf))
    for part in (grads["circuit"], grads["flow"]["params"]["layer"]["layers_0"]):
        for leaf in jax.tree.leaves(part):
            assert jnp.any(leaf != 0)


def gaussian(num_variables, num_channels):
    """A circuit that is a standard normal one, with its parameters."""
    circuit = pc.build(
        pc.CircuitConfig(
            structure=pc.RandomBinaryTrees(num_variables, depth=0),
            leaf=pc.UnitNormal(max_scale=2.0),
            num_channels=num_channels,
            num_leaves=1,
            num_sums=1,
        )
    )
    params = cases.random_params(circuit, seed=0)
    mean = jnp.zeros_like(params.leaves[0].mean)
    leaves = pc.UnitNormal(max_scale=2.0).from_moments(mean, jnp.ones_like(mean))
    return circuit, params._replace(leaves=(leaves,))


def test_bits_per_dimension_of_a_gaussian():
    """Through an affine flow it is a Gaussian; its bits by SciPy, and its mean."""
    flow = color_flow(2, 1, 3)
    circuit, circuit_params = gaussian(2, 3)
    pulled = pc.transform(circuit, flow)
    flow_params = random_params(flow, 3)
    params = {"circuit": circuit_params, "flow": flow_params}
    x = jnp.asarray(np.random.default_rng(8).normal(size=(5, 2, 3)), jnp.float32)
    inner = flow_params["params"]
    scale = np.exp(np.asarray(inner["layers_0"]["log_scale"], np.float64))
    bias = np.asarray(inner["layers_0"]["bias"], np.float64)
    lu = np.asarray(inner["layers_1"]["lu"], np.float64)
    upper = np.triu(lu, 1) + np.diag(np.exp(np.diag(lu)))
    matrix = scale[:, None] * (upper @ (np.tril(lu, -1) + np.eye(3)))  # z = (x + b) M
    inverse = np.linalg.inv(matrix)
    covariance: Any = inverse.T @ inverse
    pixel = stats.multivariate_normal(-bias, covariance)
    expected = pixel.logpdf(np.asarray(x, np.float64)).sum(1)

    def ask(params, x):
        return pulled.log_prob(params, x), pulled.mean(params), pulled.mpe(params)

    log_prob, mean, mode = cases.jit(jax.vmap(ask, (None, 0)))(params, x)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    np.testing.assert_allclose(
        bits_per_dimension(log_prob, 6, bin_width=1 / 256),
        8 - expected.mean() / (6 * np.log(2)),
        rtol=1e-5,
    )
    for point in (mean, mode):
        np.testing.assert_allclose(
            point, np.broadcast_to(-bias, (5, 2, 3)), rtol=1e-4, atol=1e-5
        )


def test_conditional_means_pass_affine_flows():
    """Against the mean of conditional samples, within 5 of its deviations."""
    pulled, params = model(COLORS, 2)
    x = jnp.asarray([[0.3, -0.2], [np.nan, np.nan]], jnp.float32)
    observed = jnp.asarray([True, False])

    @cases.jit
    def ask(keys):
        draw = jax.vmap(pulled.sample, (0, None, None, None))
        return pulled.mean(params, x, observed), draw(keys, params, x, observed)

    mean, samples = ask(cases.fresh_keys(9, 4000))
    np.testing.assert_array_equal(mean[0], x[0])
    error = np.abs(np.mean(samples[:, 1], 0) - mean[1])
    assert np.all(error < 5 * np.std(samples[:, 1], 0) / np.sqrt(4000))


def test_values_in_bounds():
    """Total probability 1 within the bounds; pixel marginals by integration."""
    pulled, params = model(BOUNDED, 1)
    low, high = -1 / 3, 4 / 3
    axis = low + (high - low) * (np.arange(400) + 0.5) / 400
    pairs = np.stack(np.meshgrid([0.25], axis, indexing="ij"), -1).reshape(-1, 2)
    x = np.concatenate([pairs, pairs[:, ::-1], [[0.25, np.nan], [high + 0.1, 0.5]]])
    observed = np.ones(x.shape, bool)
    observed[400:800, 1] = False  # the marginal of the first pixel, along the axis
    observed[800, 1] = False
    log_prob = cases.jit(jax.vmap(pulled.log_prob, (None, 0, 0)))(
        params, jnp.asarray(x, jnp.float32)[..., None], jnp.asarray(observed)
    )
    density = np.exp(np.asarray(log_prob, np.float64))
    cell = (high - low) / 400
    np.testing.assert_allclose(density[400:800].sum() * cell, 1, rtol=1e-3)
    np.testing.assert_allclose(density[:400].sum() * cell, density[800], rtol=1e-3)
    assert log_prob[801] == -np.inf


def test_classes():
    pulled, params = model(WHOLE, 1)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1)), jnp.float32)

    @cases.jit
    def ask(x):
        queries = (pulled.log_prob, pulled.class_log_probs, pulled.class_posterior)
        return tuple(query(params, x) for query in queries)

    log_prob, per_class, posterior = ask(x)
    joint = per_class + jax.nn.log_softmax(params["circuit"].classes)
    np.testing.assert_allclose(jax.nn.logsumexp(joint), log_prob, rtol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(joint), posterior, rtol=1e-4, atol=1e-6)


def test_parameters_start_from_data():
    flow = color_flow(1, 2, 2)
    pulled = pc.transform(circuit_of(flow, 2), flow)
    x = 5 + 0.1 * np.random.default_rng(1).normal(size=(50, 2, 2))
    params = cases.jit(pulled.init)(jax.random.key(0), x)
    assert set(params) == {"circuit", "flow"}
    log_prob = cases.jit(jax.vmap(pulled.log_prob, (None, 0)))
    # A standard normal one has -54; these are few, narrow leaves around examples.
    assert jnp.mean(log_prob(params, jnp.asarray(x, jnp.float32))) > -10


def test_a_batch_is_one_call_of_the_flow():
    visible = []

    def noted(function):
        def call(params, x):
            visible.append(x.shape)
            return function(params, x)

        return call

    flow = COLORS._replace(forward=noted(COLORS.forward), inverse=noted(COLORS.inverse))
    _, params = model(COLORS, 2)
    pulled = pc.transform(circuit_of(flow, 2), flow)
    x = jnp.zeros((5, 2, 2))
    together = jax.jit(jax.vmap(pulled.log_prob, (None, 0))).lower(params, x).as_text()
    assert visible[-1] == (5, 2, 2)
    assert "while" not in together
    jax.jit(jax.vmap(pulled.sample, (0, None))).lower(cases.fresh_keys(0, 7), params)
    assert visible[-1] == (7, 2, 2)


def test_batches_equal_single_examples():
    pulled, params = model(PIXELS, 2)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2, 2)), jnp.float32)
    observed = jnp.asarray([[True, False], [True, True], [False, False]])
    batch = cases.jit(jax.vmap(pulled.log_prob, (None, 0, 0)))(params, x, observed)
    single = cases.jit(pulled.log_prob)
    for i in range(3):
        one = single(params, x[i], observed[i])
        np.testing.assert_allclose(one, batch[i], rtol=1e-5, atol=1e-6)
    assert batch[2] == 0  # of nothing


def test_masks_of_whole_blocks():
    flow = patch_flow(2, 4, patch=2)
    left = np.tile([True, True, False, False], 2)
    np.testing.assert_array_equal(pc.whole_blocks(flow, left), [True, False])
    both = np.stack([left, ~left])
    np.testing.assert_array_equal(
        pc.whole_blocks(flow, both), [[True, False], [False, True]]
    )
    cut = left.copy()
    cut[3] = True
    with pytest.raises(ValueError, match=r"cut a block of patch_flow.*blocks \[1\]"):
        pc.whole_blocks(flow, cut)
    with pytest.raises(ValueError, match=r"V = 8, got bool of shape \(7,\)"):
        pc.whole_blocks(flow, left[:7])


ONE = jnp.ones(1, bool)
TWO = jnp.ones(2, bool)


@pytest.mark.parametrize(
    ("flow", "num_channels", "ask", "message"),
    [
        (WHOLE, 1, lambda p, q, x: p.log_prob(q, x, ONE), "multi_scale_flow, which"),
        (
            WHOLE,
            1,
            lambda p, q, x: p.sample(jax.random.key(0), q, x, ONE),
            "multi_scale_flow, which has lost marginals and conditionals",
        ),
        (WHOLE, 1, lambda p, q, x: p.mpe(q), "affine for mpe .* got multi_scale_flow"),
        (
            PIXELS,
            2,
            lambda p, q, x: p.mean(q, x, TWO),
            "affine for mean .* got patch_flow",
        ),
        (
            BOUNDED,
            1,
            lambda p, q, x: p.mean(q),
            r"affine for mean .* got after_logit\(identity_flow\)",
        ),
        (
            PIXELS,
            2,
            lambda p, q, x: p.log_prob(q, x, jnp.ones(4, bool)),
            r"each of the 2 blocks of patch_flow.*\(4,\)",
        ),
        (PIXELS, 2, lambda p, q, x: p.log_prob(q, x, jnp.ones(2)), "must be bool"),
        (PIXELS, 2, lambda p, q, x: p.log_prob(q, x[None]), r"\[V, C\] = \(2, 2\)"),
        (
            PIXELS,
            2,
            lambda p, q, x: p.sample(jax.random.key(0), q, x),
            "observed must be given with",
        ),
    ],
)
def test_lost_queries_and_wrong_shapes_are_refused(flow, num_channels, ask, message):
    """While tracing, too: nothing is computed here."""
    pulled, params = model(flow, num_channels)
    x = jnp.zeros((len(flow.blocks), num_channels))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: ask(pulled, params, x), x)


def test_circuits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4 variables of multi_scale_flow, got 2"):
        pc.transform(circuit_of(COLORS, 2), WHOLE)
    config = circuit_of(COLORS, 2).config
    discrete = pc.CircuitConfig(config.structure, pc.Bernoulli(), 2)
    with pytest.raises(ValueError, match="leaves with densities, got Bernoulli"):
        pc.transform(pc.build(discrete), COLORS)
