"""Exact entropies and divergences of few discrete values, by enumeration.

A circuit whose leaves have finitely many values has finitely many examples; where these
are few, every mean is a sum over them. Marginals are exact, so what is asked of some
variables enumerates these alone. For more there are `dspc_jax.analysis.estimates`, and
bounds and divergences in closed form in `dspc_jax.analysis.products`.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples
from dspc_jax.analysis.estimates import disjoint
from dspc_jax.arguments import instance, shown
from dspc_jax.circuit import Circuit
from dspc_jax.leaves import integrals
from dspc_jax.parameters import CircuitParams
from dspc_jax.types import Array

MAX_VALUES = 2**20
"""Most joint values that are enumerated: seconds of a small circuit's time."""
_AT_ONCE = 4096


class _Grid(NamedTuple):
    """All joint values of some coordinates: digits of the numbers below ``number``.

    Attributes:
        number: of values.
        sizes: of the coordinates, ``V * C`` numbers; 1 of those that stay 0.
        variables: those that are enumerated, V bools.
        shape: ``(V, C)``.
    """

    number: int
    sizes: tuple[int, ...]
    variables: tuple[bool, ...]
    shape: tuple[int, int]


def entropy(
    circuit: Circuit,
    params: CircuitParams,
    *,
    variables: Any = None,
    x: Any = None,
    observed: Any = None,
) -> Array:
    r"""The entropy :math:`-\sum p \log p`, exact, by enumeration of all values.

    Args:
        circuit: with leaves that have finitely many values.
        params: its parameters.
        variables: bool ``[V]``, whose joint entropy it is; None: of all that are not
            observed.
        x: values ``[V, C]``; the entropy is that given these.
        observed: bool ``[V]``, given together with ``x``; None: nothing is observed.

    Returns:
        Nats, a scalar, differentiable in the parameters.

    Raises:
        ValueError: a leaf has infinitely many values, the variables have more than
            `MAX_VALUES` joint ones, a shape or type is another, or a variable is
            observed. The mask of observed variables must not be traced, unless
            ``variables`` are given.
    """
    instance("circuit", circuit, Circuit)
    if variables is None:
        hidden = np.ones(circuit.layout.graph.num_variables, bool)
        variables = hidden if observed is None else ~np.asarray(observed)
    grid = _grid(circuit, variables)
    return _entropy(circuit, grid, params, (x, observed))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _entropy(circuit, grid, params, evidence):
    def term(joint):
        return -joint

    masks = [np.array(grid.variables)]
    return _mean(circuit, grid, params, evidence, masks, term)


def cross_entropy(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
) -> Array:
    r"""The cross-entropy :math:`-\sum p \log q`, exact, by enumeration of all values.

    Args:
        circuit: that of p, with leaves that have finitely many values.
        params: its parameters.
        other_params: those of q.
        other: the circuit of q, of any structure, with variables of the same shape;
            None: the same.

    Returns:
        Nats, a scalar; ``inf`` where a value is possible under p alone.

    Raises:
        ValueError: as of `entropy`.
    """
    other = circuit if other is None else other
    grid = _grid(circuit, None)
    return _against(circuit, other, grid, 0.0, params, other_params)


