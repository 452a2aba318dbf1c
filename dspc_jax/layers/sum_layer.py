r"""Sum layers over partitions: weighted sums of products of child units.

With weights :math:`w_{pod} \ge 0`, :math:`\sum_d w_{pod} = 1`, unit :math:`o` of
partition :math:`p` is :math:`\sum_d w_{pod}\, \pi_d(\text{children})`:

* ``tucker`` (the einsum layer): :math:`d = (i, j)` runs over all pairs of a left and a
  right unit, :math:`\pi_{ij} = l_i r_j`;
* ``hadamard``: :math:`\pi_d = l_d r_d`, one product per unit;
* a partition with one child: :math:`\pi_d = l_d`.

Everything is computed as log-einsum-exp: children are shifted by their greatest unit,
exponentiated, multiplied with the weights in one batched product, and logged.

References:
    Peharz et al., "Einsum Networks", ICML 2020 (eq. 4, the log-einsum-exp trick).
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.numerics import finite_or_zero, safe_divide, safe_log
from dspc_jax.ops.products import contract, expand, outer
from dspc_jax.ops.storage import computed_once
from dspc_jax.types import Array, PyTree

KINDS = ("tucker", "hadamard")
_SMALL = 1 / 8
"""The greatest part of all logits that a small table of sums holds."""


def weight_shape(kind: str, child_units: Sequence[int]) -> tuple[int, ...]:
    """The trailing axes of a sum's weights: ``(K, K)`` for pairs, else ``(K,)``."""
    return tuple(child_units) if kind == "tucker" else (child_units[0],)


def weights(tables: PyTree) -> PyTree:
    """The softmax of every sum of a circuit.

    Small tables whose rows are of one shape are joined for it: each softmax costs the
    compiler a third of a second, and copies of small tables cost next to nothing.

    Args:
        tables: a tree of logits ``[P, O, *weight_shape]``.

    Returns:
        The tree of weights, each sum's adding up to 1.
    """
    logits, tree = jax.tree.flatten(tables)
    largest = _SMALL * sum(table.size for table in logits)
    groups: dict[Any, list[int]] = {}
    for number, table in enumerate(logits):
        group = table.shape[1:] if table.size <= largest else number
        groups.setdefault(group, []).append(number)
    out: list[Any] = [None for _ in logits]
    for numbers in groups.values():
        joined = [logits[number] for number in numbers]
        normalized = _softmax(jnp.concatenate(joined) if joined[1:] else joined[0])
        parts = jax.lax.split(normalized, [len(table) for table in joined])
        for number, part in zip(numbers, parts, strict=True):
            out[number] = part
    return jax.tree.unflatten(tree, out)


def _softmax(logits: Array) -> Array:
    flat = logits.reshape(*logits.shape[:2], -1)
    return jax.nn.softmax(flat, axis=-1).reshape(logits.shape)


def factors(kind: str, children: Sequence[Array]) -> list[Array]:
    """The factors that the layer multiplies, logs ``[P, K, N]``.

    There are two factors whose pairs are the products (tucker), or there is one factor
    whose units are the products: with ``hadamard`` the children are added unit by unit
    *before* anything is exponentiated, since their best units may differ.
    """
    if len(children) == 2 and kind == "tucker":
        return list(children)
    return [functools.reduce(jnp.add, children)]


def log_sum(kind: str, weights: Array, children: Sequence[Array]) -> Array:
    """Log of the weighted sums of products.

    Args:
        kind: ``"tucker"`` or ``"hadamard"``.
        weights: ``[P, O, *weight_shape]``, linear, each sum's adding up to 1; 0 is
            legal.
        children: per side, log-values ``[P, K, N]``; -inf is legal.

    Returns:
        ``[P, O, N]``. If all products with positive weight are impossible the result is
        -inf and all gradients of that entry are 0. (The same happens where all products
        with positive weight in one sum of a partition lie 88 nats below the best
        product of its other sums: float32 ends there.)
    """
    return _log_einsum_exp(weights, tuple(factors(kind, children)))[0]


