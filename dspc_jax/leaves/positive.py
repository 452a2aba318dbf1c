"""Positive values: what leaves over them have in common."""

import jax.numpy as jnp
import numpy as np

from dspc_jax.leaves.family import impossible
from dspc_jax.ops.values import LARGEST
from dspc_jax.types import Array

LEAST = float(np.finfo(np.float32).tiny)
"""The least positive float32 number that is computed with in full."""

GREATEST = float(np.nextafter(np.float32(LARGEST), np.float32(0)))
"""The greatest value that is legal."""


def log_of(x: Array) -> Array:
    """``log x`` of positive values; finite, with gradient 0, of others. NaN of NaN."""
    is_low = x < LEAST
    return jnp.log(jnp.where(is_low, LEAST, x))


def possible(x: Array, log_p: Array) -> Array:
    """``log_p`` of positive values, -inf of others. NaN of NaN."""
    return jnp.where(x < LEAST, impossible(x), log_p)
