"""Maximum likelihood: ``python -m experiments.ll --dataset=digits``."""

from typing import Any, NamedTuple

import jax
import optax

from experiments import data
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.recipes import LIKELIHOOD
from experiments.engine.system import System, levels_and_labels
from experiments.engine.uses import OF_SAMPLES
from experiments.models import generators
from experiments.models.em import make_closing, make_em


class State(NamedTuple):
    """Parameters ``{"circuit": ...}``, and the state of their optimizer."""

    params: Any
    opt_state: Any


def make_system(settings: Settings, dataset: data.Dataset) -> System:
    """Maximum likelihood as the training loop sees it.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        The system.

    Raises:
        UserError: the flags describe no circuit on these images, or EM does not fit it.
    """
    generator = generators.circuit_generator(settings, dataset)
    circuit, loss = generator.circuit, generator.likelihood_loss
    assert circuit is not None
    assert loss is not None
    em = make_em(settings, circuit) if settings.optimizer == "em" else None
    adam = optax.adam(settings.learning_rate)

    def init(key):
        params = generator.init(key)
        return State(params, (adam if em is None else em).init(params))

    def step(state, key, batch, step, draw):
        del step, draw
        noise_key, loss_key = jax.random.split(key)
        levels, labels = levels_and_labels(batch)
        x = generator.codec.encode(noise_key, levels)
        if em is not None:
            value = loss(state.params, loss_key, x, labels)
            new = em.step(state.params, state.opt_state, x, labels)
            return State(*new), {"loss": value}
        value, grads = jax.value_and_grad(loss)(state.params, loss_key, x, labels)
        updates, opt_state = adam.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return State(params, opt_state), metrics

    closing = make_closing(settings, circuit, len(dataset.train))
    return generators.system(generator, init, step, closing)


PROGRAM = training_program(
    "experiments.ll",
    "Trains a probabilistic circuit by maximum likelihood.",
    make_system,
    Settings,
    recipes=[LIKELIHOOD],
    without=OF_SAMPLES,
    example="--dataset=mnist --data_dir=~/data/mnist --workdir=out/ll-mnist",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
