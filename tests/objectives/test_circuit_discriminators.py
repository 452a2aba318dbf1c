"""Circuits as discriminators: logits against SciPy, gradients in values and weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.objectives import (
    class_discriminator,
    density_ratio_discriminator,
    discriminator_loss,
    generator_loss,
)
from tests import cases


@functools.cache
def circuit(num_classes: int = 1) -> pc.Circuit:
    """Two variables under one product: mixtures of products of normals."""
    structure = pc.RandomBinaryTrees(num_variables=2, depth=1, num_repetitions=1)
    return pc.build(
        pc.CircuitConfig(
            structure=structure,
            leaf=pc.UnitNormal(min_scale=0.05, max_scale=2.0),
            num_leaves=3,
            num_sums=3,
            num_classes=num_classes,
        )
    )


def start(seed: int, num_classes: int = 1):
    """First parameters of the circuit."""
    return initial(circuit(num_classes))(jax.random.key(seed))


@functools.cache
def initial(circuit: pc.Circuit):
    return cases.jit(circuit.init)


def class_logits(num_classes: int):
    discriminator = class_discriminator(
        circuit(num_classes).class_log_probs, circuit(num_classes).init
    )
    return discriminator, start(0, num_classes)


def test_the_logit_of_two_classes_is_their_posterior_s():
    """At equal prior weights ``sigmoid(logit)`` is p(data | x)."""
    discriminator, params = class_logits(2)
    x = jax.random.normal(jax.random.key(1), (6, 2, 1))

    @cases.jit
    def all_three(params, x):
        return (
            jax.vmap(circuit(2).class_posterior, (None, 0))(params, x),
            discriminator.logits(params, x),
            discriminator.train_logits(jax.random.key(2), params, x),
        )

    posterior, logits, train_logits = map(np.asarray, all_three(params, x))
    np.testing.assert_allclose(special.expit(logits), posterior[:, 1], rtol=1e-4)
    np.testing.assert_array_equal(train_logits, logits)


def test_a_circuit_with_another_number_of_classes_is_refused():
    discriminator, params = class_logits(3)
    with pytest.raises(ValueError, match="a circuit with 2 classes, got 3"):
        discriminator.logits(params, jnp.zeros((4, 2, 1)))


def test_the_own_density_is_no_judge_of_itself_until_it_moves():
    params, other = start(0), start(2)
    judge = density_ratio_discriminator(circuit().log_prob, params, circuit().init)
    x = jax.random.normal(jax.random.key(1), (7, 2, 1))
    logits, log_prob = cases.jit(judge.logits), cases.jit(circuit().log_prob)
    # To the bit: not compiled, for XLA fuses the two halves in two ways.
    np.testing.assert_array_equal(judge.logits(params, x), 0)
    expected = [float(log_prob(other, z)) - float(log_prob(params, z)) for z in x]
    np.testing.assert_allclose(logits(other, x), expected, rtol=1e-4, atol=1e-5)


def test_the_frozen_half_gets_no_gradient():
    theta, phi = start(0), start(2)
    x = jax.random.normal(jax.random.key(1), (7, 2, 1))

    def total(theta, phi):
        judge = density_ratio_discriminator(circuit().log_prob, theta, circuit().init)
        return jnp.sum(judge.logits(phi, x))

    gradients = cases.jit(jax.grad(total, argnums=(0, 1)))(theta, phi)
    frozen, trained = jax.tree.map(np.asarray, gradients)
    assert all(np.all(g == 0) for g in jax.tree.leaves(frozen))
    assert any(np.any(g != 0) for g in jax.tree.leaves(trained))


def gaussian_log_prob(params, x):
    """One normal variable: ``params`` are its mean and the log of its deviation."""
    mean, log_scale = params
    z = (x[0, 0] - mean) * jnp.exp(-log_scale)
    return -0.5 * z**2 - log_scale - 0.5 * jnp.log(2 * jnp.pi)


def gaussian_sample(keys, params):
    mean, log_scale = params
    draws = jax.vmap(lambda key: jax.random.normal(key, (1, 1)))(keys)
    return mean + jnp.exp(log_scale) * draws


@pytest.mark.slow
def test_the_hinge_of_the_own_density_is_the_reverse_divergence():
    """``KL(N(m, s) || N(0, 1)) = (s^2 + m^2 - 1) / 2 - log s``, and its gradient."""
    theta = (jnp.float32(0.7), jnp.float32(-0.4))
    phi = (jnp.float32(0.0), jnp.float32(0.0))
    judge = density_ratio_discriminator(gaussian_log_prob, theta, lambda key: phi)
    num = 200_000
    gradient, _ = jax.grad(generator_loss, has_aux=True)(
        theta,
        jax.random.key(0),
        jnp.zeros((num, 1, 1)),
        discriminator_params=phi,
        sample=gaussian_sample,
        discriminator=judge,
        loss="hinge",
    )
    scale = np.exp(-0.4)
    np.testing.assert_allclose(gradient, [0.7, scale**2 - 1], atol=0.01)


@pytest.mark.slow
@pytest.mark.optax
def test_the_ahead_copy_learns_the_density_of_the_data():
    """Noise-contrastive estimation: samples of N(0, 1), data of N(1, 0.6)."""
    theta = (jnp.float32(0.0), jnp.float32(0.0))
    judge = density_ratio_discriminator(gaussian_log_prob, theta, lambda key: theta)
    optimizer = optax.adam(0.01)

    def step(carry, key):
        phi, state = carry
        data_key, loss_key = jax.random.split(key)
        batch = 1 + 0.6 * jax.random.normal(data_key, (256, 1, 1))
        grads, _ = jax.grad(discriminator_loss, has_aux=True)(
            phi,
            loss_key,
            batch,
            params=theta,
            sample=gaussian_sample,
            discriminator=judge,
        )
        updates, state = optimizer.update(grads, state)
        phi = jax.tree.map(jnp.add, phi, updates)
        return (phi, state), jnp.stack(phi)

    keys = jax.random.split(jax.random.key(0), 600)
    _, path = jax.jit(lambda c: jax.lax.scan(step, c, keys))(
        (theta, optimizer.init(theta))
    )
    mean, log_scale = np.mean(np.asarray(path[-200:]), axis=0)
    np.testing.assert_allclose([mean, np.exp(log_scale)], [1.0, 0.6], atol=0.08)


@pytest.mark.parametrize("kind", ["class", pytest.param("own", marks=pytest.mark.slow)])
def test_penalties_reach_the_weights_of_a_circuit(kind):
    """A second derivative, through values and then weights, by finite differences."""
    if kind == "class":
        discriminator, params = class_logits(2)
    else:
        params = start(0)
        discriminator = density_ratio_discriminator(
            circuit().log_prob, start(5), circuit().init
        )
    x = jnp.asarray(cases.normal(1, 6, 2, 1) / 2)

    def loss(params):
        return discriminator_loss(
            params,
            jax.random.key(2),
            x,
            params=None,
            sample=lambda keys, _: -x,
            discriminator=discriminator,
            r1_weight=1.0,
            gradient_penalty_weight=0.3,
        )[0]

    grads = cases.jit(jax.grad(loss))(params)
    value = cases.jit(loss)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    direction = tree.unflatten(
        [np.float32(rng.normal(size=leaf.shape)) for leaf in leaves]
    )
    along = sum(
        float(np.vdot(g, d))
        for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
    )
    step = 1e-3

    def moved(sign):
        return jax.tree.map(lambda p, d: p + sign * step * d, params, direction)

    numeric = (float(value(moved(1.0))) - float(value(moved(-1.0)))) / (2 * step)
    np.testing.assert_allclose(along, numeric, rtol=0.02, atol=0.02)
