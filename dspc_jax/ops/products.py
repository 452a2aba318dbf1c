"""The two batched products of a circuit, and their derivatives, in fast layouts.

Every product in a circuit runs between the units ``K`` of stacked regions and a longer
axis ``D`` (pairs of child units, pixels of a scope), for all examples ``N``. Both
directions and the outer product that is their derivative are the same three
contractions; each is written with the operand layouts that XLA's CPU backend multiplies
several times faster than the others. Full float32 everywhere: JAX's default is bfloat16
on TPU and TF32 on recent GPUs.
"""

import jax.numpy as jnp

from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.storage import stored
from dspc_jax.types import Array


@Differentiable
def expand(matrix: Array, units: Array) -> Array:
    """``sum_k matrix[b, k, d] units[b, k, n]``: ``[B, D, N]``."""
    return jnp.einsum("bkd,bkn->bdn", matrix, units, precision="highest")


def _expand_fwd(matrix, units):
    return expand(matrix, units), (matrix, units)


def _expand_bwd(residuals, g):
    matrix, units = residuals
    return outer(units, g), contract(matrix, g)


@Differentiable
def contract(matrix: Array, entries: Array) -> Array:
    """``sum_d matrix[b, k, d] entries[b, d, n]``: ``[B, K, N]``."""
    return jnp.einsum("bkd,bdn->bkn", matrix, entries, precision="highest")


def _contract_fwd(matrix, entries):
    return contract(matrix, entries), (matrix, entries)


def _contract_bwd(residuals, g):
    matrix, entries = residuals
    return outer(g, entries), expand(matrix, g)


def outer(units: Array, entries: Array) -> Array:
    """``sum_n units[b, k, n] entries[b, d, n]``: ``[B, K, D]``.

    With a long ``D`` XLA's CPU backend multiplies up to three times faster into the
    other order; with a short one the transposed copy costs more than that.
    """
    if entries.shape[1] <= 2 * units.shape[1]:
        return jnp.einsum("bkn,bdn->bkd", units, entries, precision="highest")
    product = jnp.einsum("bdn,bkn->bdk", entries, units, precision="highest")
    return jnp.swapaxes(stored(product), 1, 2)


expand.defvjp(_expand_fwd, _expand_bwd)
contract.defvjp(_contract_fwd, _contract_bwd)
