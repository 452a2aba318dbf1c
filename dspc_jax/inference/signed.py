r"""The upward pass of values of either sign: integrals of functions, not of densities.

A circuit is linear in every leaf, so it computes
:math:`\int \prod_v f_v(x_v)\, p(x)\, dx` where leaves hold the integrals of their
factors. These may be negative, so a value is :math:`m e^s`: a mantissa that is -1, 0 or
1, and a logarithm of its size. Gradients flow through the mantissa, also where it is 0.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.inference import levels
from dspc_jax.layers import mixing_layer, sum_layer
from dspc_jax.ops.numerics import finite_or_zero
from dspc_jax.ops.products import contract
from dspc_jax.parameters import CircuitWeights, Layout
from dspc_jax.types import Array


class Signed(NamedTuple):
    """Values ``mantissa * exp(log_size)``.

    Attributes:
        mantissa: of size 1, or 0.
        log_size: without gradients; -inf of what is impossible.
        exists: 1. A factor that a product lacks is 0 in all three, and counts as 1.
    """

    mantissa: Array
    log_size: Array
    exists: Array


def from_logs(logs: Array) -> Signed:
    """Values from their logarithms, which have gradients."""
    size = jax.lax.stop_gradient(logs)
    possible = size != -jnp.inf
    mantissa = jnp.where(possible, jnp.exp(logs - jnp.where(possible, size, 0.0)), 0.0)
    return Signed(mantissa, size, jnp.ones_like(size))


def scaled(values: Array, bounds: Array, log_size: Array) -> Signed:
    """``values * exp(log_size)``, normalized; sizes have no gradients.

    Args:
        values: of either sign.
        bounds: what they are in size at most; the size of a value that is 0. What is
            impossible is bounded by 0: it must not seem greater than what is not.
        log_size: without gradients.
    """
    size = jax.lax.stop_gradient(jnp.abs(values))
    size = jnp.where(size > 0, size, jax.lax.stop_gradient(bounds))
    possible = (size > 0) & (log_size != -jnp.inf)
    size = jnp.where(possible, size, 1.0)
    log_size = jnp.where(possible, log_size + jnp.log(size), -jnp.inf)
    return Signed(values / size, log_size, jnp.ones_like(values))


def times(a: Signed, values: Array) -> Signed:
    """Values multiplied by others, elementwise."""
    return scaled(a.mantissa * values, jnp.ones_like(a.mantissa), a.log_size)


def root(layout: Layout, weights: CircuitWeights, inputs: Signed) -> Signed:
    """The value of the circuit, ``[1, 1, N]``.

    Args:
        layout: the circuit.
        weights: its normalized parameters; those of leaves do not enter.
        inputs: the values of all input units, ``[G, K, N]``.
    """
    regions = [inputs]
    sums = functools.partial(_sums, layout.sum_layer)
    for level, tables, mixture in zip(
        layout.graph.levels, weights.sums, weights.mixtures, strict=True
    ):
        folds = [
            levels.upward(sums, fold, regions, table)
            for fold, table in zip(level.folds, tables, strict=True)
        ]
        out = jax.tree.map(lambda *parts: jnp.concatenate(parts), *folds)
        if level.mixture is not None:
            assert mixture is not None
            out = _mix(level.mixture, mixture, out)
        regions.append(out)
    return _sums("hadamard", [regions[-1]], weights.classes[None, None])


def _sums(kind: str, children: list[Signed], weights: Array) -> Signed:
    """As `dspc_jax.layers.sum_layer.log_sum`."""
    if len(children) == 2 and kind == "tucker":
        factors = children
    else:
        factors = [functools.reduce(_product, children)]
    sizes = [factor.log_size for factor in factors]
    shifted, tops = sum_layer.shifted(weights, sizes)
    bounds = [jnp.exp(size) for size in shifted]
    values = [f.mantissa * b for f, b in zip(factors, bounds, strict=True)]
    flat = weights.reshape(*weights.shape[:2], -1)
    total = contract(flat, _pairs(values))
    bound = contract(jax.lax.stop_gradient(flat), _pairs(bounds))
    top = functools.reduce(jnp.add, tops)
    return scaled(total, bound, jnp.broadcast_to(top, total.shape))


def _pairs(values: list[Array]) -> Array:
    """The products ``[P, D, N]`` of one factor or of all pairs of two."""
    if len(values) == 1:
        return values[0]
    left, right = values
    pairs = left[:, :, None] * right[:, None]
    return pairs.reshape(pairs.shape[0], -1, pairs.shape[-1])


def _product(a: Signed, b: Signed) -> Signed:
    left, right = (f.mantissa + (1 - f.exists) for f in (a, b))
    return Signed(left * right, a.log_size + b.log_size, jnp.ones_like(left))


def _mix(mixture, weights: Array, partitions: Signed) -> Signed:
    """As `dspc_jax.layers.mixing_layer.log_mix`; padding has weights of 0."""
    values, sizes = (
        mixing_layer.gather(mixture, a)
        for a in (partitions.mantissa, partitions.log_size)
    )
    shares = jnp.moveaxis(weights, 1, 2)[..., None]
    sizes = jnp.where(shares > 0, sizes, -jnp.inf)
    top = jax.lax.stop_gradient(finite_or_zero(jnp.max(sizes, axis=1)))
    bounds = shares * jnp.exp(sizes - top[:, None])
    total = jnp.sum(values * bounds, axis=1)
    return scaled(total, jnp.sum(bounds, axis=1), top)
