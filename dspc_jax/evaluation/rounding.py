"""Divisions of whole numbers, rounded down, of lossless transforms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dspc_jax.types import Array

Divide = Callable[[Array, int], Array]
"""One of these functions."""


def floor_divide(a: Array, divisor: int) -> Array:
    """A whole number divided by another, rounded down.

    Args:
        a: whole numbers, signed or floats.
        divisor: positive.

    Returns:
        Of the same shape and type.
    """
    return a // divisor


def soft_floor_divide(a: Array, divisor: int) -> Array:
    """`floor_divide` of floats with the derivative of a division.

    Args:
        a: floats.
        divisor: positive.

    Returns:
        Of the same shape and type.
    """
    exact = a / divisor
    return exact + jax.lax.stop_gradient(jnp.floor(exact) - exact)
