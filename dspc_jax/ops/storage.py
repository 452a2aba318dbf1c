"""Functions that make XLA store an array in memory instead of recomputing it."""

from collections.abc import Callable

import jax
from jax.experimental.layout import Layout, with_layout_constraint
import jax.numpy as jnp

from dspc_jax.types import Array, PyTree


def stored(x: Array) -> Array:
    """``x`` as an array of its own in memory, its last axis contiguous.

    Without this, XLA fuses a transpose into every consumer of ``x``, which then reads
    across the last axis.
    """
    x = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return jax.lax.optimization_barrier(x)


def computed_once(function: Callable[..., PyTree], x: Array, *others: Array) -> PyTree:
    """``function(x, *others)``, long and elementwise, in a computation of its own.

    Without this, XLA's CPU backend fuses the whole expression into every consumer and
    recomputes it each time. A conditional blocks that fusion, because the compiler
    cannot prove which branch is taken. (Other backends weigh the cost of a fusion, and
    a conditional would cost more there.) The result must not be differentiated.
    """

    @jax.custom_batching.custom_vmap
    def once(*arguments):
        return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)

    def branch(x, *others):
        # A slice of the array in its shape: of a flattened one that is sharded, every
        # device would gather all of it.
        first = jax.lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
        # Never true, but XLA does not simplify the comparison.
        return jax.lax.cond(first > jnp.inf, unreachable, function, x, *others)

    def unreachable(*arguments):
        out = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), out)

    @once.def_vmap
    def all_at_once(size, is_batched, *arguments):
        # One conditional for the whole batch: vmap would turn it into a select, which
        # XLA fuses.
        del size
        batched = jax.vmap(function, [0 if batched else None for batched in is_batched])
        out = computed_once(batched, *arguments)
        return out, jax.tree.map(lambda _: True, out)

    return once(x, *others)
