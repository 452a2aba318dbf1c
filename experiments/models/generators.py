"""What a program can train through samples: a circuit, or a network beside it."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from dspc_jax.evaluation import Codec
from dspc_jax.objectives import SCORE_ESTIMATORS
from dspc_jax.sampling import implicit
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.engine.system import Closing, System
from experiments.models import circuit as model
from experiments.models import starts, temperature
from experiments.models.circuit import Model, Params

NATS = "nats/dimension"
"""The unit of a likelihood's loss."""


class Sampler(NamedTuple):
    """Differentiable samples as gray values, at one temperature.

    Attributes:
        draw: ``(keys [B], params) -> [B, V, C]``.
        temperature: of the samples, 0 where there is none.
    """

    draw: Callable[[jax.Array, Params], jax.Array]
    temperature: jax.Array | float = 0.0

    def __call__(self, keys: jax.Array, params: Params) -> jax.Array:
        """The samples, ``[B, V, C]``."""
        return self.draw(keys, params)


class Generator(NamedTuple):
    """A model that is trained through its samples: pure functions of its parameters.

    The parameters are a dict of named parts, a circuit's under ``circuit``.

    Attributes:
        codec: between pixel levels and the units of its data.
        init: ``key -> params``.
        sampler: ``(params, step) -> Sampler``; the step may change how it samples.
        evaluate: ``(params, key, batch) -> metrics``, see `System`.
        pictures: ``(params, key, num) -> {title: levels}``.
        likelihood_loss: ``(params, key, x, labels) ->`` nats a dimension, negative;
            labels are int32 ``[B]`` or None. None where there is no likelihood.
        circuit: what is drawn from, or None for a network.
        complete: ``(params, key, levels, observed) -> {name: gray}``, see `System`.
        sample_class: ``(params, key, label, num) -> levels``, where the likelihood's
            loss takes labels, too.
        start: ``(params, key, levels) -> params``, see `System`.
    """

    codec: Codec
    init: Callable[[jax.Array], Params]
    sampler: Callable[[Params, jax.Array], Sampler]
    evaluate: Callable[[Params, jax.Array, Any], dict[str, jax.Array]]
    pictures: Callable[[Params, jax.Array, int], dict[str, jax.Array]]
    likelihood_loss: Callable[..., jax.Array] | None = None
    circuit: Model | None = None
    complete: Callable[..., dict[str, jax.Array]] | None = None
    sample_class: Callable[..., jax.Array] | None = None
    start: Callable[..., Params] | None = None


def circuit_generator(
    settings: Settings, dataset: Dataset, num_steps_before: int = 0
) -> Generator:
    """The circuit of the flags with its differentiable samples.

    Args:
        settings: the shared flags.
        dataset: the images.
        num_steps_before: steps before the temperature schedule begins.

    Returns:
        The generator, see `of_circuit`.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    circuit = model.make_model(settings, dataset)
    return of_circuit(settings, circuit, num_steps_before)


def of_circuit(
    settings: Settings, circuit: Model, num_steps_before: int = 0
) -> Generator:
    """A circuit with its differentiable samples.

    With a score as its gradient (``--relaxation=score_function``, ``score_pathwise`` or
    ``rebar``) its own samples carry none: see `dspc_jax.objectives.with_score`.

    Args:
        settings: the shared flags.
        circuit: the circuit.
        num_steps_before: steps before the temperature schedule begins.

    Returns:
        The generator, of ``{"circuit": ...}`` and the temperature if it is learned.

    Raises:
        UserError: the circuit has no such samples.
    """
    temperature_at = temperature.schedule(settings, num_steps_before)
    if settings.relaxation == "implicit":
        try:
            implicit.check(circuit.circuit.layout)
        except ValueError as error:
            raise UserError(f"--{error}") from error

    def init(key):
        return model.init(circuit, key) | temperature.init(settings)

    def sampler(params, step):
        heat = temperature_at(params, step)

        def draw(key, params):
            own, codec = params["circuit"], circuit.codec
            if settings.relaxation in SCORE_ESTIMATORS:
                x = circuit.circuit.sample(key, own)
                return jax.lax.stop_gradient(codec.to_unit(x))
            return codec.to_unit(
                circuit.circuit.sample_differentiable(
                    key, own, relaxation=settings.relaxation, temperature=heat
                )
            )

        return Sampler(jax.vmap(draw, (0, None)), heat)

    def own(function):
        return functools.partial(function, circuit)

    return Generator(
        codec=circuit.codec,
        init=init,
        sampler=sampler,
        evaluate=own(model.evaluate),
        pictures=functools.partial(own(model.pictures), sharpness=settings.sharpness),
        likelihood_loss=own(model.likelihood_loss),
        circuit=circuit,
        complete=own(model.complete) if settings.wavelets == "none" else None,
        sample_class=own(model.sample_class) if circuit.labelled else None,
        start=starts.start(settings, circuit),
    )


def system(
    generator: Generator,
    init: Callable[..., Any],
    step: Callable[..., Any],
    closing: Closing | None = None,
    unit: str = NATS,
) -> System:
    """A system whose state holds the parameters of a generator as ``params``.

    Args:
        generator: what is trained.
        init: ``key -> state``, see `System`.
        step: one step of training, see `System`.
        closing: full-batch steps at the end, functions of the parameters.
        unit: of the loss.

    Returns:
        The system.
    """

    def of_state(function):
        return function and (lambda state, *rest: function(state.params, *rest))

    def start(state, key, batch):
        assert generator.start is not None
        return state._replace(params=generator.start(state.params, key, batch))

    def closed(state, counts):
        assert closing is not None
        return state._replace(params=closing.update(state.params, counts))

    return System(
        init=init,
        step=step,
        evaluate=of_state(generator.evaluate),
        sample=of_state(generator.pictures),
        labelled=generator.sample_class is not None,
        complete=of_state(generator.complete),
        sample_class=of_state(generator.sample_class),
        start=generator.start and start,
        closing=closing
        and closing._replace(statistics=of_state(closing.statistics), update=closed),
        units={"loss": unit},
    )
