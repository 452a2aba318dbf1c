"""The auto-encoder kernel of MMD-GAN inside a training step."""

import dataclasses
from typing import Any, cast

import jax
import optax

from dspc_jax.networks import AutoEncoder, image_auto_encoder
from dspc_jax.objectives import (
    clip_encoder,
    critic_loss,
    critic_steps,
    gaussian_kernel,
    repeat_update,
    sampler_loss,
)
from experiments import flags
from experiments.data import Dataset
from experiments.mixture import Term


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The flags of ``--mmd_kernel=autoencoder``; the defaults are the source's."""

    mmd_critic_learning_rate: float = flags.flag(
        5e-5, "step size of the auto-encoder's RMSprop", flags.above(0)
    )
    mmd_critic_steps: int = flags.flag(
        5, "steps of the auto-encoder before each of the circuit", flags.at_least(1)
    )
    mmd_critic_busy_steps: int = flags.flag(
        100,
        "steps of the auto-encoder before each of the circuit's first 25, and before "
        "every 500th",
        flags.at_least(1),
    )
    mmd_filters: int = flags.flag(
        64, "filters of the auto-encoder's first convolution", flags.at_least(1)
    )
    mmd_features: int = flags.flag(
        100, "features of the auto-encoder", flags.at_least(1)
    )
    mmd_normalizer: str = flags.flag(
        "batch",
        "normalisation inside the auto-encoder",
        flags.one_of("batch", "group", "none"),
    )


class Critic:
    """The auto-encoder that is trained to tell samples from data, as grey values."""

    def __init__(self, settings: CriticSettings, dataset: Dataset):
        """Binds the networks to the size of the images."""
        self._settings = settings
        self._network: AutoEncoder = image_auto_encoder(
            dataset.height,
            dataset.width,
            dataset.num_channels,
            value_range=(0.0, 1.0),
            num_features=settings.mmd_features,
            num_filters=settings.mmd_filters,
            normalizer=settings.mmd_normalizer,
        )
        self._optimizer = optax.rmsprop(settings.mmd_critic_learning_rate)
        self._kernel = gaussian_kernel((1.0, 2.0, 4.0, 8.0, 16.0))  # the source's

    @property
    def term(self) -> Term:
        """The loss on its features, with the critic as what is trained against it."""
        return Term("mmd", self._init, self._train, self._loss)

    def _init(self, key):
        """Parameters, the encoder's clipped, and the optimizer's state."""
        params: Any = clip_encoder(self._network.init(key))
        return params, self._optimizer.init(params)

    def _train(self, state, key, number, draw, sample):
        def update(state, key):
            params, opt_state = state
            draw_key, loss_key = jax.random.split(key)
            grads, metrics = jax.grad(critic_loss, has_aux=True)(
                params,
                loss_key,
                draw(draw_key),
                params=None,  # bound in `sample`
                sample=lambda keys, _: sample(keys),
                auto_encoder=self._network,
                kernel=self._kernel,
            )
            updates, opt_state = self._optimizer.update(grads, opt_state, params)
            params = cast(dict[str, Any], optax.apply_updates(params, updates))
            return (clip_encoder(params), opt_state), metrics

        number = critic_steps(
            number,
            many=self._settings.mmd_critic_busy_steps,
            few=self._settings.mmd_critic_steps,
        )
        state, metrics = repeat_update(update, state, key, number)
        return state, {f"critic_{name}": value for name, value in metrics.items()}

    def _loss(self, params, key, x, state, sample):
        return sampler_loss(
            params,
            key,
            x,
            critic_params=state[0],
            sample=sample,
            auto_encoder=self._network,
            kernel=self._kernel,
        )
