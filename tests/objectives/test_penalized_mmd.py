"""The critic with a gradient penalty: witness, penalties, gradients, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dspc_jax.interfaces import FeatureCritic
from dspc_jax.networks import convolutional_critic
from dspc_jax.objectives import (
    Kernel,
    mmd2_unbiased,
    mmd_loss,
    penalized_critic_loss,
    rational_quadratic_kernel,
    repeat_update,
    witness,
)
from tests import cases

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
KERNEL = rational_quadratic_kernel(linear_weight=1.0)
LINEAR = Kernel(lambda d: -d / 2, lambda d: -d / 2)


def tanh_activations(params, x):
    hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ params["first"])
    return hidden, hidden @ params["second"]


TANH = FeatureCritic(
    init=lambda key: {
        "first": jax.random.normal(key, (6, 5)) / 2,
        "second": jax.random.normal(jax.random.fold_in(key, 1), (5, 3)),
    },
    features=lambda params, x: tanh_activations(params, x)[-1],
    activations=tanh_activations,
)


def of_location(keys, params):
    return params[None] + jax.vmap(lambda key: jax.random.normal(key, (3, 2)))(keys)


def setting():
    batch = jax.random.normal(jax.random.key(1), (8, 3, 2)) + 1
    return TANH.init(jax.random.key(0)), batch, jnp.zeros((3, 2))


def matrix(x, y):
    """The kernel with a true inner product, float64."""
    squares = ((x[:, None] - y[None]) ** 2).sum(-1)
    return x @ y.T + sum((1 + squares / 2 / a) ** -a for a in ALPHAS)


def unbiased(x, y):
    n, m = len(x), len(y)
    k_xx, k_yy = matrix(x, x), matrix(y, y)
    return (
        (k_xx.sum() - np.trace(k_xx)) / n / (n - 1)
        + (k_yy.sum() - np.trace(k_yy)) / m / (m - 1)
        - 2 * matrix(x, y).mean()
    )


def points(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_the_linear_part_is_an_inner_product():
    x, y, t = points(0, 7, 4) + 2, points(1, 5, 4), points(2, 6, 4)
    result = cases.jit(mmd2_unbiased, static_argnums=2)(
        *map(jnp.float32, (x, y)), KERNEL
    )
    np.testing.assert_allclose(result, unbiased(x, y), rtol=1e-4)
    subject = cases.jit(witness, static_argnums=3)
    result = subject(*map(jnp.float32, (t, x, y)), KERNEL)
    expected = matrix(t, x).mean(1) - matrix(t, y).mean(1)
    np.testing.assert_allclose(
        result - result[0], expected - expected[0], rtol=1e-4, atol=1e-5
    )
    alone = subject(*map(jnp.float32, (t, x, y)), rational_quadratic_kernel())
    expected -= t @ (x.mean(0) - y.mean(0))
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="linear_weight must be at least 0 .* got -1"):
        rational_quadratic_kernel(linear_weight=-1)


def test_the_penalty_of_a_linear_critic():
    """Its witness function has one slope everywhere: known in closed form."""
    critic = FeatureCritic(
        init=lambda key: jax.random.normal(key, (6, 3)),
        features=lambda w, x: x.reshape(-1, 6) @ w,
        activations=lambda w, x: (x.reshape(-1, 6) @ w,),
    )
    _, batch, params = setting()
    weights = critic.init(jax.random.key(2)) / 3
    sample_key, _ = jax.random.split(jax.random.key(4))
    samples = of_location(jax.random.split(sample_key, 8), params)
    x, y = (np.asarray(v, np.float64).reshape(8, 6) for v in (batch, samples))

    def penalty(w):
        slope = np.linalg.norm(w @ w.T @ (x.mean(0) - y.mean(0)))
        return (slope - 1) ** 2

    def loss(w):
        return penalized_critic_loss(
            w,
            jax.random.key(4),
            batch,
            params=params,
            sample=of_location,
            critic=critic,
            kernel=LINEAR,
            activation_penalty_weight=0.0,
        )

    w = np.asarray(weights, np.float64)
    both = cases.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = both(weights)
    np.testing.assert_allclose(metrics["gradient_penalty"], penalty(w), rtol=1e-4)

    def total(w):
        f, g = x @ w, y @ w
        inner = f @ f.T, g @ g.T
        within = sum((k.sum() - np.trace(k)) / 8 / 7 for k in inner)
        return penalty(w) - within + 2 * np.mean(f @ g.T)

    np.testing.assert_allclose(value, total(w), rtol=1e-4)
    np.testing.assert_allclose(grads, differences(total, w), rtol=1e-3, atol=1e-4)


def differences(function, w):
    """Central differences of a function of an array, float64."""
    result = np.zeros(w.shape)
    for at in np.ndindex(*w.shape):
        step = np.zeros(w.shape)
        step[at] = 1e-5
        result[at] = (function(w + step) - function(w - step)) / 2e-5
    return result


def test_value_and_gradient_against_numpy():
    """All three parts of the loss, with the slope of the witness by hand."""
    critic_params, batch, params = setting()
    sample_key, place_key = jax.random.split(jax.random.key(4))
    samples = of_location(jax.random.split(sample_key, 8), params)
    x, y = (np.asarray(v, np.float64).reshape(8, 6) for v in (batch, samples))
    place = np.asarray(jax.random.uniform(place_key, (8, 1, 1)), np.float64)[:, 0]
    z = x + place * (y - x)

    def parts(first, second):
        hidden = [np.tanh(v @ first) for v in (x, y, z)]
        f, g, h = (v @ second for v in hidden)

        def slopes(others):
            """Of the mean kernel in the features at z."""
            away = h[:, None] - others[None]
            squares = (away**2).sum(-1)
            pull = np.sum([(1 + squares / 2 / a) ** (-a - 1) for a in ALPHAS], axis=0)
            return (others[None] - pull[..., None] * away).mean(1)

        slope = (slopes(f) - slopes(g)) @ second.T * (1 - hidden[2] ** 2) @ first.T
        penalty = ((np.linalg.norm(slope, axis=1) - 1) ** 2).mean()
        size = sum((v**2).mean() for v in (*hidden[:2], f, g))
        return unbiased(f, g), penalty, size

    def total(first, second):
        mmd2, penalty, size = parts(first, second)
        return 0.7 * penalty + 0.3 * size - mmd2

    def loss(critic_params):
        return penalized_critic_loss(
            critic_params,
            jax.random.key(4),
            batch,
            params=params,
            sample=of_location,
            critic=TANH,
            kernel=KERNEL,
            gradient_penalty_weight=0.7,
            activation_penalty_weight=0.3,
        )

    both = cases.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = both(critic_params)
    first, second = (
        np.asarray(critic_params[name], np.float64) for name in ("first", "second")
    )
    expected = dict(
        zip(
            ("mmd2", "gradient_penalty", "activation_penalty"),
            parts(first, second),
            strict=True,
        )
    )
    assert metrics.keys() == expected.keys()
    for name, number in expected.items():
        np.testing.assert_allclose(metrics[name], number, rtol=1e-4)
    np.testing.assert_allclose(value, total(first, second), rtol=1e-4)
    np.testing.assert_allclose(
        grads["first"],
        differences(lambda w: total(w, second), first),
        rtol=2e-3,
        atol=2e-4,
    )
    np.testing.assert_allclose(
        grads["second"],
        differences(lambda w: total(first, w), second),
        rtol=2e-3,
        atol=2e-4,
    )


def test_the_critic_does_not_move_the_sampler_and_weights_are_checked():
    critic_params, batch, params = setting()

    def loss(params, **weights):
        return penalized_critic_loss(
            critic_params,
            jax.random.key(2),
            batch,
            params=params,
            sample=of_location,
            critic=TANH,
            kernel=KERNEL,
            **weights,
        )[0]

    np.testing.assert_array_equal(cases.jit(jax.grad(loss))(params), 0)
    with pytest.raises(ValueError, match="gradient_penalty_weight must be .* got -1"):
        loss(params, gradient_penalty_weight=-1)


def test_features_of_the_network():
    """Each example's depend on it alone; all layers are told."""
    critic = convolutional_critic(3, 9, 2, num_filters=4, num_features=5)
    params = cases.jit(critic.init)(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (4, 27, 2))
    scaled = convolutional_critic(
        3, 9, 2, num_filters=4, num_features=5, value_range=(0.0, 255.0)
    )

    @cases.jit
    def all_of(params, x):
        others = critic.features(params, x.at[1:].multiply(0.5))
        return critic.activations(params, x), others, scaled.features(params, 255 * x)

    layers, others, bright = all_of(params, x)
    shapes = [layer.shape for layer in layers]
    assert shapes == [(4, 3, 9, 4), (4, 2, 5, 8), (4, 1, 3, 16), (4, 5)]
    np.testing.assert_allclose(layers[-1][:1], others[:1], rtol=1e-4, atol=1e-5)
    assert np.abs(layers[-1][1:] - others[1:]).max() > 1e-2
    np.testing.assert_allclose(bright, layers[-1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        convolutional_critic(3, 9, num_features=0)
    with pytest.raises(ValueError, match="shape \\(27, 2\\), got \\(1, 27, 1\\)"):
        critic.features(params, x[:1, :, :1])


@pytest.mark.slow
@pytest.mark.optax
def test_training_moves_the_sampler_to_the_data():
    """A location family against a trained critic, in one compiled program."""
    target = jnp.asarray([[1.0, -1.0], [0.5, 0.0], [-0.5, 1.5]])
    critic_optimizer, optimizer = optax.adam(1e-2, b1=0.5, b2=0.9), optax.adam(0.02)

    def data(key):
        return of_location(jax.random.split(key, 64), target)

    def step(carry, key):
        params, opt_state, critic = carry
        critic_key, batch_key, loss_key = jax.random.split(key, 3)

        def critic_update(critic, key):
            batch_key, loss_key = jax.random.split(key)
            grads, metrics = jax.grad(penalized_critic_loss, has_aux=True)(
                critic[0],
                loss_key,
                data(batch_key),
                params=params,
                sample=of_location,
                critic=TANH,
                kernel=KERNEL,
            )
            updates, opt_state = critic_optimizer.update(grads, critic[1])
            return (optax.apply_updates(critic[0], updates), opt_state), metrics

        critic, metrics = repeat_update(critic_update, critic, critic_key, 5)
        loss = functools.partial(
            mmd_loss,
            sample=of_location,
            kernel=KERNEL,
            features=lambda x: TANH.features(critic[0], x),
        )
        grads, _ = jax.grad(loss, has_aux=True)(params, loss_key, data(batch_key))
        updates, opt_state = optimizer.update(grads, opt_state)
        error = jnp.max(jnp.abs(params - target))
        return (params + updates, opt_state, critic), (error, metrics)

    params, critic_params = jnp.zeros((3, 2)), TANH.init(jax.random.key(0))
    start = (
        params,
        optimizer.init(params),
        (critic_params, critic_optimizer.init(critic_params)),
    )
    keys = jax.random.split(jax.random.key(3), 200)
    _, (errors, metrics) = cases.jit(lambda c: jax.lax.scan(step, c, keys))(start)
    assert errors[0] == 1.5
    assert errors[-1] < 0.5
    assert metrics["mmd2"][-1] < metrics["mmd2"][5]
