r"""The standard gamma distribution of a shape a: tails, and quantiles with gradients.

For shapes from 16 on the tails are Temme's expansion, which is uniform in x: with
:math:`\lambda = x / a` and :math:`\eta^2 / 2 = \lambda - 1 - \log \lambda`,

.. math::
    Q(a, x) = \Phi(-\eta \sqrt a)
        + \frac{e^{-a \eta^2 / 2}}{\sqrt{2 \pi a}} \sum_n c_n(\eta) a^{-n} .

The functions :math:`c_n` are power series near 0, made here. For smaller shapes they
are JAX's incomplete gamma functions. A quantile is found by Newton's method from there,
and its derivative is the implicit one, :math:`dx / da = -(dP / da) / p(x)`, forward and
in reverse.

References:
    Temme, "The asymptotic expansion of the incomplete gamma functions", SIAM Journal on
    Mathematical Analysis, 1979.
    Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", NeurIPS 2018.
"""

from fractions import Fraction
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammainc, gammaincc, gammaln, log_ndtr, ndtri

from dspc_jax.leaves.positive import LEAST
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.types import Array

LARGE = 16.0
"""Least shape of the expansion: five terms are exact to 1e-8 there."""

_NUM_TERMS = 5
_NUM_COEFFICIENTS = 24
_NEAR = 1.2
"""Greatest size of eta at which the power series is taken; it has the radius 3.54."""

_MOST_STEPS = 12
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def deviance(ratio: Array, log_ratio: Array) -> Array:
    r""":math:`\lambda - 1 - \log \lambda`, with all its digits near 1.

    Args:
        ratio: lambda, positive.
        log_ratio: its logarithm; of lambdas from 1/2 to 3/2 it does not matter.

    Returns:
        In the shape of ``ratio``.
    """
    distance = ratio - 1
    is_near = jnp.abs(distance) < 0.5
    near = jnp.where(is_near, distance, 0.0)
    r = near / (near + 2)  # log(1 + d) = 2 atanh(r)
    square = r**2
    terms = [1 / (2 * n + 3) for n in range(12)]
    series = functools.reduce(lambda total, c: total * square + c, reversed(terms))
    return jnp.where(is_near, near * r - 2 * r * square * series, distance - log_ratio)


def stirling_error(x: Array) -> Array:
    """``log Gamma(x + 1)`` less ``(x + 1/2) log x - x + log(2 pi) / 2``; ``x > 0``."""
    small = jnp.minimum(x, 10.0)
    direct = gammaln(small + 1) - (small + 0.5) * jnp.log(small) + small - _HALF_LOG_TAU
    inverse = 1 / jnp.maximum(x, 10.0)
    square = inverse**2
    series = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))
    return jnp.where(x < 10.0, direct, inverse * series)


def log_tails(shape: Array, x: Array) -> tuple[Array, Array]:
    """``log P(a, x)`` and ``log Q(a, x)``, each exact to rounding in its tail.

    Args:
        shape: a, positive.
        x: of the same shape, at least `LEAST`.

    Returns:
        Both logarithms. They have first derivatives, in both modes.
    """
    is_large = shape >= LARGE
    large = _large_tails(jnp.where(is_large, shape, LARGE), x)
    # Farther out a small shape's tails are as good as constant, or are 0.
    small = _small_tails(jnp.where(is_large, 1.0, shape), x)
    return jax.tree.map(functools.partial(jnp.where, is_large), large, small)


def _large_tails(shape, x):
    ratio = x / shape
    half_square = deviance(ratio, jnp.log(x) - jnp.log(shape))
    size = jnp.sqrt(jnp.maximum(2 * half_square, 1e-12))
    # Next to 1, where the root has no derivative, eta is its power series' beginning.
    distance = ratio - 1
    start = distance * (1 - distance * (1 / 3 - distance * (7 / 36)))
    eta = jnp.where(
        jnp.abs(distance) < 1e-3, start, jnp.where(distance < 0, -size, size)
    )
    z = eta * jnp.sqrt(shape)
    sums = _expansion(eta, distance, shape) / jnp.sqrt(shape)

    def tail(z, sign):
        log_main = log_ndtr(z)
        log_scale = -0.5 * z**2 - _HALF_LOG_TAU - log_main
        return log_main + jnp.log1p(sign * jnp.exp(log_scale) * sums)

    return tail(z, -1.0), tail(-z, 1.0)


def _expansion(eta, distance, shape):
    """``sum_n c_n(eta) a^-n``."""
    is_near = jnp.abs(eta) < _NEAR
    near = jnp.where(is_near, eta, 0.0)
    inverse = 1 / shape
    total = jnp.zeros_like(eta)
    for row in reversed(_coefficients()):
        value = functools.reduce(lambda total, c: total * near + c, reversed(row))
        total = total * inverse + value
    eta = jnp.where(is_near, _NEAR, eta)
    mu = jnp.where(is_near, 1.0, distance)
    first = 1 / mu - 1 / eta
    second = 1 / eta**3 - 1 / mu**3 - 1 / mu**2 - 1 / (12 * mu)
    return jnp.where(is_near, total, first + second * inverse)


