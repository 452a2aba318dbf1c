"""Monte Carlo: means over samples with their standard errors.

A circuit has no closed form for the mean of a function that is no product over the
variables, nor for that of its own log-likelihood (an entropy). These are means over
exact samples, conditional ones where there is evidence; an estimate is named so, takes
a key, and says how far it may be off. All take circuits behind flows as well.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples
from dspc_jax.arguments import shown, whole_number
from dspc_jax.types import Array, Key, PyTree

_AT_ONCE = 1024
"""Samples that are drawn together; more come in several such batches."""


class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
        value: the mean.
        standard_error: its estimated standard deviation, of the same shape: the value
            lies within two of them in about 95 of 100 cases.
    """

    value: Array
    standard_error: Array


def expectation_estimate(
    circuit: Any,
    key: Key,
    params: PyTree,
    function: Callable[[Array], Array],
    num_samples: int,
    *,
    x: Any = None,
    observed: Any = None,
) -> Estimate:
    r"""Estimates :math:`E[f(x) \mid x_{obs}]` for any function, by samples.

    ``circuit.expectation`` is exact for products of functions of one variable each.

    Args:
        circuit: a circuit, plain or behind a flow.
        key: a typed key.
        params: the circuit's.
        function: from one example ``[V, C]`` to an array of any shape. It is traced.
        num_samples: at least 2.
        x: values ``[V, C]``.
        observed: bool ``[V]``, given together with ``x``; None: nothing is observed.

    Returns:
        The estimate, of the shape of the function's results. Samples have no gradients.

    Raises:
        ValueError: a number, shape or type is another.
    """
    number = whole_number("num_samples", num_samples, least=2)
    examples.check_key(key)

    def one(key):
        return function(circuit.sample(key, params, x=x, observed=observed))

    keys = jax.random.split(key, number)
    outcomes = jax.lax.map(one, keys, batch_size=min(number, _AT_ONCE))
    value = jnp.mean(outcomes, axis=0)
    squares = jnp.sum((outcomes - value[None]) ** 2, axis=0)
    return Estimate(value, jnp.sqrt(squares / (number * (number - 1))))


def entropy_estimate(
    circuit: Any,
    key: Key,
    params: PyTree,
    num_samples: int,
    *,
    x: Any = None,
    observed: Any = None,
) -> Estimate:
    r"""Estimates the entropy :math:`-E \log p(x)`, or that given the evidence.

    Exact ones: `dspc_jax.entropy` of few discrete values, `dspc_jax.collision_entropy`.

    Args:
        circuit: a circuit, plain or behind a flow.
        key: a typed key.
        params: the circuit's.
        num_samples: at least 2.
        x: values ``[V, C]``.
        observed: bool ``[V]``, given together with ``x``; None: nothing is observed.

    Returns:
        Nats; of continuous variables the differential entropy.

    Raises:
        ValueError: a number, shape or type is another.
    """
    number = whole_number("num_samples", num_samples, least=2)
    return _entropy(circuit, number, key, params, (x, observed))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _entropy(circuit, number, key, params, evidence):
    x, observed = evidence
    known = 0.0 if x is None else circuit.log_prob(params, x, observed)

    def surprise(sample):
        return known - circuit.log_prob(params, sample)

    return expectation_estimate(
        circuit, key, params, surprise, number, x=x, observed=observed
    )


