r"""Probabilities of events: an interval or a set for each variable.

A circuit is linear in every leaf, so :math:`P(x_v \in A_v \text{ for all } v)` is the
circuit with :math:`P_{gk}(A_v)` in the place of each leaf: a sum over the values of the
event, or a difference of distribution functions.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference.upward import above, log_base, log_inputs
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves import ContinuousLeaf, DirectLeaf, ExponentialLeaf, integrals
from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_log
from dspc_jax.ops.values import LARGEST
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array


class Event(NamedTuple):
    """An event that is a product over the variables: intervals, sets, or both.

    Attributes:
        low: least values ``[V, C]``; ``-inf`` (or None for all) is no bound.
        high: greatest values ``[V, C]``, which belong to the event as the least ones
            do; ``inf`` (or None for all) is no bound.
        allowed: bool ``[V, C, M]``, which of the values 0 .. M - 1 belong to it, of
            variables with finitely many values; M is the most values of any variable.
            What it says of others does not count. None: all.
    """

    low: Any = None
    high: Any = None
    allowed: Any = None


def check(layout: Layout) -> int:
    """The most values of any variable; 0 if none has finitely many.

    Raises:
        ValueError: a leaf has neither finitely many values nor a distribution function.
    """
    counts = [0]
    for block in layout.blocks:
        count = integrals.num_values(block.family)
        needed = "finitely many values or a distribution function"
        possible = count is not None or (
            isinstance(block.family, ContinuousLeaf) and not block.family.integer
        )
        integrals.require(possible, "events", needed, block.family)
        counts.append(count or 0)
    return max(counts)


def log_prob(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    event: Event,
    x: Array,
    observed: Array,
) -> Array:
    """``log p(x_observed, event of the others)``, ``[N]``, nats.

    Args:
        layout: the circuit, see `check`.
        params: its parameters.
        weights: the same, normalized.
        event: low and high ``[N, V, C]``, allowed ``[N, V, C, M]`` or None.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``; no bound counts for what is observed.
    """
    # What is observed has no bounds, whatever they are: NaN would reach gradients.
    seen = observed[..., None]
    low = jnp.where(seen, -jnp.inf, event.low)
    high = jnp.where(seen, jnp.inf, event.high)
    moved = [
        None if a is None else jnp.moveaxis(a, 0, -1)
        for a in (low, high, event.allowed)
    ]
    inputs = log_inputs(layout, weights, x, observed)
    base = log_base(layout, x, observed)
    hidden = jnp.transpose(~observed)
    for block, own, natural in zip(
        layout.blocks, params.leaves, weights.leaves, strict=True
    ):
        inputs = inputs + _block(block, own, natural, Event(*moved), hidden)
    root = above(layout, weights, inputs).regions[-1][0]
    log_p = logsumexp(root + safe_log(weights.classes)[:, None], axis=0)
    return log_p + base


def _block(block: InputBlock, params, natural, event: Event, hidden) -> Array:
    """The logarithms of a family's factors, ``[G, K, N]``, a variable at a time."""
    count = integrals.num_values(block.family)
    if count is None:
        low = jnp.where(event.low <= -LARGEST, -jnp.inf, event.low)
        high = jnp.where(event.high >= LARGEST, jnp.inf, event.high)
        low = jnp.where(low >= LARGEST, jnp.inf, low)
        high = jnp.where(high <= -LARGEST, -jnp.inf, high)
        bound = (low > -jnp.inf) | (high < jnp.inf)
        operands, allowed = params, None
    else:
        low, high, allowed = event
        inside = _values_between(block, low, high, allowed, count)
        bound, operands = ~inside, natural
    counted = bound & hidden[:, None]
    places = np.where(
        block.valid, np.searchsorted(block.variables, block.scopes), 0
    ).astype(np.int32)
    terms = None if count is None else _terms(block, count, low.dtype)

    @jax.checkpoint
    def variable(leaves, scope, place, valid):
        leaf = block.at(scope)
        total = 0.0
        for c in range(low.shape[1]):
            own = jax.tree.map(lambda p, c=c: p[:, :, c], leaves)
            bounds = low[scope, c], high[scope, c]
            if count is None:
                assert isinstance(leaf, ContinuousLeaf)
                own = jax.tree.map(lambda p: p[..., None], own)
                log_p = integrals.log_interval(leaf, own, *(b[:, None] for b in bounds))
            else:
                chosen = None if allowed is None else allowed[scope, c, :count]
                table = functools.partial(_at_value, leaf, own, terms, place)
                log_p = _sum_of_values(table, bounds, chosen, count)
            total += jnp.where(counted[scope, c][:, None], log_p, 0.0)
        return jnp.where(valid[:, None, None], total, 0.0)

    by_position = jax.tree.map(lambda p: jnp.moveaxis(p, 2, 0), operands)
    rows = (by_position, block.scopes.T, places.T, block.valid.T)
    first, rest = ([jax.tree.map(part, a) for a in rows] for part in (_first, _rest))
    if block.scopes.shape[1] == 1:
        return variable(*map(_arrays, first))

    def add(total, operand):
        return total + variable(*operand), None

    return jax.lax.scan(add, variable(*map(_arrays, first)), tuple(rest))[0]


