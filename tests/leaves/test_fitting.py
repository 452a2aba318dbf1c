"""M-steps, distribution functions and files: the rest of the table of all families."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import registry
from dspc_jax.layers import input_layer
from dspc_jax.leaves import ContinuousLeaf, FittableLeaf
from tests import cases
from tests.leaves.families import FAMILIES, UNIFORM, draw, jit_draw, log_prob

FITTABLE = [n for n, f in FAMILIES.items() if isinstance(f.leaf, FittableLeaf)]
CONTINUOUS = [n for n, f in FAMILIES.items() if isinstance(f.leaf, ContinuousLeaf)]
COARSE = UNIFORM[::64]

# Slow, by name only: another family has the same parts, or the parts have tests of
# their own.
SEEN = [
    n for n in FITTABLE if n not in ("poisson", "log-normal", "zero-inflated", "own")
]
DEEP = ("gamma",)
LONG = [n for n in FAMILIES if n not in ("log-normal", "own")]


def m_step(leaf, params, x):
    """Parameters ``[K, ...]`` after a step of EM of every leaf on values ``[N]``."""
    (block,) = input_layer.make_blocks(np.zeros((1, 1), int), (leaf,))
    params = jax.tree.map(lambda p: p[None, :, None, None], params)
    natural = leaf.natural(params)

    def total(natural):
        return jnp.sum(input_layer.log_prob(block, natural, x[None, None], None))

    statistics, mass = leaf.counts(natural, jax.grad(total)(natural))
    means = tuple(
        s / mass.reshape(*mass.shape, *[1] * (s.ndim - mass.ndim)) for s in statistics
    )
    return jax.tree.map(lambda p: p[0, :, 0, 0], leaf.from_statistics(means, params))


@pytest.mark.parametrize("name", cases.parameters(FITTABLE, SEEN))
def test_the_m_step_finds_a_maximum(name):
    """No step makes the likelihood less; the last has no gradient but at a border."""
    family = FAMILIES[name]
    x = jnp.asarray(jit_draw(family.leaf, family.params, COARSE)[1])

    @cases.jit
    def fitted(params):
        def total(params):
            each = jnp.mean(log_prob(family.leaf, params, x), axis=1)
            return jnp.sum(each), each

        def step(params, _):
            new = m_step(family.leaf, params, x)
            return new, total(params)[1]

        params, likelihoods = jax.lax.scan(step, params, length=30)
        again = family.leaf.from_statistics(
            family.leaf.expected_statistics(params), params
        )
        gradient, last = jax.grad(total, has_aux=True)(params)
        return [*likelihoods, last], gradient, total(again)[1]

    likelihoods, gradient, again = fitted(family.params)
    for before, after in zip(likelihoods[:-1], likelihoods[1:], strict=True):
        assert (after >= before - 1e-4 * np.maximum(1, np.abs(after))).all()
    np.testing.assert_allclose(again, likelihoods[-1], rtol=1e-4, atol=1e-4)
    if family.latent:
        assert (likelihoods[-1] - likelihoods[0]).max() > 1
        return
    for slope in jax.tree.leaves(gradient):
        np.testing.assert_allclose(slope, 0, atol=2e-3)


@pytest.mark.parametrize("name", cases.parameters(CONTINUOUS, DEEP))
def test_distribution_functions(name):
    """Of both tails, to the last digits; their slopes are those of the draws."""
    family = FAMILIES[name]
    x = np.asarray(jit_draw(family.leaf, family.params, COARSE))
    each = jax.tree.map(lambda p: p[:, None], family.params)

    @cases.jit
    def functions(x):
        def share(x):
            return jnp.sum(jnp.exp(family.leaf.log_tails(each, x)[0]))

        density = family.leaf.log_density(each, x)
        return density, family.leaf.log_tails(each, x), jax.grad(share)(x)

    density, tails, slope = functions(x)
    expected = np.array(
        [family.log_prob(row)[k] for k, row in enumerate(x)], np.float32
    )
    np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slope, np.exp(density), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(
        np.exp(tails[0]), COARSE[None] + 0 * x, rtol=1e-3, atol=2e-6
    )
    np.testing.assert_allclose(
        np.exp(tails[1]), 1 - COARSE[None] + 0 * x, rtol=1e-3, atol=2e-6
    )


@pytest.mark.parametrize("name", cases.parameters(FAMILIES, LONG))
def test_forward_mode(name):
    """Slopes of densities and draws along a line, forward and in reverse."""
    family = FAMILIES[name]
    x = jnp.asarray(jit_draw(family.leaf, family.params, COARSE[:4])[0])
    along = jax.tree.map(
        lambda p: jnp.where(jnp.isfinite(p), jnp.cos(p), 0.0), family.params
    )

    @cases.jit
    def both():
        def total(params):
            log_p = log_prob(family.leaf, params, x)
            log_p = jnp.where(jnp.isfinite(log_p), log_p, 0.0)
            return jnp.sum(log_p), jnp.sum(draw(family.leaf, params, COARSE))

        slopes = jax.jvp(total, (family.params,), (along,))[1]
        rows = jax.jacrev(total)(family.params)
        products = [
            sum(map(jnp.vdot, *map(jax.tree.leaves, (row, along)))) for row in rows
        ]
        return slopes, tuple(products)

    forward, reverse = both()
    np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-4)
    assert np.isfinite(forward).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_configurations_come_back(name):
    leaf = FAMILIES[name].leaf
    stored = json.loads(json.dumps(registry.to_json(leaf)))
    assert registry.from_json(stored) == leaf
    assert hash(registry.from_json(stored)) == hash(leaf)
    assert dataclasses.replace(leaf) == leaf
    own = type(leaf).__module__.startswith("dspc_jax.")
    assert (getattr(pc, type(leaf).__name__, None) is type(leaf)) == own
