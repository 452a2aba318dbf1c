r"""Integrals of one leaf: of functions, of events, of products of two densities.

Three kinds of leaves have them. Those with finitely many values have all, as sums over
these. `QuadratureLeaf` has means of functions, `dspc_jax.leaves.ContinuousLeaf` has
probabilities of intervals, `OverlapLeaf` has integrals of products.

Parameters ``[D, K, ...]`` are those of D variables and K units here, and the leaf is
that of these variables (`dspc_jax.leaves.joining.at`).
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.leaves.family import (
    ContinuousLeaf,
    DirectLeaf,
    ExponentialLeaf,
    Leaf,
    TableLeaf,
)
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.numerics import finite_or_zero, safe_log
from dspc_jax.types import Array

_NARROW = 0.02
"""Nats between two values of a distribution function, below which their difference has
fewer digits than Simpson's rule on the density."""


@runtime_checkable
class QuadratureLeaf(Leaf, Protocol):
    """A continuous family with a quadrature rule, and with a variance."""

    def quadrature(self, params: Any) -> tuple[Array, Array]:
        """Points and weights, on a new last axis, of means of smooth functions."""
        ...

    def variance(self, params: Any) -> Array:
        """The variance of the leaf."""
        ...


@runtime_checkable
class OverlapLeaf(Leaf, Protocol):
    """A continuous family whose products have integrals in closed form."""

    def log_overlap(self, params: Any, other: Any) -> Array:
        """``log`` of the integral of the product of two densities, which broadcast."""
        ...


def num_values(leaf: Leaf) -> int | None:
    """How many values the leaf has, from 0 on; the most, of a joined one.

    Args:
        leaf: any.

    Returns:
        The number, or None where there are infinitely many.
    """
    low, high = leaf.support
    if not leaf.integer or np.any(np.asarray(low) != 0) or not np.isfinite(high).all():
        return None
    return int(np.max(high)) + 1


def require(possible: bool, query: str, needed: str, leaf: Leaf) -> None:
    """Raises ValueError for a leaf that lacks an integral.

    Args:
        possible: whether it has the integral.
        query: what needs it.
        needed: what leaves have it.
        leaf: the leaf.
    """
    if not possible:
        raise ValueError(
            f"circuit must have leaves with {needed} for {query}, got {shown(leaf)}"
        )


def log_table(leaf: Leaf, natural: Any, x: Array) -> Array:
    """``log p`` of values, base measure included.

    Args:
        leaf: of variables ``[D]``.
        natural: its natural parameters, ``[D, K, ...]``.
        x: ``[D, M]``.

    Returns:
        ``[D, K, M]``, nats.
    """
    if isinstance(leaf, DirectLeaf):
        return leaf.log_prob(natural, x)
    assert isinstance(leaf, ExponentialLeaf)
    terms = [
        eta[..., None] * statistic[:, None]
        for eta, statistic in zip(natural.eta, leaf.statistics(x), strict=True)
    ]
    log_p = sum(terms[1:], terms[0]) - natural.log_partition[..., None]
    # The statistics of an impossible value are of no account.
    base = leaf.log_base(x)[:, None]
    return jnp.where(base == -jnp.inf, base, log_p + base)


def variance(leaf: Leaf, params: Any, natural: Any, mean: Array, query: str) -> Array:
    """The variance of every leaf.

    Args:
        leaf: of variables ``[D]``.
        params: ``[D, K, ...]``.
        natural: the same, natural.
        mean: of the leaves, ``[D, K]``.
        query: what needs it, for the error.

    Returns:
        ``[D, K]``.
    """
    if isinstance(leaf, TableLeaf):
        return leaf.moments(params)[1] ** 2
    if isinstance(leaf, QuadratureLeaf):
        return leaf.variance(params)
    count = num_values(leaf)
    needed = "finitely many values or a variance"
    require(count is not None, query, needed, leaf)
    assert count is not None

    def add(total, value):
        x = jnp.full((mean.shape[0], 1), value, mean.dtype)
        p = jnp.exp(log_table(leaf, natural, x)[..., 0])
        return total + p * (value - mean) ** 2, None

    values = jnp.arange(count, dtype=mean.dtype)
    total, _ = varying_alike((jnp.zeros_like(mean), mean))
    return jax.lax.scan(jax.checkpoint(add), total, values)[0]


