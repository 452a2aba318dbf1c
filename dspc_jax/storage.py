"""Where XLA is told to store an array, and how, instead of recomputing it."""

from collections.abc import Callable

import jax
from jax.experimental.layout import Layout, with_layout_constraint
import jax.numpy as jnp

from dspc_jax.types import Array


def stored(x: Array) -> Array:
    """``x`` as an array of its own in memory, its last axis contiguous.

    Else XLA folds a transpose into whatever reads ``x``, and that reads across the
    last axis.
    """
    x = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return jax.lax.optimization_barrier(x)


def computed_once(function: Callable[..., Array], x: Array, *others: Array) -> Array:
    """``function(x, *others)``, long and elementwise, in a computation of its own.

    Else XLA folds all of it into each of its readers, and computes it that often. It
    cannot fold a branch; which one is taken it cannot know.
    """
    first = jax.lax.slice(x.ravel(), (0,), (1,))[0]
    out = jax.eval_shape(function, x, *others)

    def broken(*_):
        return jnp.full(out.shape, jnp.nan, out.dtype)

    return jax.lax.cond(jnp.isnan(first), broken, function, x, *others)