@functools.cache
def _coefficients() -> tuple[tuple[float, ...], ...]:
    """The power series of the first functions ``c_n``.

    Of ``mu = lambda - 1`` the series follows from ``mu mu' = eta (1 + mu)``. With
    ``f = eta / mu``: ``eta c_0 = f - 1`` and ``eta c_n = c_(n-1)' - c_(n-1)'(0) f``.
    """
    size = _NUM_COEFFICIENTS + 2 * _NUM_TERMS
    zero = Fraction(0)
    mu = [zero, Fraction(1)]
    for n in range(2, size + 2):
        # The coefficient of eta^n on both sides, of which mu[n] is the only unknown.
        known = sum((mu[i] * (n + 1 - i) * mu[n + 1 - i] for i in range(2, n)), zero)
        mu.append((mu[n - 1] - known) / (n + 1))
    f = [Fraction(1)]
    for n in range(1, size + 1):
        f.append(-sum((mu[i + 1] * f[n - i] for i in range(1, n + 1)), zero))
    rows = [f[1:]]
    for _ in range(_NUM_TERMS - 1):
        slope = [(i + 1) * c for i, c in enumerate(rows[-1][1:])]
        rows.append([s - slope[0] * c for s, c in zip(slope, f, strict=False)][1:])
    return tuple(tuple(map(float, row[:_NUM_COEFFICIENTS])) for row in rows)


def log_density(shape: Array, x: Array) -> Array:
    """``log p(x)`` of the standard gamma distribution, in nats."""
    ratio, log_ratio = x / shape, jnp.log(x) - jnp.log(shape)
    return log_peak(shape) - shape * deviance(ratio, log_ratio) - jnp.log(x)


def log_peak(shape: Array) -> Array:
    """``log (x p(x))`` at its greatest, which is at ``x = a``."""
    return 0.5 * jnp.log(shape) - _HALF_LOG_TAU - stirling_error(shape)


@jax.custom_jvp
def _small_tails(shape, x):
    below, above = gammainc(shape, x), gammaincc(shape, x)
    # Where these are 0: the first terms of a series and of a continued fraction.
    tiny = float(jnp.finfo(x.dtype).tiny)
    log_xp = jnp.log(x) + log_density(shape, x)
    log_below = log_xp - jnp.log(shape)
    log_above = log_xp - jnp.log(jnp.maximum(x - shape + 1, 1.0))
    return (
        jnp.where(below > tiny, jnp.log(jnp.maximum(below, tiny)), log_below),
        jnp.where(above > tiny, jnp.log(jnp.maximum(above, tiny)), log_above),
    )


@_small_tails.defjvp
def _small_tails_jvp(primals, tangents):
    shape, x = primals
    tails = _small_tails(shape, x)
    gradient: Any = jax.lax.random_gamma_grad
    slope = tangents[1] - gradient(shape, x) * tangents[0]
    log_p = log_density(shape, x)
    below, above = (jnp.exp(log_p - tail) for tail in tails)
    return tails, (below * slope, -above * slope)


@jax.custom_jvp
def gamma_quantile(uniform: Array, shape: Array) -> Array:
    """Turns uniform numbers into draws of the standard gamma distribution.

    Args:
        uniform: in (0, 1), any shape; no derivative.
        shape: a, positive, of the same shape.

    Returns:
        Draws of at least `LEAST`, with the pathwise derivative in the shape: what a
        draw moves by, its uniform number held fixed. Of shapes below `LARGE` there is
        no second one.
    """
    low = jnp.log(uniform) - jnp.log1p(-uniform)
    # Of small draws P(a, x) = x^a / Gamma(a + 1), of others their cube root is Normal.
    log_start = (jnp.log(uniform) + gammaln(shape + 1)) / shape
    inverse = 1 / (9 * shape)
    cube_root = 1 - inverse + ndtri(uniform) * jnp.sqrt(inverse)
    near_normal = jnp.log(shape) + 3 * jnp.log(jnp.maximum(cube_root, 1e-3))
    log_start = jnp.where(
        cube_root > 1e-3, jnp.maximum(log_start, near_normal), log_start
    )
    least = math.log(LEAST)
    start = jnp.maximum(jnp.exp(jnp.maximum(log_start, least)), LEAST)

    def is_moving(state):
        i, _, move = state
        return (i < _MOST_STEPS) & jnp.any(jnp.abs(move) > enough)

    def step(state):
        i, x, _ = state
        below, above = log_tails(shape, x)
        log_slope = jnp.log(x) + log_density(shape, x) - below - above
        move = (low - (below - above)) * jnp.exp(-log_slope)
        move = jnp.clip(move, -1.0, 1.0)
        moved = jnp.maximum(x * jnp.exp(move), LEAST)
        return i + 1, moved, jnp.where(x > LEAST, move, jnp.maximum(move, 0.0))

    # A step is followed by one of about its square.
    enough = 0.3 * float(jnp.finfo(shape.dtype).eps) ** 0.5
    first = jnp.zeros((), jnp.int32)
    state = varying_alike((first, start, jnp.ones_like(start)))
    return jax.lax.while_loop(is_moving, step, state)[1]


@gamma_quantile.defjvp
def _gamma_quantile_jvp(primals, tangents):
    uniform, shape = primals
    x = gamma_quantile(uniform, shape)
    one = jnp.ones_like(x)
    below, above = jax.jvp(log_tails, (shape, x), (one, jnp.zeros_like(x)))[1]
    log_below, log_above = log_tails(shape, x)
    log_p = log_density(shape, x)
    # Of the smaller tail, which has the digits.
    move = jnp.where(
        log_below < log_above,
        -below * jnp.exp(log_below - log_p),
        above * jnp.exp(log_above - log_p),
    )
    move = jnp.where(x > LEAST, move, 0.0)
    return x, move * tangents[1]
