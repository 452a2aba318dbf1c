"""Temperatures of a relaxation, as pure functions of the step: none ever recompiles.

References:
    Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (annealing).
    Lang et al. 2022, section 3.2, and section 4 for the three schedules compared.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array

Schedule = Callable[[Array], Array]
"""Temperature as a pure function of the (traced) step, of any shape."""


def constant_temperature(value: float) -> Schedule:
    """``t = value`` at every step."""
    return lambda step: jnp.full(jnp.shape(step), value, jnp.float32)


def annealed_temperature(
    num_steps: int, *, start: float = 1.0, end: float = 0.5
) -> Schedule:
    """``max(end, start * exp(-step / num_steps))``; the paper's is start 1, end 0.5.

    Args:
        num_steps: steps in which the temperature falls by a factor of e.
        start: the temperature of step 0.
        end: the lowest temperature.

    Returns:
        The schedule.

    Raises:
        ValueError: ``num_steps`` is not positive.
    """
    num_steps = whole_number("num_steps", num_steps, least=1)
    return lambda step: jnp.maximum(end, start * jnp.exp(-step / num_steps))


def learned_temperature(logit: Array) -> Array:
    """``sigmoid(logit)``: a parameter to train; 0 gives 0.5, as in the paper's code."""
    return jax.nn.sigmoid(logit)