@Differentiable
def _log_einsum_exp(
    weights: Array, children: tuple[Array, ...]
) -> tuple[Array, list[Array], Array]:
    """The logs of the sums, and what the way back needs of the way there.

    Returns:
        Logs ``[P, O, N]``, the exponentials of the shifted children ``[P, K, N]`` and
        the sums of their products ``[P, O, N]``.
    """
    logs, tops = shifted(weights, children)
    values = [jnp.exp(log) for log in logs]
    flat = weights.reshape(*weights.shape[:2], -1)
    total = contract(flat, _products(values))
    return safe_log(total) + functools.reduce(jnp.add, tops), values, total


def _products(values: Sequence[Array]) -> Array:
    """``[P, D, N]``."""
    if len(values) == 1:
        return values[0]
    left, right = values
    pairs = left[:, :, None] * right[:, None]
    return pairs.reshape(pairs.shape[0], -1, pairs.shape[-1])


def shifted(
    weights: Array, children: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """The factors with their best unit at 0, and the shifts.

    A unit without a positive weight in any sum may be arbitrarily better than all units
    with one; it becomes -inf.

    Args:
        weights: ``[P, O, *weight_shape]``, linear.
        children: the layer's `factors`, logs ``[P, K, N]``.

    Returns:
        Logs ``[P, K, N]`` and tops ``[P, 1, N]``, which are finite. No gradient passes
        the tops: they cancel in every use. (That of a maximum compares its argument
        with it. Where a compiler computes either one twice, rounded differently, none
        is equal, and the gradient is NaN.)
    """
    logs, tops = [], []
    for side, child in enumerate(children):
        others = tuple(a for a in range(1, weights.ndim) if a != side + 2)
        alive = jnp.any(weights > 0, axis=others)[..., None]
        child = jnp.where(alive, child, -jnp.inf)
        top = finite_or_zero(jnp.max(child, axis=1, keepdims=True))
        tops.append(jax.lax.stop_gradient(top))
        logs.append(child - tops[-1])
    return logs, tops


def _log_einsum_exp_fwd(weights, children):
    out = _log_einsum_exp(weights, children)
    _, values, total = out
    return out, (weights, values, total)


def _log_einsum_exp_bwd(residuals, cotangents):
    """Two products of the forward's size, which is not computed again.

    Those of the exponentials and the sums are 0 but in second derivatives.
    """
    weights, values, total = residuals
    g, g_values, g_total = cotangents
    g = safe_divide(g, total) + g_total
    flat = weights.reshape(*weights.shape[:2], -1)
    d_weights = outer(g, _products(values)).reshape(weights.shape)
    d_pairs = expand(flat, g)
    if len(values) == 1:
        return d_weights, ((d_pairs + g_values[0]) * values[0],)
    left, right = values
    d_pairs = d_pairs.reshape(*left.shape[:2], *right.shape[1:])
    # Written out slice by slice, see `dspc_jax.ops.numerics.sum_slices`.
    d_left = [d_pairs[:, :, j] * right[:, None, j] for j in range(right.shape[1])]
    d_right = [d_pairs[:, i] * left[:, i, None] for i in range(left.shape[1])]
    return d_weights, (
        (functools.reduce(jnp.add, d_left) + g_values[0]) * left,
        (functools.reduce(jnp.add, d_right) + g_values[1]) * right,
    )


_log_einsum_exp.defvjp(_log_einsum_exp_fwd, _log_einsum_exp_bwd)


def log_max(kind: str, weights: Array, children: Sequence[Array]) -> Array:
    """As `log_sum` with a maximum in place of the sum (max-product), ``[P, O, N]``.

    It only serves to choose, and has no gradient.
    """
    arrays = jax.lax.stop_gradient((weights, *factors(kind, children)))
    return computed_once(_greatest, *arrays)


def _greatest(weights: Array, *factors: Array) -> Array:
    best = safe_log(weights)[..., None]
    for child in reversed(factors):
        axis = best.ndim - 2
        size = child.shape[1]
        child = child.reshape(child.shape[0], *[1] * (axis - 1), *child.shape[1:])
        best = functools.reduce(
            jnp.maximum,
            [
                jax.lax.index_in_dim(best, d, axis, keepdims=False)
                + jax.lax.index_in_dim(child, d, axis, keepdims=False)
                for d in range(size)
            ],
        )
    return best
