"""Maximum likelihood: ``python -m experiments.ll --dataset=digits``."""

from typing import Any, NamedTuple

import jax
import optax

from experiments import data, flags, model, training
from experiments.device_loop import System
from experiments.errors import exit_code
from experiments.flags import Settings

_PROGRAM = "experiments.ll"


class State(NamedTuple):
    """Parameters of the circuit, and the state of their optimizer."""

    params: Any
    opt_state: optax.OptState


def make_system(settings: Settings, dataset: data.Dataset) -> System:
    """Maximum likelihood as the training loop sees it.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        The system.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    circuit = model.make_model(settings, dataset)
    optimizer = model.adam(settings)

    def init(key):
        params = model.init(circuit, key)
        return State(params, optimizer.init(params))

    def step(state, key, batch, step, draw):
        del step, draw
        noise_key, loss_key = jax.random.split(key)
        x = circuit.codec.encode(noise_key, batch)
        (loss, _), grads = jax.value_and_grad(
            lambda params: model.likelihood_loss(circuit, params, loss_key, x),
            has_aux=True,
        )(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
        return State(params, opt_state), metrics

    return System(
        init=init,
        step=step,
        evaluate=lambda state, key, batch: model.evaluate(
            circuit, state.params, key, batch
        ),
        sample=lambda state, key, num: model.pictures(circuit, state.params, key, num),
    )


def main() -> int:
    """Reads the flags and trains."""
    (settings,) = flags.parse(
        flags.command_line(),
        _PROGRAM,
        "Trains a probabilistic circuit by maximum likelihood.",
        [Settings],
    )
    dataset = data.load(settings.dataset, settings.data_dir)
    return training.run(_PROGRAM, make_system(settings, dataset), dataset, [settings])


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
