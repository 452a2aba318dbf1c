"""What a program can train through samples: a circuit, or a network beside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from dspc_jax.evaluation import Codec
from dspc_jax.sampling import implicit
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.losses import score_function
from experiments.models import circuit as model
from experiments.models import temperature

Sample = Callable[[jax.Array, Any], jax.Array]
"""``(keys [B], params) -> [B, V, C]``: differentiable samples as grey values."""


class Generator(NamedTuple):
    """A model that is trained through its samples: pure functions of its parameters.

    Attributes:
        codec: between pixel levels and the units of its data.
        init: ``key -> params``.
        sampler: ``(params, step) -> Sample``; the step may change how it samples.
        temperature: ``(params, step) ->`` the temperature of the samples, 0 if none.
        likelihood_loss: ``(params, key, x) ->`` nats a dimension, negative; None where
            there is no likelihood.
        evaluate: ``(params, key, levels) -> metrics``, see `system.System`.
        pictures: ``(params, key, num) -> {title: levels}``.
        circuit: what is drawn from, or None for a network.
        complete: ``(params, key, levels, observed) -> {how: grey}``, see
            `system.System`.
        sample_class: ``(params, key, label, num) -> levels``, where the likelihood's
            loss takes labels, too.
        expected_counts: ``(params, x) ->`` those of EM, where they are not simply the
            circuit's on ``x``.
        paced: ``updates -> updates`` of Adam, in the parameters' shape: some parts take
            shorter steps than others. None: all alike.
    """

    codec: Codec
    init: Callable[[jax.Array], Any]
    sampler: Callable[[Any, jax.Array], Sample]
    temperature: Callable[[Any, jax.Array], jax.Array]
    likelihood_loss: Callable[..., jax.Array] | None
    evaluate: Callable[[Any, jax.Array, jax.Array], dict]
    pictures: Callable[[Any, jax.Array, int], dict[str, jax.Array]]
    circuit: model.Model | None
    complete: Callable[..., dict[str, jax.Array]] | None = None
    sample_class: Callable[..., jax.Array] | None = None
    expected_counts: Callable[[Any, jax.Array], Any] | None = None
    paced: Callable[[Any], Any] | None = None


def circuit_generator(
    settings: Settings, dataset: Dataset, num_steps_before: int = 0
) -> Generator:
    """A circuit with its differentiable samples.

    With ``--relaxation=score_function`` and ``score_pathwise`` samples carry no
    gradient (`mixture` gives one to the loss). Its parameters are
    ``{"circuit": ..., "temperature": ...}``.

    Args:
        settings: the shared flags.
        dataset: the images.
        num_steps_before: steps before the temperature schedule begins.

    Returns:
        The generator.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    circuit = model.make_model(settings, dataset)
    temperature_at = temperature.schedule(settings, num_steps_before)
    if settings.relaxation == "implicit":
        try:
            implicit.check(circuit.circuit.layout)
        except ValueError as error:
            raise UserError(f"--{error}") from error

    def init(key):
        return {
            "circuit": model.init(circuit, key),
            "temperature": temperature.init_learned(settings),
        }

    def sampler(params, step):
        heat = temperature_at(params["temperature"], step)

        def draw(key, params):
            if settings.relaxation in score_function.NAMES:
                x = circuit.circuit.sample(key, params["circuit"])
                return jax.lax.stop_gradient(circuit.codec.to_unit(x))
            return circuit.codec.to_unit(
                circuit.circuit.sample_differentiable(
                    key,
                    params["circuit"],
                    relaxation=settings.relaxation,
                    temperature=heat,
                )
            )

        return jax.vmap(draw, (0, None))

    def sample_class(params, *given):
        return model.sample_class(circuit, params["circuit"], *given)

    return Generator(
        codec=circuit.codec,
        init=init,
        sampler=sampler,
        temperature=lambda params, step: temperature_at(params["temperature"], step),
        likelihood_loss=lambda params, key, *given: model.likelihood_loss(
            circuit, params["circuit"], key, *given
        ),
        evaluate=lambda params, key, levels: model.evaluate(
            circuit, params["circuit"], key, levels
        ),
        pictures=lambda params, key, num: model.pictures(
            circuit, params["circuit"], key, num
        ),
        circuit=circuit,
        sample_class=sample_class if circuit.labelled else None,
        complete=lambda params, *given: model.complete(
            circuit, params["circuit"], *given
        ),
    )
