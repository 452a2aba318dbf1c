"""Functions that make XLA store an array in memory instead of recomputing it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.types import Array, PyTree


def stored(x: Array) -> Array:
    """``x`` as an array of its own in memory.

    Without this, XLA fuses a transpose into every consumer of ``x``, which then reads
    across the last axis. (A constraint of the layout would be a custom call, which
    `jax.export` refuses, and before which all devices gather a sharded batch. Behind
    the barrier XLA's CPU backend chooses the layout that the consumers want.)
    """
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
        # Never true, but XLA does not look behind a barrier.
        never = jax.lax.optimization_barrier(jnp.zeros((), bool))
        return jax.lax.cond(never, unreachable, function, x, *others)

    def unreachable(*arguments):
        out = jax.eval_shape(function, *arguments)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), out)
        return varying_alike((zeros, arguments))[0]

    @once.def_vmap
    def all_at_once(size, is_batched, *arguments):
        # One conditional for the whole batch: vmap would turn it into a select, which
        # XLA fuses.
        del size
        batched = jax.vmap(function, [0 if batched else None for batched in is_batched])
        out = computed_once(batched, *arguments)
        return out, jax.tree.map(lambda _: True, out)

    return once(*varying_alike((x, *others)))
