"""Temperatures of the relaxation, chosen by flags, as functions of the step."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.learning.schedules import (
    annealed_temperature,
    constant_temperature,
    learned_temperature,
)
from dspc_jax.objectives import SCORE_ESTIMATORS
from experiments.console.errors import UserError
from experiments.engine.flags import Settings

Schedule = Callable[[Any, jax.Array], jax.Array]
"""``(params, step) -> temperature``: a positive float32 scalar."""

_WITHOUT_TEMPERATURE = ("simple", "reinmax", "implicit", *SCORE_ESTIMATORS)


def init(settings: Settings) -> dict[str, dict[str, jax.Array]]:
    """Its part of the parameters: ``{"temperature": {"logit": []}}``, or none."""
    if settings.temperature_schedule != "learned":
        return {}
    _check_learned(settings)
    first = settings.temperature
    logit = jnp.full((), math.log(first) - math.log1p(-first))
    return {"temperature": {"logit": logit}}


def schedule(settings: Settings, num_steps_before: int = 0) -> Schedule:
    r"""The schedule that the flags ask for.

    - constant: :math:`T_0`.
    - annealed: :math:`\max(T_{min}, T_0 e^{-t / s})` after :math:`t` steps of its own.
    - learned: the sigmoid of a trained number, :math:`T_0` at first.

    None of them depends on the length of the run, so a longer run begins as a shorter
    one.

    Args:
        settings: the shared flags.
        num_steps_before: steps before the schedule begins (of pre-training).

    Returns:
        The function; of the parameters it reads what `init` made.

    Raises:
        UserError: a temperature that cannot be learned.
    """
    if settings.temperature_schedule == "learned":
        _check_learned(settings)
        return lambda params, step: learned_temperature(params["temperature"]["logit"])
    if settings.temperature_schedule == "annealed":
        annealed = annealed_temperature(
            settings.temperature_decay_steps,
            start=settings.temperature,
            end=settings.temperature_floor,
        )
        return lambda params, step: annealed(jnp.maximum(step - num_steps_before, 0))
    constant = constant_temperature(settings.temperature)
    return lambda params, step: constant(step)


def _check_learned(settings: Settings) -> None:
    if settings.temperature >= 1:
        raise UserError(
            "--temperature must be less than 1 with --temperature_schedule=learned "
            f"(it stays between 0 and 1), got {settings.temperature}"
        )
    if settings.relaxation in _WITHOUT_TEMPERATURE:
        raise UserError(
            "--relaxation must have a temperature that its gradient reaches with "
            f"--temperature_schedule=learned, got {settings.relaxation!r}"
        )
