r"""Exact draws of unbounded counts from one uniform number each.

The unit interval is divided into pieces from the mode outwards, as for
`dspc_jax.leaves.quantiles.binomial_quantile`. How many are looked at depends on the
draws: the loop ends when every number has found its piece, after about as many steps as
the farthest draw is away from its mode. Where that could be more than `MOST_STEPS`
steps, the count is an asymptotic quantile in place of the exact one.
"""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from dspc_jax.leaves.gamma_functions import (
    deviance,
    gamma_quantile,
    stirling_error,
)
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.storage import computed_once
from dspc_jax.types import Array

MOST_STEPS = 2048
"""Steps from the mode that are looked at: of Poisson leaves with rates up to 90,000."""

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
_UNROLL = 8
_EXACT = 256.0
_TINY = float(jnp.finfo(jnp.float32).tiny)


class _Reach(NamedTuple):
    """How far draws of a type are from their means.

    Attributes:
        deviations: beyond them are less than a quarter of the distance of neighboring
            uniform numbers, under a Normal distribution.
        least: added, for distributions that are not like it.
    """

    deviations: float
    least: float


def _reach(dtype) -> _Reach:
    return _Reach(9.0, 40.0) if jnp.finfo(dtype).bits > 32 else _Reach(6.0, 16.0)


def poisson_quantile(uniform: Array, rate: Array) -> Array:
    """Turns uniform numbers into Poisson draws.

    Exact up to rounding for rates below 90,000. Beyond, the quantile is the expansion
    of Cornish and Fisher, whose cuts are off by less than 1e-4 of one count.

    Args:
        uniform: in (0, 1), any shape.
        rate: same shape, at least 0, finite.

    Returns:
        Draws as floats, 0 where the rate is 0. Not differentiable.

    References:
        Cornish and Fisher, "Moments and cumulants in the specification of
        distributions", 1938.
    """
    return computed_once(_poisson_quantile, *jax.lax.stop_gradient((uniform, rate)))


def _poisson_quantile(uniform, rate):
    reach = _reach(rate.dtype)
    most = reach.deviations * jnp.sqrt(rate) + reach.least
    far = most > MOST_STEPS
    near = jnp.where(far, 1.0, rate)
    mode = jnp.floor(near)
    mass = jnp.exp(_poisson_log_mass(mode, near))
    inverse_rate = 1 / jnp.maximum(near, float(jnp.finfo(rate.dtype).tiny))
    draw, _ = _searched(
        uniform,
        mode,
        mass,
        lambda k: near / k,
        lambda k: k * inverse_rate,
        jnp.where(far, 0.0, most),
    )
    z = ndtri(uniform)
    root = jnp.sqrt(jnp.maximum(rate, 1.0))
    # The quantile, and half a count, since those below it are whole.
    tail = (z**2 - 1) / 6 - (z**3 + 2 * z) / (72 * root)
    whole = jnp.floor(rate)
    asymptotic = whole + jnp.floor(rate - whole + (z * root + tail) + 0.5)
    return jnp.where(far, asymptotic, draw)


def _poisson_log_mass(k: Array, rate: Array) -> Array:
    """``log p(k)`` for k within about one of the rate; terms of its size cancel."""
    above = jnp.maximum(k, 1.0)
    log_p = -_HALF_LOG_TAU - 0.5 * jnp.log(above) - stirling_error(above)
    ratio = rate / above
    log_p -= above * deviance(ratio, jnp.log(jnp.maximum(ratio, _TINY)))
    return jnp.where(k > 0, log_p, -rate)


def geometric_quantile(uniform: Array, mean: Array) -> Array:
    """Turns uniform numbers into geometric draws, in closed form.

    Args:
        uniform: in (0, 1), any shape.
        mean: same shape, at least 0, finite.

    Returns:
        Draws as floats, 0 where the mean is 0. Not differentiable.
    """
    uniform, mean = jax.lax.stop_gradient((uniform, mean))
    rate = jnp.log1p(1 / jnp.maximum(mean, _TINY))
    return jnp.maximum(jnp.ceil(-jnp.log1p(-uniform) / rate - 1), 0.0)


