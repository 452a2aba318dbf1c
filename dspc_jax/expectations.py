"""Queries that are integrals: of events, of products of functions, covariances.

As `dspc_jax.queries`, pure functions of a layout and of what a user gives;
`dspc_jax.integral_protocols` documents them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from dspc_jax import examples, parameters
from dspc_jax.arguments import instance, shown
from dspc_jax.inference import events, expectations, moments
from dspc_jax.inference.events import Event
from dspc_jax.ops.batching import foldable
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.values import as_values
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.types import Array


def covariance(
    layout: Layout, params: CircuitParams, x: Any = None, observed: Any = None
) -> Array:
    """As `dspc_jax.integral_protocols.Covariance`."""
    params, dtype = widened(params)
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    return _covariances(params, x, observed, layout=layout, shape=x.shape * 2)


def expectation(
    layout: Layout,
    params: CircuitParams,
    functions: Mapping[Any, Callable[[Array], Array]],
    x: Any = None,
    observed: Any = None,
) -> Array:
    """As `dspc_jax.integral_protocols.Expectation`."""
    params, dtype = widened(params)
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    factors = _factors(layout, functions)
    if not factors:
        return jnp.ones((), dtype)
    # A value that is not observed may be anything, such as NaN; 1 is legal everywhere.
    known = jnp.where(observed[:, None], x, 1.0)
    values = [
        jnp.asarray(function(known[v, c]), dtype).reshape(())
        for v, c, function in factors
    ]
    integrals = expectations.integrate(
        layout, *parameters.of_regions(layout, params), factors
    )
    return _expectation(
        *((params, integrals), x, observed, jnp.stack(values)), layout=layout, shape=()
    )


def event_log_prob(
    layout: Layout,
    params: CircuitParams,
    event: Event,
    x: Any = None,
    observed: Any = None,
) -> Array:
    """As `dspc_jax.integral_protocols.EventLogProb`."""
    instance("event", event, Event)
    most = events.check(layout)
    params, dtype = widened(params)
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    sizes = examples.shape(layout)
    bounds = []
    for name, unbounded in (("low", -jnp.inf), ("high", jnp.inf)):
        given = getattr(event, name)
        if given is None:
            bounds.append(jnp.full(sizes, unbounded, dtype))
            continue
        values = examples.with_channels(layout, as_values(name, given, dtype), 2)
        examples.check_values(layout, name, values.shape)
        bounds.append(values)
    allowed = event.allowed
    if allowed is not None:
        allowed = jnp.asarray(allowed)
        if allowed.ndim == 2 and layout.num_channels == 1:
            allowed = allowed[:, None]
        wanted = (*sizes, most)
        if allowed.shape != wanted or allowed.dtype != jnp.bool_:
            raise ValueError(
                f"event.allowed must be bool of shape [V, C, M] = {wanted}, got "
                f"{allowed.dtype} of shape {allowed.shape}"
            )
    low, high = bounds
    event = Event(low, high, allowed)
    return _event(params, event, x, observed, layout=layout, shape=())


def _factors(layout: Layout, functions: Any) -> list[expectations.Factor]:
    """The functions with their coordinates, checked."""
    instance("functions", functions, Mapping)
    num_variables, num_channels = examples.shape(layout)
    factors = []
    for place, function in functions.items():
        at = (place, 0) if num_channels == 1 and not isinstance(place, tuple) else place
        whole = isinstance(at, tuple) and len(at) == 2
        whole = whole and all(hasattr(number, "__index__") for number in at)
        if not whole or not (0 <= at[0] < num_variables and 0 <= at[1] < num_channels):
            kind = "variables" if num_channels == 1 else "pairs (variable, channel)"
            raise ValueError(
                f"functions must have keys that are {kind} below "
                f"{(num_variables, num_channels)}, got {shown(place)}"
            )
        if not callable(function):
            raise ValueError(
                f"functions[{shown(place)}] must be a function, got {shown(function)}"
            )
        factors.append((int(at[0]), int(at[1]), function))
    return factors


@foldable
def _covariances(params, x, observed, *, layout):
    params, weights = parameters.of_regions(layout, params)
    return moments.covariances(layout, params, weights, x, observed)


@foldable
def _expectation(params_and_factors, x, observed, values, *, layout):
    params, factors = params_and_factors
    _, weights = parameters.of_regions(layout, params)
    return expectations.expectation(layout, weights, factors, x, observed, values)


@foldable
def _event(params, event, x, observed, *, layout):
    params, weights = parameters.of_regions(layout, params)
    return events.log_prob(layout, params, weights, event, x, observed)
