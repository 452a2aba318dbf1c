"""The auto-encoder kernel of MMD-GAN inside a training step, and its flags.

`experiments.losses.penalized_critic` is the other learned kernel; they share the flags.
"""

import dataclasses
import functools
from typing import Any, cast

import optax

from dspc_jax.networks import image_auto_encoder
from dspc_jax.objectives import (
    clip_encoder,
    critic_loss,
    critic_steps,
    gaussian_kernel,
    sampler_loss,
)
from experiments.data import Dataset
from experiments.engine import flags
from experiments.losses.term import Term, adversary_steps

_DEFAULTS: dict[str, dict[str, float]] = {  # of the two sources
    "autoencoder": {"learning_rate": 5e-5, "busy_steps": 100, "features": 100},
    "gradient_penalty": {"learning_rate": 1e-4, "busy_steps": 5, "features": 16},
}


def default(kernel: str, name: str, value: float | None) -> float:
    """The value of a flag of `CriticSettings` whose default depends on the kernel."""
    return _DEFAULTS[kernel][name] if value is None else value


def _words(name: str) -> str:
    return ", ".join(f"{values[name]} for {k}" for k, values in _DEFAULTS.items())


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The flags of the learned kernels; the defaults are the sources'."""

    mmd_critic_learning_rate: float | None = flags.flag(
        None,
        "step size of the network behind the kernel: of the autoencoder's RMSprop, or "
        "of gradient_penalty's Adam with betas 0.5 and 0.9 (default: "
        f"{_words('learning_rate')})",
        flags.above(0),
        kind=float,
        only={"mmd_kernel": ["autoencoder", "gradient_penalty"]},
    )
    mmd_critic_steps: int = flags.flag(
        5,
        "steps of the network behind the kernel before each of the generator",
        flags.at_least(1),
        only={"mmd_kernel": ["autoencoder", "gradient_penalty"]},
    )
    mmd_critic_busy_steps: int | None = flags.flag(
        None,
        "its steps before each of the generator's first 25, and before every 500th "
        f"(default: {_words('busy_steps')})",
        flags.at_least(1),
        kind=int,
        only={"mmd_kernel": ["autoencoder", "gradient_penalty"]},
    )
    mmd_filters: int = flags.flag(
        64,
        "filters of its first convolution",
        flags.at_least(1),
        only={"mmd_kernel": ["autoencoder", "gradient_penalty"]},
    )
    mmd_features: int | None = flags.flag(
        None,
        f"features that the kernel sees (default: {_words('features')})",
        flags.at_least(1),
        kind=int,
        only={"mmd_kernel": ["autoencoder", "gradient_penalty"]},
    )
    mmd_normalizer: str = flags.flag(
        "batch",
        "normalization inside the autoencoder",
        flags.one_of("batch", "group", "none"),
        only={"mmd_kernel": ["autoencoder"]},
    )
    mmd_gradient_penalty: float = flags.flag(
        1.0,
        "gradient_penalty: weight of E (norm(grad witness) - 1)^2 between data and "
        "samples",
        flags.at_least(0),
        only={"mmd_kernel": ["gradient_penalty"]},
    )
    mmd_activation_penalty: float = flags.flag(
        1.0,
        "gradient_penalty: weight of the mean squared activations of the network's "
        "layers",
        flags.at_least(0),
        only={"mmd_kernel": ["gradient_penalty"]},
    )
    mmd_linear_weight: float = flags.flag(
        1.0,
        "gradient_penalty: weight of the linear kernel beside the rational quadratic "
        "ones",
        flags.at_least(0),
        only={"mmd_kernel": ["gradient_penalty"]},
    )


def auto_encoder_term(settings: CriticSettings, dataset: Dataset) -> Term:
    """The MMD on the features of an auto-encoder that is trained to tell them apart.

    See `dspc_jax.objectives.mmd_gan`.

    Args:
        settings: the flags of the critic.
        dataset: the images.

    Returns:
        The term, ``mmd`` in the metrics.
    """
    value = functools.partial(default, "autoencoder")
    busy_steps = int(value("busy_steps", settings.mmd_critic_busy_steps))
    network = image_auto_encoder(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        value_range=(0.0, 1.0),
        num_features=int(value("features", settings.mmd_features)),
        num_filters=settings.mmd_filters,
        normalizer=cast(Any, settings.mmd_normalizer),
    )
    rate = value("learning_rate", settings.mmd_critic_learning_rate)
    optimizer = optax.rmsprop(rate)
    kernel = gaussian_kernel((1.0, 2.0, 4.0, 8.0, 16.0))  # the source's

    def init(key):
        params: Any = clip_encoder(network.init(key))
        return params, optimizer.init(params)

    def train(state, params, key, number, draw, sample):
        step_loss = functools.partial(
            critic_loss,
            params=params,
            sample=sample,
            auto_encoder=network,
            kernel=kernel,
        )
        steps = critic_steps(
            number, busy_steps=busy_steps, usual_steps=settings.mmd_critic_steps
        )
        state, metrics = adversary_steps(
            step_loss, optimizer, state, key, steps, draw, clip_encoder
        )
        return state, {f"critic_{name}": metric for name, metric in metrics.items()}

    def loss(params, key, x, state, sample):
        return sampler_loss(
            params,
            key,
            x,
            critic_params=state[0],
            sample=sample,
            auto_encoder=network,
            kernel=kernel,
        )

    return Term("mmd", loss, init, train, unit="squared MMD")
