"""Maximum mean discrepancy: ``python -m experiments.mmd --dataset=digits``.

A circuit is trained through its own differentiable samples until no kernel tells them
from the data: on pixels, or on the features of an adversarially trained auto-encoder.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from dspc_jax.objectives import mmd_loss
from experiments import app, data, flags, model, temperature, training
from experiments.critic import Critic, CriticSettings
from experiments.device_loop import System
from experiments.errors import UserError
from experiments.flags import Settings

_PROGRAM = "experiments.mmd"


@dataclasses.dataclass(frozen=True)
class MmdSettings:
    """The flags of this program alone."""

    pretrain_steps: int = flags.flag(
        500, "first steps, which maximise the likelihood instead", flags.at_least(0)
    )
    ll_weight: float = flags.flag(
        0.1,
        "weight of the negative log-likelihood (nats a dimension) beside the MMD",
        flags.at_least(0),
    )
    mmd_kernel: str = flags.flag(
        "pixel",
        "kernels between grey values (pixel), or between the features of an "
        "auto-encoder trained against the circuit (autoencoder)",
        flags.one_of("pixel", "autoencoder"),
    )


class State(NamedTuple):
    """Everything that is trained.

    Attributes:
        params: ``{"circuit": ..., "temperature": ...}``.
        opt_state: of their Adam.
        critic: parameters of the auto-encoder and the state of its RMSprop, or None.
    """

    params: Any
    opt_state: optax.OptState
    critic: tuple[Any, optax.OptState] | None


def make_system(
    settings: Settings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """Training by MMD as the training loop sees it.

    Args:
        settings: the shared flags.
        mmd_settings: this program's flags.
        critic_settings: those of the auto-encoder.
        dataset: the images.

    Returns:
        The system. Its step metrics ``mmd_term`` and ``ll_term`` are the terms of the
        loss as they entered it, weights included; 0 where a term was not part of it.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    if settings.optimizer != "adam":
        raise UserError(
            f"--optimizer must be adam where samples are trained, got "
            f"{settings.optimizer!r}"
        )
    circuit = model.make_model(settings, dataset)
    codec, optimizer = circuit.codec, model.adam(settings)
    temperature_at = temperature.schedule(settings, mmd_settings.pretrain_steps)
    critic = None
    if mmd_settings.mmd_kernel == "autoencoder":
        critic = Critic(critic_settings, dataset)

    def sampler(step: jax.Array) -> Callable[[jax.Array, Any], jax.Array]:
        """Differentiable grey values: ``(keys [B], params) -> [B, V, C]``."""

        def sample(keys, params):
            heat = temperature_at(params["temperature"], step)
            return jax.vmap(
                lambda key: codec.to_unit(
                    circuit.circuit.sample_differentiable(
                        key,
                        params["circuit"],
                        relaxation=settings.relaxation,
                        temperature=heat,
                    )
                )
            )(keys)

        return sample

    def init(key):
        circuit_key, critic_key = jax.random.split(key)
        params = {
            "circuit": model.init(circuit, circuit_key),
            "temperature": temperature.init_learned(settings),
        }
        return State(
            params,
            optimizer.init(params),
            None if critic is None else critic.init(critic_key),
        )

    def ll_term(params, key, x):
        return model.likelihood_loss(circuit, params["circuit"], key, x)

    def mmd_term(params, key, x, critic_params, step):
        if critic is None:
            loss = functools.partial(mmd_loss, kernel=circuit.kernel)
        else:
            loss = functools.partial(critic.sampler_loss, critic_params=critic_params)
        return loss(params, key, codec.to_unit(x), sample=sampler(step))[0]

    def pretrain_step(state, keys, x, step, draw):
        del step, draw
        loss, grads = jax.value_and_grad(ll_term)(state.params, keys[0], x)
        return grads, state.critic, (jnp.zeros(()), loss)

    def mmd_step(state, keys, x, step, draw):
        trained = state.critic
        if critic is not None:
            trained = critic.train(
                trained,
                keys[2],
                step - mmd_settings.pretrain_steps,
                lambda key: codec.to_unit(codec.encode(*_split_draw(key, draw))),
                lambda keys: sampler(step)(keys, state.params),
            )

        def objective(params):
            critic_params = None if trained is None else trained[0]
            mmd = mmd_term(params, keys[1], x, critic_params, step)
            if mmd_settings.ll_weight == 0:
                return mmd, (mmd, jnp.zeros(()))
            ll = mmd_settings.ll_weight * ll_term(params, keys[0], x)
            return mmd + ll, (mmd, ll)

        grads, terms = jax.grad(objective, has_aux=True)(state.params)
        return grads, trained, terms

    def step(state, key, batch, step, draw):
        noise_key, *keys = jax.random.split(key, 4)
        x = codec.encode(noise_key, batch)
        if mmd_settings.pretrain_steps == 0:
            grads, trained, terms = mmd_step(state, keys, x, step, draw)
        else:
            grads, trained, terms = jax.lax.cond(
                step < mmd_settings.pretrain_steps,
                lambda: pretrain_step(state, keys, x, step, draw),
                lambda: mmd_step(state, keys, x, step, draw),
            )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": terms[0] + terms[1],
            "mmd_term": terms[0],
            "ll_term": terms[1],
            "grad_norm": optax.tree.norm(grads),
            "temperature": temperature_at(state.params["temperature"], step),
        }
        return State(params, opt_state, trained), metrics

    return System(
        init=init,
        step=step,
        evaluate=lambda state, key, batch: model.evaluate(
            circuit, state.params["circuit"], key, batch
        ),
        sample=lambda state, key, num: model.pictures(
            circuit, state.params["circuit"], key, num
        ),
    )


def _split_draw(
    key: jax.Array, draw: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """A noise key and a batch drawn by another key."""
    draw_key, noise_key = jax.random.split(key)
    return noise_key, draw(draw_key)


parse = app.parser(
    _PROGRAM,
    "Trains a probabilistic circuit through its differentiable samples, by MMD.",
    Settings,
    MmdSettings,
    CriticSettings,
)


def main(groups: list[Any]) -> int:
    """Trains.

    Args:
        groups: the flags: `Settings`, `MmdSettings`, `CriticSettings`.

    Returns:
        The exit code.
    """
    settings, mmd_settings, critic_settings = groups
    dataset = data.load(settings.dataset, settings.data_dir)
    system = make_system(settings, mmd_settings, critic_settings, dataset)
    return training.run(_PROGRAM, system, dataset, groups)


def run() -> NoReturn:
    """Runs the program on the command line."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
