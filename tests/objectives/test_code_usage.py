"""What codes carry: against NumPy, quadrature, and codes that ignore the image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.objectives import (
    active_latents,
    circuit_encoder,
    code_divergences,
    code_spread,
)
from dspc_jax.structure.latents import with_latents
from tests import cases

LATENT = pc.UnitNormal(0.05, 2.0, (0.0, 1.0))
GRID = np.linspace(-12.0, 12.0, 2401)
NUM = 4000  # draws of a code


@functools.cache
def circuit() -> pc.Circuit:
    """Two pixels and one latent."""
    return pc.build(
        pc.CircuitConfig(
            with_latents(pc.RandomBinaryTrees(2, 0), 1),
            (pc.UnitNormal(),) * 2 + (LATENT,),
        )
    )


@functools.cache
def divergences_of_draws():
    """``(params, keys, x)``: estimates from draws of one image's code."""

    def of_one(params, key, x):
        z = circuit().sample(
            key, params, x=jnp.pad(x, ((0, 1), (0, 0))), observed=jnp.arange(3) < 2
        )[2:]
        return code_divergences(circuit(), params, x, z)

    return cases.jit(jax.vmap(of_one, (None, 0, None)))


def ignoring(params, mean: float = 0.5, scale: float = 0.8):
    """The same parameters, every leaf of the latent alike."""
    leaves = list(params.leaves)
    rows = pc.parameter_rows(circuit()).leaves
    for (_, variable), (number, row, place) in rows.items():
        if variable == 2:
            block, leaf = circuit().layout.blocks[number], leaves[number]
            alike = jnp.full_like(leaf.mean, mean)
            alike = block.leaf.from_moments(alike, jnp.full_like(alike, scale))
            leaves[number] = jax.tree.map(
                lambda old, new, at=(row, slice(None), place): old.at[at].set(new[at]),
                leaf,
                alike,
            )
    return params._replace(leaves=tuple(leaves))


def test_spread_and_active_latents_against_numpy():
    means = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    means[:, 1] *= 0.05  # a variance of 0.0025: below Burda's hundredth
    means[:, 2] = 4.0
    variances = np.array([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]], np.float32)
    spread = code_spread(jnp.asarray(means), jnp.asarray(variances))
    between = np.var(means.astype(np.float64), axis=0, ddof=1)[:2]
    expected = between / (between + variances[:2])
    np.testing.assert_allclose(spread[:2], expected, rtol=1e-5)
    np.testing.assert_array_equal(spread[2], [0.0, 0.0])
    assert spread[0, 1] == 1
    assert float(active_latents(spread)) == (expected > 0.01).sum() == 2
    assert active_latents(spread, least=0.9) == 1


def test_divergences_against_quadrature():
    """KL of p(z | x) from N(0, 1) and from p(z) on a grid; 5 deviations of a mean."""
    params = cases.random_params(circuit(), seed=2)
    x = jnp.array([[0.3], [0.8]])
    points = jnp.concatenate(
        [jnp.broadcast_to(x, (len(GRID), 2, 1)), jnp.float32(GRID)[:, None, None]], 1
    )
    step = GRID[1] - GRID[0]

    log_prob = cases.jit(jax.vmap(circuit().log_prob, (None, 0, 0)))

    def normalized(seen):
        observed = jnp.broadcast_to(jnp.array(seen), (len(GRID), 3))
        log_p = log_prob(params, points, observed)
        log_p = np.asarray(log_p, np.float64)
        return log_p - special.logsumexp(log_p) - np.log(step)

    conditional, own = normalized([True] * 3), normalized([False, False, True])
    result = divergences_of_draws()(params, cases.fresh_keys(5, NUM), x)
    for estimates, prior in zip(result, (stats.norm.logpdf(GRID), own), strict=True):
        exact = (np.exp(conditional) * (conditional - prior)).sum() * step
        assert exact > 0.01
        error = np.mean(estimates) - exact
        assert abs(error) < 5 * np.std(estimates) / np.sqrt(NUM), (error, exact)


def test_a_code_that_ignores_the_image_carries_nothing():
    params = cases.random_params(circuit(), seed=2)
    x = jnp.asarray(np.random.default_rng(3).uniform(size=(9, 2, 1)), jnp.float32)
    encode = jax.vmap(circuit_encoder(circuit(), "mean"), (None, 0, 0, None))
    encode = cases.jit(encode)
    one = jnp.ones((1, 1))
    healthy = code_spread(encode(params, cases.fresh_keys(1, 9), x, None), one)
    assert active_latents(healthy) == 1
    deaf = ignoring(params)
    spread = code_spread(encode(deaf, cases.fresh_keys(0, 9), x, None), one)
    np.testing.assert_allclose(spread, 0, atol=1e-10)
    assert active_latents(spread) == 0
    normal, own = divergences_of_draws()(deaf, cases.fresh_keys(6, NUM), x[0])
    np.testing.assert_allclose(own, 0, atol=2e-5)
    exact = 0.5 * (0.5**2 + 0.8**2 - 1) - np.log(0.8)  # KL(N(0.5, 0.8) || N(0, 1))
    assert abs(np.mean(normal) - exact) < 5 * np.std(normal) / np.sqrt(NUM)


@pytest.mark.parametrize(
    ("shape", "variances", "message"),
    [
        ((1, 3, 1), (3, 1), "means must be those of at least two images"),
        ((4, 3, 1), (3,), "variances must have the shape"),
    ],
)
def test_what_is_refused(shape, variances, message):
    with pytest.raises(ValueError, match=message):
        code_spread(jnp.zeros(shape), jnp.ones(variances))