def negative_binomial_quantile(
    uniform: Array, mean: Array, concentration: Array
) -> Array:
    """Turns uniform numbers into negative binomial draws.

    Exact up to rounding where six deviations and eighteen times the ratio of mean and
    concentration are less than `MOST_STEPS`. Elsewhere counts below 256 are exact, and
    greater ones are quantiles of a gamma distribution, an expansion in one over the
    count: their distribution function is off by less than 1e-4 of the distance to 0
    or 1.

    Args:
        uniform: in (0, 1), any shape.
        mean: same shape, at least 0, finite.
        concentration: same shape, see `dspc_jax.leaves.NegativeBinomial`.

    Returns:
        Draws as floats, 0 where the mean is 0. Not differentiable.

    References:
        DiDonato and Morris, "Significant digit computation of the incomplete beta
        function ratios", ACM Transactions on Mathematical Software, 1992.
    """
    arguments = jax.lax.stop_gradient((uniform, mean, concentration))
    return computed_once(_negative_binomial_quantile, *arguments)


def _negative_binomial_quantile(uniform, mean, concentration):
    reach = _reach(mean.dtype)
    odds = mean / concentration
    most = reach.deviations * jnp.sqrt(mean * (1 + odds)) + reach.least
    most += 0.5 * reach.deviations**2 * odds
    far = most > MOST_STEPS
    share = odds / (1 + odds)
    inverse_share = 1 / jnp.maximum(share, float(jnp.finfo(mean.dtype).tiny))
    mode = jnp.floor(jnp.maximum(concentration - 1, 0.0) * odds)
    mode = jnp.where(far, 0.0, mode)
    draw, is_open = _searched(
        uniform,
        mode,
        jnp.exp(negative_binomial_log_mass(mode, odds, concentration)),
        lambda k: share * (k - 1 + concentration) / k,
        lambda k: inverse_share * k / (k - 1 + concentration),
        jnp.where(far, _EXACT, most),
    )

    def asymptotic():
        rate = jnp.log1p(1 / jnp.maximum(odds, 1.0))
        count = gamma_quantile(uniform, concentration) / rate
        count += (concentration - 1) * rate / 12
        return jnp.ceil(count - (concentration + 1) / 2)

    beyond = far & is_open
    other = jax.lax.cond(jnp.any(beyond), asymptotic, lambda: draw)
    return jnp.where(beyond, other, draw)


def negative_binomial_log_mass(k: Array, odds: Array, concentration: Array) -> Array:
    """``log p(k)`` of negative binomial counts, with all digits: no great terms cancel.

    Args:
        k: counts.
        odds: the mean in units of the concentration, positive, of the same shape or one
            that broadcasts.
        concentration: as ``odds``.

    Returns:
        In nats; differentiable in odds and concentration.

    References:
        Loader, "Fast and accurate computation of binomial probabilities", 2000.
    """
    above = jnp.maximum(k, 1.0)
    total = above + concentration
    ratios = (
        total / ((1 + odds) * concentration),
        total * odds / ((1 + odds) * above),
    )
    first, second = (deviance(r, jnp.log(jnp.maximum(r, _TINY))) for r in ratios)
    log_p = stirling_error(total) - stirling_error(concentration)
    log_p -= stirling_error(above) + concentration * first + above * second
    log_p += 0.5 * jnp.log(concentration / (total * above)) - _HALF_LOG_TAU
    return jnp.where(k > 0, log_p, -concentration * jnp.log1p(odds))


def _searched(
    uniform: Array,
    mode: Array,
    mass: Array,
    up_ratio: Callable[[Array], Array],
    down_ratio: Callable[[Array], Array],
    most: Array,
) -> tuple[Array, Array]:
    """The counts whose pieces the uniform numbers fall into.

    Args:
        uniform: in (0, 1).
        mode: whole numbers at which the search begins.
        mass: their probabilities.
        up_ratio: ``p(k) / p(k - 1)`` of ``k > 0``.
        down_ratio: ``p(k - 1) / p(k)`` of ``k > 0``.
        most: steps from the mode after which a number is given up.

    Returns:
        The counts, and which numbers fell into none of the pieces: their count is the
        mode's.
    """

    def step(state):
        i, rest, up, down, draw = state
        k_up, k_down = mode + i, mode - i
        up = up * up_ratio(k_up)
        down = jnp.where(k_down >= 0, down * down_ratio(jnp.maximum(k_down + 1, 1)), 0)
        draw = jnp.where((rest >= 0) & (rest < up), k_up, draw)
        rest = rest - up
        draw = jnp.where((rest >= 0) & (rest < down), k_down, draw)
        return i + 1, rest - down, up, down, draw

    def steps(state):
        return functools.reduce(lambda state, _: step(state), range(_UNROLL), state)

    def is_open(state):
        i, rest = state[:2]
        return jnp.any((rest >= 0) & (i <= most))

    first = jnp.ones((), uniform.dtype)
    state = varying_alike((first, uniform - mass, mass, mass, mode))
    _, rest, _, _, draw = jax.lax.while_loop(is_open, steps, state)
    return draw, rest >= 0