def mean_of(leaf: Leaf, params: Any, natural: Any, function: Any, query: str) -> Array:
    """The mean of a function of each leaf's value.

    Args:
        leaf: of variables ``[D]``.
        params: ``[D, K, ...]``.
        natural: the same, natural.
        function: of arrays of any shape, element by element.
        query: what needs it, for the error.

    Returns:
        ``[D, K]``: a sum over the values, or by quadrature.
    """
    count = num_values(leaf)
    if count is not None:
        dtype = jax.tree.leaves(natural)[0].dtype
        values = jnp.arange(count, dtype=dtype)
        rows = jax.tree.leaves(natural)[0].shape[0]
        p = jnp.exp(log_table(leaf, natural, jnp.tile(values[None], (rows, 1))))
        outcomes = jnp.asarray(function(values), dtype)[None, None]
        # What is impossible counts for nothing, even where the function is infinite.
        return jnp.sum(jnp.where(p > 0, p * outcomes, 0.0), axis=-1)
    needed = "finitely many values or a quadrature rule"
    require(isinstance(leaf, QuadratureLeaf), query, needed, leaf)
    assert isinstance(leaf, QuadratureLeaf)
    points, weights = leaf.quadrature(params)
    outcomes = jnp.asarray(function(points), points.dtype)
    return jnp.sum(jnp.where(weights > 0, weights * outcomes, 0.0), axis=-1)


def log_interval(leaf: ContinuousLeaf, params: Any, low: Array, high: Array) -> Array:
    r"""``log P(low < X < high)`` of a continuous leaf, with its digits in both tails.

    A difference of distribution functions in the half where they are small, or of one
    minus these; of an interval so narrow that the difference has no digits, Simpson's
    rule on the density.

    Args:
        leaf: of any variables.
        params: of shapes that broadcast with the bounds.
        low: may be ``-inf``.
        high: may be ``inf``.

    Returns:
        Nats; ``-inf`` where ``high <= low``, with gradients 0 there.
    """
    empty = high <= low
    no_low, no_high = low == -jnp.inf, high == jnp.inf
    start = jnp.where(no_low | (low == jnp.inf), 0.0, low)
    end = jnp.where(no_high | (high == -jnp.inf), 0.0, high)
    below_start, above_start = leaf.log_tails(params, start)
    below_end, above_end = leaf.log_tails(params, end)
    below_start = jnp.where(no_low, -jnp.inf, below_start)
    above_start = jnp.where(no_low, 0.0, above_start)
    below_end = jnp.where(no_high, 0.0, below_end)
    above_end = jnp.where(no_high, -jnp.inf, above_end)
    left = below_end < above_start
    more = jnp.where(left, below_end, above_start)
    less = jnp.where(left, below_start, above_end)
    fall = finite_or_zero(less) - more  # at most 0
    none = less == -jnp.inf
    narrow = ~none & (fall > -_NARROW) & ~no_low & ~no_high
    wide = ~(none | narrow | empty)
    rest = jnp.where(wide, -jnp.expm1(jnp.where(wide, fall, -1.0)), 1.0)
    difference = more + safe_log(rest)
    width = jnp.where(narrow & ~empty, end - start, 0.0)
    start = jnp.where(narrow, start, 0.0)
    ordinates = [leaf.log_density(params, start + s * width) for s in (0.0, 0.5, 1.0)]
    top = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(*ordinates[:2]), ordinates[2]))
    first, middle, last = (jnp.exp(o - top) for o in ordinates)
    simpson = top + safe_log(width) + jnp.log((first + 4 * middle + last) / 6)
    return jnp.where(empty, -jnp.inf, jnp.where(narrow, simpson, difference))
