"""Maximum likelihood: ``python -m experiments.ll --dataset=digits``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import dspc_jax as pc
from experiments import data
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System, levels_and_labels
from experiments.models import circuit as model


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
    optimizer, direction = (_em if settings.optimizer == "em" else _adam)(
        settings, circuit
    )

    def init(key):
        params = model.init(circuit, key)
        return State(params, optimizer.init(params))

    def step(state, key, batch, step, draw):
        del step, draw
        noise_key, loss_key = jax.random.split(key)
        levels, labels = levels_and_labels(batch)
        x = circuit.codec.encode(noise_key, levels)
        updates, metrics = direction(state.params, loss_key, x, labels)
        updates, opt_state = optimizer.update(updates, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), metrics

    return System(
        init=init,
        step=step,
        evaluate=lambda state, key, batch: model.evaluate(
            circuit, state.params, key, batch
        ),
        sample=lambda state, key, num: model.pictures(circuit, state.params, key, num),
        labelled=circuit.labelled,
        sample_class=_sample_class(circuit) if circuit.labelled else None,
        complete=lambda state, *given: model.complete(circuit, state.params, *given),
    )


def _sample_class(circuit: model.Model) -> Callable[..., jax.Array]:
    return lambda state, *given: model.sample_class(circuit, state.params, *given)


Direction = Callable[..., tuple[Any, dict[str, jax.Array]]]
"""``(params, key, x, labels) -> (what the optimizer's update takes, step metrics)``."""


def _adam(
    settings: Settings, circuit: model.Model
) -> tuple[optax.GradientTransformation, Direction]:
    """Adam on the gradient of the loss."""

    def direction(params, key, x, labels):
        loss, grads = jax.value_and_grad(
            lambda params: model.likelihood_loss(circuit, params, key, x, labels)
        )(params)
        return grads, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

    return model.adam(settings), direction


def _em(
    settings: Settings, circuit: model.Model
) -> tuple[optax.GradientTransformation, Direction]:
    """Stochastic EM on the expected counts of the batch."""

    def direction(params, key, x, labels):
        del labels
        counts = pc.expected_counts(circuit.circuit, params, x)
        return counts, {"loss": model.likelihood_loss(circuit, params, key, x)}

    if circuit.labelled:
        raise UserError("--optimizer must be adam with --labels=roots, got 'em'")
    try:
        return pc.em(circuit.circuit, settings.em_step_size), direction
    except ValueError as error:
        raise UserError(
            f"--optimizer=em does not fit --leaf={settings.leaf}: {error}"
        ) from error


PROGRAM = training_program(
    "experiments.ll",
    "Trains a probabilistic circuit by maximum likelihood.",
    make_system,
    Settings,
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
