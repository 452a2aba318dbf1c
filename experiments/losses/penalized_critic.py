"""A learned rational quadratic kernel with gradient penalty inside a training step."""

import functools

import optax

from dspc_jax.networks import convolutional_critic
from dspc_jax.objectives import (
    critic_steps,
    mmd_advantages,
    mmd_loss,
    penalized_critic_loss,
    rational_quadratic_kernel,
)
from experiments.data import Dataset
from experiments.losses.critic import CriticSettings, auto_encoder_term, default
from experiments.losses.term import Term, adversary_steps

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
        return auto_encoder_term(settings, dataset)
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
    value = functools.partial(default, "gradient_penalty")
    critic = convolutional_critic(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        num_filters=settings.mmd_filters,
        num_features=int(value("features", settings.mmd_features)),
    )
    rate = value("learning_rate", settings.mmd_critic_learning_rate)
    busy_steps = int(value("busy_steps", settings.mmd_critic_busy_steps))
    optimizer = optax.adam(rate, b1=0.5, b2=0.9)  # the source's
    kernel = rational_quadratic_kernel(linear_weight=settings.mmd_linear_weight)

    def init(key):
        params = critic.init(key)
        return params, optimizer.init(params)

    def train(state, params, key, number, draw, sample):
        step_loss = functools.partial(
            penalized_critic_loss,
            params=params,
            sample=sample,
            critic=critic,
            kernel=kernel,
            gradient_penalty_weight=settings.mmd_gradient_penalty,
            activation_penalty_weight=settings.mmd_activation_penalty,
        )
        steps = critic_steps(
            number, busy_steps=busy_steps, usual_steps=settings.mmd_critic_steps
        )
        state, metrics = adversary_steps(step_loss, optimizer, state, key, steps, draw)
        return state, {f"critic_{name}": metric for name, metric in metrics.items()}

    def loss(params, key, x, state, sample):
        mmd2, metrics = mmd_loss(
            params,
            key,
            x,
            sample=sample,
            kernel=kernel,
            features=functools.partial(critic.features, state[0]),
        )
        return mmd2, {"mmd2": metrics["mmd2"]}

    def advantages(x, samples, state):
        features = functools.partial(critic.features, state[0])
        return mmd_advantages(features(x), features(samples), kernel)

    return Term("mmd", loss, init, train, advantages, unit="squared MMD")