def kl_divergence(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
) -> Array:
    r"""The divergence :math:`KL(p \| q)`, exact, by enumeration of all values.

    Args:
        circuit: that of p, with leaves that have finitely many values.
        params: its parameters.
        other_params: those of q.
        other: the circuit of q, of any structure, with variables of the same shape;
            None: the same.

    Returns:
        Nats, a scalar; ``inf`` where a value is possible under p alone.

    Raises:
        ValueError: as of `entropy`.
    """
    other = circuit if other is None else other
    grid = _grid(circuit, None)
    return _against(circuit, other, grid, 1.0, params, other_params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _against(circuit, other, grid, own, params, other_params):
    """``sum p (own log p - log q)``."""

    def term(number):
        x = _value(grid, number, params.classes.dtype)
        log_p = circuit.log_prob(params, x)
        log_q = other.log_prob(other_params, x)
        possible = log_p != -jnp.inf
        log_p = jnp.where(possible, log_p, 0.0)
        return jnp.where(possible, jnp.exp(log_p) * (own * log_p - log_q), 0.0)

    return _total(grid, term)


def mutual_information(
    circuit: Circuit,
    params: CircuitParams,
    first: Any,
    second: Any,
    *,
    x: Any = None,
    observed: Any = None,
) -> Array:
    r"""The information :math:`I(A; B)` between sets of variables, by enumeration.

    Exact: their joint values are enumerated, all other variables integrated out.

    Args:
        circuit: whose leaves of A and B have finitely many values.
        params: its parameters.
        first: bool ``[V]``, the variables A.
        second: bool ``[V]``, the variables B, none of which is in A.
        x: values ``[V, C]``; the information is that between A and B given these.
        observed: bool ``[V]``, given together with ``x``, none of A and B; None:
            nothing is observed.

    Returns:
        Nats, a scalar, differentiable in the parameters; not negative but for rounding.

    Raises:
        ValueError: as of `entropy`, or the sets meet.
    """
    instance("circuit", circuit, Circuit)
    masks = disjoint(first, second, observed)
    grid = _grid(circuit, masks[0] | masks[1])
    sets = tuple(tuple(mask.tolist()) for mask in masks)
    return _mutual_information(circuit, grid, sets, params, (x, observed))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _mutual_information(circuit, grid, sets, params, evidence):
    def term(joint, one, two):
        return joint - one - two

    masks = [np.array(grid.variables), *map(np.array, sets)]
    return _mean(circuit, grid, params, evidence, masks, term)


def _mean(circuit, grid, params, evidence, masks, term):
    """The mean of a function of log-likelihoods of marginals, given the evidence.

    Args:
        circuit: the circuit.
        grid: of its values.
        params: of the circuit.
        evidence: x and observed, or two times None.
        masks: the variables of each marginal, that of the mean first.
        term: the function.
    """
    x, observed = evidence
    given = np.zeros(grid.shape[0], bool) if observed is None else observed
    known = 0.0 if x is None else circuit.log_prob(params, x, observed)
    shown_ = [jnp.asarray(mask) | jnp.asarray(given) for mask in masks]
    enumerated = jnp.asarray(masks[0])[:, None]

    def outcome(number):
        value = _value(grid, number, params.classes.dtype)
        if x is not None:
            others = examples.with_channels(circuit.layout, jnp.asarray(x), 2)
            value = jnp.where(enumerated, value, others.astype(value.dtype))
        log_prob = jax.vmap(circuit.log_prob, (None, None, 0))
        logs = log_prob(params, value, jnp.stack(shown_)) - known
        possible = logs[0] != -jnp.inf
        logs = jnp.where(possible, logs, 0.0)
        return jnp.where(possible, jnp.exp(logs[0]) * term(*logs), 0.0)

    return _total(grid, outcome)


def _total(grid, function):
    """The sum of a function of all values' numbers."""
    at_once = min(grid.number, _AT_ONCE)
    numbers = jnp.arange(at_once * -(-grid.number // at_once), dtype=jnp.int32)

    def batch(numbers):
        terms = jax.vmap(function)(jnp.minimum(numbers, grid.number - 1))
        return jnp.sum(jnp.where(numbers < grid.number, terms, 0.0))

    return jnp.sum(jax.lax.map(jax.checkpoint(batch), numbers.reshape(-1, at_once)))


def _value(grid, number, dtype):
    """The value of this number, ``[V, C]``; coordinates that are fixed are 0."""
    sizes = np.array(grid.sizes, np.int32)
    strides = np.cumprod([1, *grid.sizes[:-1]]).astype(np.int32)
    digits = (number // strides) % sizes
    return digits.astype(dtype).reshape(grid.shape)


def _grid(circuit: Any, variables: Any) -> _Grid:
    """The values of some variables of a circuit; None: of all."""
    instance("circuit", circuit, Circuit)
    shape = examples.shape(circuit.layout)
    mask = np.ones(shape[0], bool) if variables is None else np.asarray(variables)
    if mask.shape != shape[:1] or mask.dtype != np.bool_:
        raise ValueError(
            f"variables must be bool of shape [V] = {shape[:1]}, got {shown(mask)}"
        )
    sizes = []
    for leaf, chosen in zip(circuit.config.leaves, mask, strict=True):
        count = integrals.num_values(leaf)
        needed = "finitely many values"
        integrals.require(count is not None or not chosen, "enumeration", needed, leaf)
        assert count is not None or not chosen
        sizes += [count if chosen and count is not None else 1] * shape[1]
    count = math.prod(sizes)
    if count > MAX_VALUES:
        raise ValueError(
            f"variables must have at most {MAX_VALUES} joint values for enumeration "
            f"(there are estimates for more), got {count}"
        )
    return _Grid(count, tuple(sizes), tuple(mask.tolist()), shape)
