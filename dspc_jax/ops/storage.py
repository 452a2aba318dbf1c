"""Where XLA is told to store an array, and how, instead of recomputing it."""

from collections.abc import Callable

import jax
from jax.experimental.layout import Layout, with_layout_constraint
import jax.numpy as jnp

from dspc_jax.types import Array, PyTree


def stored(x: Array) -> Array:
    """``x`` as an array of its own in memory, its last axis contiguous.

    Else XLA folds a transpose into whatever reads ``x``, and that reads across the
    last axis.
    """
    x = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return jax.lax.optimization_barrier(x)


def computed_once(function: Callable[..., PyTree], x: Array, *others: Array) -> PyTree:
    """``function(x, *others)``, long and elementwise, in a computation of its own.

    Else XLA on CPU folds all of it into each of its readers, and computes it that
    often. It cannot fold a branch; which one is taken it cannot know. (Elsewhere it
    weighs what folding costs, and a branch costs more.) Not to be differentiated.
    """

    @jax.custom_batching.custom_vmap
    def once(*arguments):
        return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)

    def branch(x, *others):
        # A slice of the array as it is: of a flat one, devices would gather all of it.
        first = jax.lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
        # No number is beyond infinity, but XLA does not say so.
        return jax.lax.cond(first > jnp.inf, unreachable, function, x, *others)

    def unreachable(*arguments):
        out = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), out)

    @once.def_vmap
    def all_at_once(size, is_batched, *arguments):
        # One branch for the whole batch: one for each would be a select, and folded.
        del size
        batched = jax.vmap(function, [0 if batched else None for batched in is_batched])
        out = computed_once(batched, *arguments)
        return out, jax.tree.map(lambda _: True, out)

    return once(x, *others)
