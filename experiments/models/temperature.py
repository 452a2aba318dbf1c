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
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.losses import score_function

Schedule = Callable[[Any, jax.Array], jax.Array]
"""``(learned, step) -> temperature``: a positive float32 scalar."""

_WITHOUT_TEMPERATURE = ("simple", "reinmax", "implicit", *score_function.NAMES)


def init_learned(settings: Settings) -> dict[str, jax.Array]:
    """What is trained beside the circuit: ``{"logit": []}``, or nothing."""
    if settings.temperature_schedule == "learned":
        _check_learned(settings)
        first = settings.temperature
        return {"logit": jnp.full((), math.log(first) - math.log1p(-first))}
    return {}


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
        The function; ``learned`` is what `init_learned` made, as trained so far.

    Raises:
        UserError: a temperature that cannot be learned.
    """
    if settings.temperature_schedule == "learned":
        _check_learned(settings)
        return lambda learned, step: learned_temperature(learned["logit"])
    if settings.temperature_schedule == "annealed":
        annealed = annealed_temperature(
            settings.temperature_decay_steps,
            settings.temperature,
            settings.temperature_floor,
        )
        return lambda learned, step: annealed(jnp.maximum(step - num_steps_before, 0))
    constant = constant_temperature(settings.temperature)
    return lambda learned, step: constant(step)


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
