"""A learned rational quadratic kernel with gradient penalty inside a training step."""

import functools

import jax
import optax

from dspc_jax.networks import convolutional_critic
from dspc_jax.objectives import (
    critic_steps,
    mmd_advantages,
    mmd_loss,
    penalized_critic_loss,
    rational_quadratic_kernel,
    repeat_update,
)
from experiments.data import Dataset
from experiments.losses.critic import Critic, CriticSettings, default
from experiments.losses.mixture import Term

LEARNED_KERNELS = ("autoencoder", "gradient_penalty")


def learned_kernel_term(name: str, settings: CriticSettings, dataset: Dataset) -> Term:
    """The MMD on learned features, with the network that learns them.

    Args:
        name: one of `LEARNED_KERNELS`.
        settings: the flags of both.
        dataset: the images.

    Returns:
        The term, ``mmd`` in the metrics.
    """
    if name == "autoencoder":
        return Critic(settings, dataset).term
    return penalized_term(settings, dataset)


def penalized_term(settings: CriticSettings, dataset: Dataset) -> Term:
    """The unbiased MMD on the features of a critic with a gradient penalty.

    See `dspc_jax.objectives.penalized_mmd`.

    Args:
        settings: the flags of the critic.
        dataset: the images.

    Returns:
        The term, ``mmd`` in the metrics.
    """
    of = functools.partial(default, "gradient_penalty")
    critic = convolutional_critic(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        num_filters=settings.mmd_filters,
        num_features=int(of("features", settings.mmd_features)),
    )
    rate = of("learning_rate", settings.mmd_critic_learning_rate)
    busy_steps = int(of("busy_steps", settings.mmd_critic_busy_steps))
    optimizer = optax.adam(rate, b1=0.5, b2=0.9)  # the source's
    kernel = rational_quadratic_kernel(linear_weight=settings.mmd_linear_weight)

    def init(key):
        params = critic.init(key)
        return params, optimizer.init(params)

    def train(state, key, number, draw, sample):
        def update(state, key):
            params, opt_state = state
            draw_key, loss_key = jax.random.split(key)
            grads, metrics = jax.grad(penalized_critic_loss, has_aux=True)(
                params,
                loss_key,
                draw(draw_key),
                params=None,  # bound in `sample`
                sample=lambda keys, _: sample(keys),
                critic=critic,
                kernel=kernel,
                gradient_penalty_weight=settings.mmd_gradient_penalty,
                activation_penalty_weight=settings.mmd_activation_penalty,
            )
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), metrics

        steps = critic_steps(
            number, busy_steps=busy_steps, usual_steps=settings.mmd_critic_steps
        )
        state, metrics = repeat_update(update, state, key, steps)
        return state, {f"critic_{name}": value for name, value in metrics.items()}

    def loss(params, key, x, state, sample):
        value, metrics = mmd_loss(
            params,
            key,
            x,
            sample=sample,
            kernel=kernel,
            features=lambda x: critic.features(state[0], x),
        )
        return value, {"mmd2": metrics["mmd2"]}

    def advantages(x, samples, state):
        of_data, of_samples = (critic.features(state[0], v) for v in (x, samples))
        return mmd_advantages(of_data, of_samples, kernel)

    return Term("mmd", init, train, loss, advantages=advantages)
