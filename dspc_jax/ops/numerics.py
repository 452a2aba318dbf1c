"""Log-space primitives: values may be -inf; no value or gradient becomes NaN.

What is NaN already stays so: it is never taken for something impossible.
"""

import functools

import jax
import jax.numpy as jnp

from dspc_jax.types import Array


def finite_or_zero(x: Array) -> Array:
    """``x`` where it is finite, else 0; no gradient passes the replaced entries."""
    return jnp.where(jnp.isfinite(x), x, 0.0)


def safe_sqrt(x: Array) -> Array:
    r"""The square root with a finite gradient at 0.

    :math:`\sqrt{\max(x, 0)}`; the gradient is :math:`1 / (2 \sqrt x)` above 0, and 0 at
    and below it: for the root of a squared norm, such as the MMD, that is one of the
    subgradients of the norm.

    Args:
        x: any shape.

    Returns:
        The roots, in the shape of ``x``.
    """
    zero = x <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_log(x: Array) -> Array:
    """``log x`` with ``log 0 = -inf`` and gradient 0 there, not infinity."""
    impossible = x <= 0
    return jnp.where(impossible, -jnp.inf, jnp.log(jnp.where(impossible, 1.0, x)))


@jax.custom_jvp
def safe_divide(a: Array, b: Array) -> Array:
    """``a / b``, and 0 with gradient 0 wherever ``b`` is 0.

    The derivative ``(da - (a / b) db) / b`` never squares ``b``, which may be tiny.
    """
    nonzero = b != 0
    return jnp.where(nonzero, a / jnp.where(nonzero, b, 1.0), 0.0)


@safe_divide.defjvp
def _safe_divide_jvp(primals, tangents):
    quotient = safe_divide(*primals)
    return quotient, safe_divide(tangents[0] - quotient * tangents[1], primals[1])


def exp_shifted(x: Array, axis: int) -> tuple[Array, Array]:
    """``exp(x - m)`` and ``m``, the maximum along ``axis`` (kept, 0 where all is -inf).

    Args:
        x: log-values; -inf means impossible.
        axis: the axis whose maximum becomes 1.

    Returns:
        ``(e, m)`` with ``x = log e + m``; a row of -inf gives ``e = 0`` and ``m = 0``.
        No gradient passes ``m``: it cancels in every use ``log(w e) + m``.
    """
    m = jax.lax.stop_gradient(finite_or_zero(jnp.max(x, axis=axis, keepdims=True)))
    return jnp.exp(x - m), m


def logsumexp(x: Array, axis: int) -> Array:
    """``log sum exp x`` along ``axis``; a row of -inf gives -inf and zero gradients."""
    e, m = exp_shifted(x, axis)
    return safe_log(jnp.sum(e, axis=axis)) + jnp.squeeze(m, axis)


def log_softmax(x: Array, axis: int) -> Array:
    """``x - logsumexp(x)``; an entry -inf stays -inf and gets gradient 0."""
    possible = x != -jnp.inf
    top = jax.lax.stop_gradient(finite_or_zero(jnp.max(x, axis=axis, keepdims=True)))
    shifted = jnp.where(possible, x - top, 0.0)
    total = jnp.sum(jnp.where(possible, jnp.exp(shifted), 0.0), axis, keepdims=True)
    return jnp.where(possible, shifted - safe_log(total), -jnp.inf)


def softplus(x: Array) -> Array:
    """``log(1 + exp x)`` to float32 rounding of max(1, result), and its exact gradient.

    Several times faster on CPU than the form with ``log1p``. That form has more digits
    near 0, which a sum with terms of order 1 would lose again.
    """
    size = jnp.abs(x)  # both halves in one function of |x|: 1/2 is the slope at 0
    # The select keeps XLA's CPU backend from fusing this into a reduction, which would
    # compute one number at a time. It changes no value: beyond 80 (37 would do in
    # float64, 17 in float32) the logarithm is 0.
    rest = jnp.where(size < 80.0, jnp.log(1.0 + jnp.exp(-size)), 0.0)
    return 0.5 * (x + size) + rest


def _slices(x: Array, axis: int) -> list[Array]:
    return [
        jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])
    ]


def sum_slices(x: Array, axis: int) -> Array:
    """``sum(x, axis)`` for a short axis, not the last, written out slice by slice.

    It gives the same numbers as a reduction, in one fused pass with the examples in the
    vector lanes: on CPU an order of magnitude faster than XLA's reduction over an inner
    axis.
    """
    return functools.reduce(jnp.add, _slices(x, axis))


def max_slices(x: Array, axis: int) -> Array:
    """``max(x, axis)``, written out like `sum_slices`."""
    return functools.reduce(jnp.maximum, _slices(x, axis))
