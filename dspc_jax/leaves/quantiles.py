"""Exact discrete draws from one uniform number each: inverse distribution functions."""

from collections.abc import Callable
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.numerics import finite_or_zero
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


def table_quantile(uniform: Array, logits: Array, index: tuple[Array, ...]) -> Array:
    """Turns uniform numbers into draws from rows of a table, as `categorical_quantile`.

    A row is cut into blocks of about ``sqrt M`` values. A number falls into a block and
    then into a value of it: of the table nothing is made but the blocks' masses, of all
    rows or of those that are chosen, whichever are fewer.

    Args:
        uniform: in (0, 1), shape ``[..., C]``.
        logits: ``[*A, C, M]``, M values on the last axis, not necessarily normalized;
            -inf is impossible.
        index: an index into each of the axes A, ``[...]``.

    Returns:
        Values ``0..M-1`` as floats, ``[..., C]``; NaN where a logit of the row is.
    """
    uniform, logits = jax.lax.stop_gradient((uniform, logits))
    *axes, num_channels, size = logits.shape
    width = math.isqrt(size - 1) + 1
    channels = jnp.arange(num_channels).reshape(*[1] * index[0].ndim, -1)
    row = jnp.ravel_multi_index(index, axes, mode="clip")[..., None]
    row = row * num_channels + channels
    table = logits.reshape(-1, size)
    if are_many(row.shape, math.prod(axes) * num_channels):
        top, masses = (a[row] for a in _block_masses(table, width))
    else:
        top, masses = _block_masses(table[row], width)
    total, block, before = _first_above(masses, lambda total: uniform * total)
    # Gathered from the flat table: XLA would not fuse a gather of whole blocks.
    value = block[..., None] * width + jnp.arange(width).reshape(*[1] * block.ndim, -1)
    chosen = table.reshape(-1)[row[..., None] * size + jnp.minimum(value, size - 1)]
    chosen = jnp.where(value < size, jnp.exp(chosen - top[..., None]), 0.0)
    # The block's mass may have been added up in another order: stay below it.
    below_one = 1 - float(jnp.finfo(uniform.dtype).eps)
    rest = uniform * total - before
    _, inner, _ = _first_above(chosen, lambda mass: jnp.minimum(rest, mass * below_one))
    draw = jnp.minimum(block * width + inner, size - 1).astype(uniform.dtype)
    return jnp.where(jnp.isnan(total), jnp.nan, draw)


def are_many(chosen: tuple[int, ...], number: int) -> bool:
    """Whether no fewer are chosen than there are, or an unknown number.

    Args:
        chosen: the shape of the chosen ones; a size may be symbolic (`jax.export`).
        number: how many there are.
    """
    if not all(isinstance(size, int) for size in chosen):
        return True
    return math.prod(chosen) >= number


def _block_masses(logits: Array, width: int) -> tuple[Array, Array]:
    """``exp(logits - top)`` of ``[..., M]`` added up in blocks: ``[...], [..., B]``."""
    size = logits.shape[-1]
    top = finite_or_zero(jnp.max(logits, axis=-1))
    if rest := -size % width:
        before = [(0, 0)] * (logits.ndim - 1)
        logits = jnp.pad(logits, [*before, (0, rest)], constant_values=-jnp.inf)
    weights = jnp.exp(logits - top[..., None])
    blocks = weights.reshape(*weights.shape[:-1], -1, width)
    return top, jnp.sum(blocks, axis=-1)


def _first_above(
    masses: Array, target: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """The first of ``[..., B]`` masses, added up in order, whose sum exceeds a target.

    Args:
        masses: not negative. A mass of 0 moves no sum, so it is never the first.
        target: from the total to the target, below it where it is positive.

    Returns:
        The total, the position, and the sum before it, ``[...]`` each.
    """
    parts = jnp.moveaxis(masses, -1, 0)

    def add(total, part):
        return total + part, total + part

    total, sums = jax.lax.scan(add, jnp.zeros_like(parts[0]), parts, unroll=16)
    below = sums <= target(total)[None]
    position = jnp.sum(below.astype(jnp.int32), axis=0)
    before = jnp.max(jnp.where(below, sums, 0.0), axis=0)
    return total, jnp.minimum(position, masses.shape[-1] - 1), before
