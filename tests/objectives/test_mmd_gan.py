"""The adversarial kernel: losses, clipping, schedule, training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dspc_jax.networks import mlp_auto_encoder
from dspc_jax.objectives import (
    clip_encoder,
    critic_loss,
    critic_steps,
    gaussian_kernel,
    mmd2_biased,
    rank_hinge,
    repeat_update,
    sampler_loss,
)
from tests import cases

KERNEL = gaussian_kernel((1.0, 2.0, 4.0, 8.0, 16.0))


def _sample(keys, params):
    return params[None] + jax.vmap(lambda key: jax.random.normal(key, (3, 2)))(keys)


@functools.cache
def _setting():
    auto_encoder = mlp_auto_encoder(3, 2, num_features=4, hidden_sizes=(16, 16))
    critic_params = cases.jit(auto_encoder.init)(jax.random.key(0))
    batch = cases.normal(1, 32, 3, 2) + 2
    return auto_encoder, critic_params, batch


def test_rank_hinge():
    hinge = cases.jit(rank_hinge)
    x = np.asarray([[0.0, 4.0], [2.0, 0.0]], np.float32)  # means 1 and 2
    y = np.asarray([[4.0, 1.0]], np.float32)
    np.testing.assert_allclose(hinge(x, y), -1.5)  # -(3 + 0) / 2
    np.testing.assert_allclose(hinge(x, x - 1), 0)


def test_the_losses_are_the_formulas_of_the_source():
    auto_encoder, critic_params, batch = _setting()
    options = {"sample": _sample, "auto_encoder": auto_encoder, "kernel": KERNEL}

    @cases.jit
    def formulas(params, critic_params, key):
        samples = _sample(jax.random.split(key, 32), params)
        x, y = (auto_encoder.encode(critic_params, v) for v in (batch, samples))
        gain = jnp.sqrt(mmd2_biased(x, y, KERNEL)) + 16 * rank_hinge(x, y)
        return gain, [
            jnp.mean((auto_encoder.decode(critic_params, f) - v) ** 2)
            for f, v in ((x, batch), (y, samples))
        ]

    @cases.jit
    def losses(params, critic_params, key):
        return (
            critic_loss(
                critic_params, jax.random.clone(key), batch, params=params, **options
            ),
            sampler_loss(params, key, batch, critic_params=critic_params, **options),
        )

    params = np.zeros((3, 2), np.float32), critic_params
    gain, errors = formulas(*params, jax.random.key(2))
    (of_critic, metrics), (of_sampler, _) = losses(*params, jax.random.key(2))
    expected = -(gain - 8 * errors[0] - 8 * errors[1])
    np.testing.assert_allclose(of_critic, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["sample_error"], errors[1], rtol=1e-5)
    np.testing.assert_allclose(of_sampler, gain, rtol=1e-5)


def test_the_critic_does_not_move_the_sampler():
    auto_encoder, critic_params, batch = _setting()
    options = {"sample": _sample, "auto_encoder": auto_encoder, "kernel": KERNEL}

    def loss(params):
        return critic_loss(
            critic_params, jax.random.key(2), batch, params=params, **options
        )[0]

    np.testing.assert_array_equal(cases.jit(jax.grad(loss))(jnp.zeros((3, 2))), 0)
    slope = jax.grad(
        lambda p: sampler_loss(
            p, jax.random.key(2), batch, critic_params=critic_params, **options
        )[0]
    )
    gradient = np.asarray(cases.jit(slope)(jnp.zeros((3, 2))))
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_gradients_are_finite_where_sampler_and_data_agree():
    auto_encoder, critic_params, batch = _setting()
    loss = functools.partial(
        sampler_loss,
        critic_params=clip_encoder(critic_params),
        sample=lambda keys, params: jnp.asarray(batch) + params[None],
        auto_encoder=auto_encoder,
        kernel=KERNEL,
    )
    slope = cases.jit(jax.grad(loss, has_aux=True))
    gradient, _ = slope(np.zeros((3, 2), np.float32), jax.random.key(0), batch)
    assert np.all(np.isfinite(gradient))


def test_clipping_touches_the_encoder_alone():
    _, critic_params, _ = _setting()
    clip = cases.jit(clip_encoder, static_argnames="bound")
    clipped = clip(critic_params, bound=0.05)
    for before, after in zip(
        jax.tree.leaves(critic_params["encoder"]),
        jax.tree.leaves(clipped["encoder"]),
        strict=True,
    ):
        np.testing.assert_array_equal(after, np.clip(before, -0.05, 0.05))
    jax.tree.map(
        np.testing.assert_array_equal, clipped["decoder"], critic_params["decoder"]
    )
    largest = max(np.abs(w).max() for w in jax.tree.leaves(clip(critic_params)))
    assert largest > 0.05  # the decoder's
    with pytest.raises(ValueError, match="bound must be positive, got 0"):
        clip_encoder(critic_params, bound=0)
    with pytest.raises(ValueError, match="must hold an 'encoder', got \\['decoder'\\]"):
        clip_encoder({"decoder": {}})


def test_the_schedule_of_the_source():
    steps = np.arange(1502)
    expected = np.array([100 if s < 25 or s % 500 == 0 else 5 for s in range(1502)])
    np.testing.assert_array_equal(cases.jit(jax.vmap(critic_steps))(steps), expected)
    assert expected.sum() == 28 * 100 + 1474 * 5


def test_repeated_updates_under_jit_scan_and_vmap():
    traces = []

    def update(state, key):
        traces.append(None)
        state = state + 1
        return state, {"state": state, "draw": jax.random.uniform(key)}

    def program(state, key):
        def step(state, step):
            key_of_step = jax.random.fold_in(key, step)
            return repeat_update(update, state, key_of_step, critic_steps(step))

        return jax.lax.scan(step, state, jnp.arange(24, 28))

    keys = jax.random.split(jax.random.key(0), 3)
    states, metrics = cases.jit(jax.vmap(program))(jnp.zeros(3), keys)
    np.testing.assert_array_equal(states, 100 + 5 + 5 + 5)
    np.testing.assert_array_equal(metrics["state"], [[100, 105, 110, 115]] * 3)

    @cases.jit
    def last_draw(key):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, 27), 4))

    seed_key = jax.random.split(jax.random.key(0), 3)[1]
    np.testing.assert_allclose(metrics["draw"][1, 3], last_draw(seed_key))
    assert len(traces) < 10  # a loop, not 115 copies of the update


def test_no_update_leaves_the_state():
    state, metrics = repeat_update(
        lambda s, key: (s + 1, {"s": s}), jnp.ones(()), jax.random.key(0), 0
    )
    assert state == 1
    assert metrics["s"] == 0


@pytest.mark.slow
def test_adversarial_training_moves_the_sampler_to_the_data():
    """A location family against a trained critic, in one compiled program.

    The sampler's hinge is off: see `sampler_loss` on unbounded values.
    """
    auto_encoder = mlp_auto_encoder(
        3, 2, num_features=4, hidden_sizes=(16, 16), normalizer="none"
    )
    critic_params = cases.jit(auto_encoder.init)(jax.random.key(0))
    target = np.asarray([[1.0, -1.0], [0.5, 0.0], [-0.5, 1.5]], np.float32)
    options = {"sample": _sample, "auto_encoder": auto_encoder, "kernel": KERNEL}
    critic_optimizer, optimizer = optax.rmsprop(1e-3), optax.rmsprop(0.01)

    def step(carry, inputs):
        params, opt_state, critic = carry
        step, key = inputs
        critic_key, batch_key, loss_key = jax.random.split(key, 3)

        def data(key):
            return _sample(jax.random.split(key, 64), target)

        def critic_update(critic, key):
            batch_key, loss_key = jax.random.split(key)
            grads, metrics = jax.grad(critic_loss, has_aux=True)(
                critic[0], loss_key, data(batch_key), params=params, **options
            )
            updates, opt_state = critic_optimizer.update(grads, critic[1])
            critic_params = jax.tree.map(jnp.add, critic[0], updates)
            return (clip_encoder(critic_params, bound=0.1), opt_state), metrics

        critic, _ = repeat_update(
            critic_update, critic, critic_key, critic_steps(step, initial_steps=1)
        )
        grads, _ = jax.grad(sampler_loss, has_aux=True)(
            params,
            loss_key,
            data(batch_key),
            critic_params=critic[0],
            hinge_weight=0.0,
            **options,
        )
        updates, opt_state = optimizer.update(grads, opt_state)
        params = params + updates
        return (params, opt_state, critic), jnp.max(jnp.abs(params - target))

    @cases.jit
    def train(critic_params, key):
        params = jnp.zeros((3, 2))
        critic_params = clip_encoder(critic_params, bound=0.1)
        critic = critic_params, critic_optimizer.init(critic_params)
        inputs = jnp.arange(200), jax.random.split(key, 200)
        return jax.lax.scan(step, (params, optimizer.init(params), critic), inputs)[1]

    errors = train(critic_params, jax.random.key(3))
    assert errors[-1] < 0.5 < 1.5 <= np.max(np.abs(target))