def cross_entropy_estimate(
    circuit: Any,
    key: Key,
    params: PyTree,
    other_params: PyTree,
    num_samples: int,
    *,
    other: Any = None,
) -> Estimate:
    r"""Estimates :math:`-E_{x \sim p} \log q(x)` by samples of p.

    Args:
        circuit: that of p, plain or behind a flow.
        key: a typed key.
        params: its parameters.
        other_params: those of q.
        num_samples: at least 2.
        other: the circuit of q, of any structure, with variables of the same shape;
            None: the same.

    Returns:
        Nats; ``inf`` (its error NaN) if a sample is impossible under q.

    Raises:
        ValueError: a number, shape or type is another.
    """
    number = whole_number("num_samples", num_samples, least=2)
    other = circuit if other is None else other
    return _cross_entropy(circuit, other, number, key, params, other_params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _cross_entropy(circuit, other, number, key, params, other_params):
    def surprise(sample):
        return -other.log_prob(other_params, sample)

    return expectation_estimate(circuit, key, params, surprise, number)


def kl_divergence_estimate(
    circuit: Any,
    key: Key,
    params: PyTree,
    other_params: PyTree,
    num_samples: int,
    *,
    other: Any = None,
) -> Estimate:
    r"""Estimates :math:`KL(p \| q) = E_{x \sim p} \log p(x) / q(x)` by samples of p.

    Args:
        circuit: that of p, plain or behind a flow.
        key: a typed key.
        params: its parameters.
        other_params: those of q.
        num_samples: at least 2.
        other: the circuit of q, of any structure, with variables of the same shape;
            None: the same.

    Returns:
        Nats; unbiased, so that of a small divergence may be negative. ``inf`` (its
        error NaN) if a sample is impossible under q.

    Raises:
        ValueError: a number, shape or type is another.
    """
    number = whole_number("num_samples", num_samples, least=2)
    other = circuit if other is None else other
    return _kl_divergence(circuit, other, number, key, params, other_params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _kl_divergence(circuit, other, number, key, params, other_params):
    def log_ratio(sample):
        return circuit.log_prob(params, sample) - other.log_prob(other_params, sample)

    return expectation_estimate(circuit, key, params, log_ratio, number)


def mutual_information_estimate(
    circuit: Any,
    key: Key,
    params: PyTree,
    first: Any,
    second: Any,
    num_samples: int,
    *,
    x: Any = None,
    observed: Any = None,
) -> Estimate:
    r"""Estimates :math:`I(A; B) = E \log p(a, b) / (p(a)\, p(b))` by samples.

    Args:
        circuit: a circuit, plain or behind a flow.
        key: a typed key.
        params: the circuit's.
        first: bool ``[V]``, the variables A (behind a flow, the blocks ``[G]``).
        second: bool ``[V]``, the variables B, none of which is in A.
        num_samples: at least 2.
        x: values ``[V, C]``; the information is that between A and B given these.
        observed: bool ``[V]``, given together with ``x``, none of A and B; None:
            nothing is observed.

    Returns:
        Nats; unbiased, so that of a small information may be negative. The marginals
        in it are exact.

    Raises:
        ValueError: a number, shape or type is another, or the sets meet.
    """
    number = whole_number("num_samples", num_samples, least=2)
    masks = disjoint(first, second, observed)
    return _mutual_information(circuit, number, key, params, masks, (x, observed))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mutual_information(circuit, number, key, params, masks, evidence):
    x, observed = evidence
    first, second = masks
    given = jnp.zeros_like(first) if observed is None else jnp.asarray(observed)
    known = 0.0 if x is None else circuit.log_prob(params, x, observed)

    def log_ratio(sample):
        shown_ = jnp.stack([first | second | given, first | given, second | given])
        log_prob = jax.vmap(circuit.log_prob, (None, None, 0))
        both, one, two = log_prob(params, sample, shown_)
        return both + known - one - two

    return expectation_estimate(
        circuit, key, params, log_ratio, number, x=x, observed=observed
    )


def disjoint(first: Any, second: Any, observed: Any = None) -> tuple[Any, Any]:
    """Two sets of variables, checked.

    Args:
        first: bool ``[V]``.
        second: bool ``[V]``.
        observed: bool ``[V]``, or None.

    Returns:
        The sets, as arrays of NumPy.

    Raises:
        ValueError: another type or shape, an empty set, or two that meet.
    """
    sets = {"first": first, "second": second}
    masks = []
    for name, given in sets.items():
        mask = np.asarray(given)
        if mask.dtype != np.bool_ or mask.ndim != 1 or not mask.any():
            raise ValueError(
                f"{name} must be bool of shape [V] with a variable in it, got "
                f"{shown(given)}"
            )
        masks.append(mask)
    others = [] if observed is None or isinstance(observed, Tracer) else [observed]
    for mask, taken in ((masks[1], masks[0]), *((m, o) for m in masks for o in others)):
        if mask.shape != np.shape(taken) or (mask & np.asarray(taken)).any():
            raise ValueError(
                "first, second and observed must be of one shape and have no variable "
                f"in common, got {shown(first)}, {shown(second)}, {shown(observed)}"
            )
    return masks[0], masks[1]
