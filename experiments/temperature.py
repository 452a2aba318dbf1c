"""Temperatures of the relaxation as pure functions of the step, inside the step."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from experiments.flags import Settings

Schedule = Callable[[Any, jax.Array], jax.Array]
"""``(learned, step) -> temperature``: a positive float32 scalar."""


def init_learned(settings: Settings) -> dict[str, jax.Array]:
    """What is trained beside the circuit: ``{"log_temperature": []}``, or nothing."""
    if settings.temperature_schedule == "learned":
        return {"log_temperature": jnp.full((), math.log(settings.temperature))}
    return {}


def schedule(settings: Settings, num_steps_before: int = 0) -> Schedule:
    r"""The schedule that the flags ask for.

    - constant: :math:`T_0`.
    - annealed: :math:`\max(T_{min}, T_0 e^{-t / s})` after :math:`t` steps of its own.
    - learned: :math:`e^\theta` with a trained :math:`\theta`, first :math:`\log T_0`.

    None of them depends on the length of the run, so a longer run begins as a shorter
    one.

    Args:
        settings: the shared flags.
        num_steps_before: steps before the schedule begins (of pre-training).

    Returns:
        The function; ``learned`` is what `init_learned` made, as trained so far.

    References:
        Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR
        2017 (annealed and learned temperatures).
    """
    first = settings.temperature
    if settings.temperature_schedule == "learned":
        return lambda learned, step: jnp.exp(learned["log_temperature"])
    if settings.temperature_schedule == "annealed":

        def annealed(learned, step):
            del learned
            own = jnp.maximum(step - num_steps_before, 0).astype(jnp.float32)
            falling = first * jnp.exp(-own / settings.temperature_decay_steps)
            return jnp.maximum(settings.temperature_floor, falling)

        return annealed
    return lambda learned, step: jnp.float32(first)