def _first(a):
    return a[0]


def _rest(a):
    return jnp.asarray(a[1:])


def _arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def _values_between(block, low, high, allowed, count):
    """Where the event allows every value that the variable has, ``[V, C, N]``."""
    top = np.zeros(low.shape[0])
    tops = block.leaf_of_variables.support[1]
    top[block.variables] = np.broadcast_to(tops, block.variables.shape)
    greatest = jnp.asarray(top, low.dtype)[:, None, None]
    every = (low <= 0) & (high >= greatest)
    if allowed is None:
        return every
    value = jnp.arange(count, dtype=low.dtype)[None, None, :, None]
    possible = value <= greatest[..., None]
    return every & jnp.all(allowed[:, :, :count] | ~possible, axis=2)


def _terms(block, count, dtype):
    """Of an exponential family, statistics and base measures of all values.

    ``[Vb, M]`` each; looked up here, where the variables are not traced.
    """
    leaf = block.leaf_of_variables
    if not isinstance(leaf, ExponentialLeaf):
        return None
    values = jnp.arange(count, dtype=dtype)
    values = jnp.tile(values[None], (len(block.variables), 1))
    return leaf.statistics(values), leaf.log_base(values)


def _at_value(leaf, natural, terms, place, value):
    """``log p`` of one value under leaves ``[G, K]``."""
    if terms is None:
        assert isinstance(leaf, DirectLeaf)
        x = jnp.full((place.shape[0], 1), value)
        return leaf.log_prob(natural, x)[..., 0]
    statistics, base = (jax.tree.map(lambda a: a[place], part) for part in terms)
    at = value.astype(jnp.int32)
    pairs = zip(natural.eta, statistics, strict=True)
    log_p = sum(eta * t[:, at, None] for eta, t in pairs) - natural.log_partition
    own = base[:, at, None]
    return jnp.where(own == -jnp.inf, own, log_p + own)


def _sum_of_values(table, bounds, allowed, count):
    """``log`` of the sum over allowed values, ``[G, K, N]``, with all its digits."""
    low, high = bounds
    values = jnp.arange(count, dtype=low.dtype)
    masks = None if allowed is None else jnp.moveaxis(allowed, 1, 0)

    def chosen(value, mask):
        inside = (value >= low) & (value <= high)
        return (inside if mask is None else inside & mask)[:, None]

    def raise_(top, now):
        value, mask = now
        log_p = jax.lax.stop_gradient(table(value))[..., None]
        return jnp.maximum(top, jnp.where(chosen(value, mask), log_p, -jnp.inf)), None

    shape = (*jax.eval_shape(table, values[0]).shape, low.shape[-1])
    top, _ = varying_alike((jnp.full(shape, -jnp.inf, low.dtype), low))
    top, _ = jax.lax.scan(raise_, top, (values, masks), unroll=min(count, 4))
    top = finite_or_zero(top)

    @jax.checkpoint
    def add(total, now):
        value, mask = now
        log_p = table(value)[..., None]
        log_p = jnp.where(chosen(value, mask), log_p, -jnp.inf)
        possible = log_p != -jnp.inf
        shifted = jnp.where(possible, log_p - top, 0.0)
        return total + jnp.where(possible, jnp.exp(shifted), 0.0), None

    total, _ = varying_alike((jnp.zeros(shape, low.dtype), low))
    total, _ = jax.lax.scan(add, total, (values, masks), unroll=min(count, 4))
    return safe_log(total) + top
