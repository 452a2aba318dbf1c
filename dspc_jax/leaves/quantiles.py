"""Exact discrete draws from one uniform number each: inverse distribution functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.storage import computed_once
from dspc_jax.types import Array


def log_choose(num_trials: int | np.ndarray, k: Array) -> Array:
    """``log (N choose k)``, looked up.

    Args:
        num_trials: N, static: a number, or an array that is `aligned` with ``k``.
        k: whole numbers in ``0..N``, any shape.

    Returns:
        Of the shape and type of ``k``.
    """
    sizes, number = np.unique(num_trials, return_inverse=True)
    table = np.concatenate([_log_coefficients(int(n)) for n in sizes])
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    index = k.astype(jnp.int32)
    if len(sizes) > 1:
        index += aligned(starts[number].reshape(np.shape(num_trials)), index)
    return jnp.asarray(table, k.dtype)[index]


def _log_coefficients(num_trials: int) -> np.ndarray:
    n, k = num_trials, np.arange(num_trials + 1)
    log_factorial = special.gammaln(np.arange(n + 1) + 1.0)
    return log_factorial[n] - log_factorial[k] - log_factorial[n - k]


@functools.lru_cache(maxsize=1024)
def _search_width(num_trials: int, rest: float) -> int:
    """Steps from the mode that hold all but ``rest`` of every Binomial(num_trials, p).

    Args:
        num_trials: N.
        rest: a share of the mass.
    """
    p = np.linspace(0.0, 0.5, 201)[1:]
    mode = np.floor((num_trials + 1) * p)
    # Of both tails, since 1 - rest / 2 has not the digits.
    low = mode - np.ceil(special.bdtrik(rest / 2, num_trials, p))
    high = num_trials - 1 - np.floor(special.bdtrik(rest / 2, num_trials, 1 - p)) - mode
    return int(max(high.max(), low.max())) + 1


def binomial_quantile(uniform: Array, num_trials: int | np.ndarray, p: Array) -> Array:
    r"""Turns uniform numbers into Binomial(``num_trials``, ``p``) draws.

    The unit interval is divided into pieces from the mode outwards (mode, one above,
    one below, two above, ...), and the number falls into one of them. The sizes of the
    pieces follow from the ratio of neighboring probabilities. The draws are exact up to
    rounding, take one uniform number each, and need no data-dependent loop:
    about ``11 sqrt(N p (1-p))`` fused steps.

    Args:
        uniform: in (0, 1), any shape.
        num_trials: N, static: a number, or an array that is `aligned` with ``p``. All
            draws take as many steps as those of the greatest.
        p: success probabilities, same shape, in [0, 1].

    Returns:
        Draws as floats, 0 where ``p == 0`` and N where ``p == 1``. Not differentiable.

    References:
        Kemp, "A modal method for generating binomial variables", 1986.
    """
    quantile = functools.partial(_binomial_quantile, num_trials)
    return computed_once(quantile, *jax.lax.stop_gradient((uniform, p)))


def _binomial_quantile(num_trials, uniform, p):
    n = float(num_trials) if np.ndim(num_trials) == 0 else aligned(num_trials, p)
    flipped = p > 0.5
    small = jnp.where(flipped, 1 - p, p)  # in this half the odds are at most 1
    odds = small / (1 - small)
    mode = jnp.floor((n + 1) * small)
    tiny = float(jnp.finfo(p.dtype).tiny)
    log_mass = mode * jnp.log(jnp.maximum(small, tiny))
    log_mass += (n - mode) * jnp.log1p(-small)
    mass = jnp.exp(log_choose(num_trials, mode) + log_mass)
    inverse_odds = 1 / jnp.maximum(odds, tiny)

    def step(i, state):
        rest, up, down, draw = state
        k_up, k_down = mode + i, mode - i
        rest_down = n - k_down
        inverse = 1 / (k_up * rest_down)  # one division for both ratios
        up = jnp.where(k_up <= n, up * ((n - k_up + 1) * rest_down * inverse * odds), 0)
        ratio = (k_down + 1) * k_up * inverse * inverse_odds
        down = jnp.where(k_down >= 0, down * ratio, 0)
        draw = jnp.where((rest >= 0) & (rest < up), k_up, draw)
        rest = rest - up
        draw = jnp.where((rest >= 0) & (rest < down), k_down, draw)
        return rest - down, up, down, draw

    state = (uniform - mass, mass, mass, mode)
    # What is left out is below the distance of neighboring uniform numbers.
    rest = float(jnp.finfo(p.dtype).eps) / 12
    width = max(_search_width(int(n), rest) for n in np.unique(num_trials))
    # Unrolled into one pass over the numbers; by 64 at most, to keep programs small.
    draw = jax.lax.fori_loop(1, width + 1, step, state, unroll=min(width, 64))[-1]
    return jnp.where(flipped, n - draw, draw)


def categorical_quantile(uniform: Array, p: Array) -> Array:
    """Turns uniform numbers into categorical draws.

    The unit interval is divided into one piece per value.

    Args:
        uniform: in (0, 1), shape ``[...]``.
        p: probabilities ``[..., M]``, not necessarily normalized to the last digit.

    Returns:
        Values ``0..M-1`` as floats, ``[...]``; a value of probability 0 is never drawn.
    """
    cumulative = jnp.cumsum(p, axis=-1)
    # Strictly below the total, so that the last value with p > 0 closes the interval.
    target = (uniform * cumulative[..., -1])[..., None]
    return jax.lax.stop_gradient(
        jnp.sum((cumulative <= target).astype(p.dtype), axis=-1)
    )


def table_quantile(
    uniform: Array, cumulative: Array, index: tuple[Array, ...]
) -> Array:
    """Turns uniform numbers into draws from rows of a table, as `categorical_quantile`.

    Each row is bisected: a draw reads ``log2 M`` numbers, not M.

    Args:
        uniform: in (0, 1), shape ``[..., C]``.
        cumulative: sums of probabilities, ``[*A, C, M]``, M values on the last axis.
        index: an index into each of the axes A, ``[...]``.

    Returns:
        Values ``0..M-1`` as floats, ``[..., C]``.
    """
    *rows, num_channels, size = cumulative.shape
    channels = jnp.arange(num_channels).reshape(*[1] * index[0].ndim, -1)
    row = jnp.ravel_multi_index(index, rows, mode="clip")[..., None]
    row = (row * num_channels + channels) * size
    flat = cumulative.reshape(-1)
    target = uniform * flat[row + size - 1]
    below = jnp.zeros_like(row)
    for step in (2**n for n in reversed(range(size.bit_length()))):
        place = below + (step - 1)
        is_below = flat[row + jnp.minimum(place, size - 1)] <= target
        below = jnp.where(is_below & (place < size), below + step, below)
    return jax.lax.stop_gradient(below.astype(uniform.dtype))
