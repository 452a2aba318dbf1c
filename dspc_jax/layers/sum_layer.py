r"""Sum layers over partitions: weighted sums of products of child units.

With weights :math:`w_{pod} \ge 0`, :math:`\sum_d w_{pod} = 1`, unit :math:`o` of
partition :math:`p` is :math:`\sum_d w_{pod}\, \pi_d(\text{children})`:

* ``tucker`` (the einsum layer): :math:`d = (i, j)` runs over all pairs of a left and a
  right unit, :math:`\pi_{ij} = l_i r_j`;
* ``cp``: :math:`\pi_d = l_d r_d`, one product per unit;
* a partition with one child: :math:`\pi_d = l_d`.

Everything is computed as log-einsum-exp: children are shifted by their greatest unit,
exponentiated, multiplied with the weights in one batched product, and logged.

References:
  Peharz et al., "Einsum Networks", ICML 2020 (eq. 4, the log-einsum-exp trick).
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from dspc_jax.numerics import (
    exp_shifted,
    safe_divide,
    safe_log,
)
from dspc_jax.types import Array

KINDS = ("tucker", "cp")


def weight_shape(kind: str, child_units: Sequence[int]) -> tuple[int, ...]:
    """The trailing axes of a sum's weights: ``(K, K)`` for pairs, else ``(K,)``."""
    return tuple(child_units) if kind == "tucker" else (child_units[0],)


def products(kind: str, children: Sequence[Array]) -> Array:
    """All products of child units ``[P, K, N]``, flat: ``[P, D, N]``."""
    if len(children) == 1:
        return children[0]
    left, right = children
    if kind == "cp":
        return left * right
    pairs = left[:, :, None] * right[:, None]
    return pairs.reshape(left.shape[0], -1, left.shape[-1])


def log_sum(kind: str, weights: Array, children: Sequence[Array]) -> Array:
    """Log of the weighted sums of products.

    Args:
      kind: ``"tucker"`` or ``"cp"``.
      weights: ``[P, O, *weight_shape]``, linear, each sum's adding up to 1; 0 is legal.
      children: per side, log-values ``[P, K, N]``; -inf is legal.

    Returns:
      ``[P, O, N]``. If all products with positive weight are impossible the result is
      -inf and all gradients of that entry are 0.
    """
    flat = weights.reshape(*weights.shape[:2], -1)
    return _log_einsum_exp(kind, flat, tuple(children))


def _forward(kind, weights, children):
    shifted = [exp_shifted(child, axis=1) for child in children]
    pairs = products(kind, [e for e, _ in shifted])
    total = jnp.einsum("pod,pdn->pon", weights, pairs, precision="highest")
    return shifted, pairs, total


def _log_einsum_exp_impl(kind, weights, children):
    shifted, _, total = _forward(kind, weights, children)
    return safe_log(total) + sum(m for _, m in shifted)


_log_einsum_exp = jax.custom_vjp(_log_einsum_exp_impl, nondiff_argnums=(0,))


def _log_einsum_exp_fwd(kind, weights, children):
    return _log_einsum_exp_impl(kind, weights, children), (weights, children)


def _log_einsum_exp_bwd(kind, residuals, g):
    """Two products of the forward's size; the forward is recomputed, not stored."""
    weights, children = residuals
    shifted, pairs, total = _forward(kind, weights, children)
    g = safe_divide(g, total)
    d_weights = jnp.einsum("pon,pdn->pod", g, pairs, precision="highest")
    d_pairs = jnp.einsum("pod,pon->pdn", weights, g, precision="highest")
    values = [e for e, _ in shifted]
    return d_weights, tuple(
        d * e for d, e in zip(_through(kind, d_pairs, values), values, strict=True)
    )


def _through(kind, d_pairs, values):
    """Pulls a cotangent of `products` back to the children."""
    if len(values) == 1:
        return (d_pairs,)
    left, right = values
    if kind == "cp":
        return (d_pairs * right, d_pairs * left)
    d_pairs = d_pairs.reshape(*left.shape[:2], *right.shape[1:])
    # Written out slice by slice, see `dspc_jax.numerics.sum_slices`.
    return (
        sum(d_pairs[:, :, j] * right[:, None, j] for j in range(right.shape[1])),
        sum(d_pairs[:, i] * left[:, i, None] for i in range(left.shape[1])),
    )


_log_einsum_exp.defvjp(_log_einsum_exp_fwd, _log_einsum_exp_bwd)


def log_max(kind: str, weights: Array, children: Sequence[Array]) -> Array:
    """As `log_sum` with a maximum in place of the sum (max-product), ``[P, O, N]``."""
    log_weights = safe_log(weights)[..., None]
    if len(children) == 1 or kind == "cp":
        best = sum(children)
        return _max(
            [log_weights[:, :, d] + best[:, None, d] for d in range(best.shape[1])]
        )
    left, right = children
    over_right = _max(
        [
            log_weights[:, :, :, j] + right[:, None, None, j]
            for j in range(right.shape[1])
        ]
    )
    return _max([over_right[:, :, i] + left[:, None, i] for i in range(left.shape[1])])


def _max(slices: list[Array]) -> Array:
    return functools.reduce(jnp.maximum, slices)
