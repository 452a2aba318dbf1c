r"""Marginal MAP by local search: most probable values of some variables alone.

.. math:: \max_{x_Q} p(x_Q, x_{obs}) = \max_{x_Q} \int p(x_Q, x_{obs}, x_R)\, dx_R

This is NP-hard already for trees of latent variables, and all variables at once are the
special case of `dspc_jax.protocols.Mpe`. The search starts from explanations and from
samples and climbs one coordinate at a time: marginals are exact, so every step is.

References:
    Park and Darwiche, "Complexity results and approximation strategies for MAP
    explanations", JAIR 2004 (hill climbing).
    Carreira-Perpinan, "Mode-finding for mixtures of Gaussian distributions", PAMI 2000.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples, parameters
from dspc_jax.arguments import instance, shown, whole_number
from dspc_jax.circuit import Circuit
from dspc_jax.inference import moments
from dspc_jax.inference.upward import log_inputs
from dspc_jax.layers import input_layer
from dspc_jax.leaves import Normal, integrals
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.parameters import CircuitParams
from dspc_jax.types import Array, Key


class MarginalMap(NamedTuple):
    """The best values that a search has found.

    Attributes:
        x: ``[V, C]``: the values found, the observed ones as given, 0 of all others.
        log_prob: ``log p`` of what is found and observed, others summed out; nats.
    """

    x: Array
    log_prob: Array


def marginal_map(
    circuit: Circuit,
    key: Key,
    params: CircuitParams,
    variables: Any,
    x: Any = None,
    observed: Any = None,
    *,
    num_starts: int = 8,
    num_sweeps: int = 4,
) -> MarginalMap:
    r"""Searches for the most probable values of some variables, others summed out.

    A lower bound of the maximum, by hill climbing: from two explanations (the methods
    of ``circuit.mpe``) and from samples, each given the evidence, one coordinate at a
    time takes its best value while all others stay. Candidates are all values of a leaf
    that has finitely many; of a Normal variable the means of its leaves, after which
    all Normal variables together climb to a mode (mean shift, which never descends).

    Args:
        circuit: with leaves that have finitely many values, or Normal ones, where
            ``variables`` are.
        key: of the samples; the same key finds the same.
        params: the circuit's.
        variables: bool ``[V]``, not traced: those whose values are searched for.
        x: values ``[V, C]``.
        observed: bool ``[V]``, given together with ``x``, none of the variables; None:
            nothing is observed.
        num_starts: S, at least 2. More find no worse values.
        num_sweeps: through all coordinates. Each step evaluates S times as many
            examples as it has candidates.

    Returns:
        The best of all starts. Without gradients.

    Raises:
        ValueError: a number, shape or type is another, a variable is searched for and
            observed, or a leaf is neither Normal nor has finitely many values.
    """
    instance("circuit", circuit, Circuit)
    starts = whole_number("num_starts", num_starts, least=2)
    sweeps = whole_number("num_sweeps", num_sweeps, least=0)
    examples.check_key(key)
    params, dtype = widened(params)
    layout = circuit.layout
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    if isinstance(variables, Tracer):
        raise ValueError(f"variables must not be traced, got {shown(variables)}")
    mask = np.asarray(variables)
    wanted = (layout.graph.num_variables,)
    if mask.shape != wanted or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(
            f"variables must be bool of shape [V] = {wanted} with a variable in it, "
            f"got {shown(mask)}"
        )
    if not isinstance(observed, Tracer) and (mask & np.asarray(observed)).any():
        raise ValueError("variables must not be observed, got some that are both")
    for leaf, chosen in zip(circuit.config.leaves, mask, strict=True):
        needed = "finitely many values or Normal ones"
        known = integrals.num_values(leaf) is not None or isinstance(leaf, Normal)
        integrals.require(known or not chosen, "marginal MAP", needed, leaf)
    return _search(
        circuit, tuple(mask.tolist()), starts, sweeps, key, params, x, observed
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _search(circuit, chosen, num_starts, num_sweeps, key, params, x, observed):
    params = jax.lax.stop_gradient(params)
    mask = np.array(chosen)
    known = jnp.asarray(mask) | observed
    x = jnp.where(observed[:, None], x, 0.0)

    def log_prob(x):
        return circuit.log_prob(params, x, known)

    explanations = [
        circuit.mpe(params, x, observed, method=method)
        for method in ("max_product", "sum_product")
    ]
    values = jnp.stack(explanations)
    if num_starts > 2:
        keys = jax.random.split(key, num_starts - 2)
        draw = jax.vmap(circuit.sample, (0, None, None, None))
        values = jnp.concatenate([values, draw(keys, params, x, observed)])
    values = jnp.where(known[:, None], values, 0.0)
    coordinates, candidates = _candidates(circuit, mask, params)

    def climb(state, now):
        values, best = state
        (variable, channel), options = now

        def replaced(value, option):
            return value.at[variable, channel].set(option)

        several = jax.vmap(jax.vmap(replaced, (None, 0)), (0, None))(values, options)
        log_p = jax.vmap(jax.vmap(log_prob))(several)
        choice = jnp.argmax(log_p, axis=1)
        found = jnp.max(log_p, axis=1)
        better = found > best
        own = values[:, variable, channel]
        own = jnp.where(better, options[choice], own)
        values = values.at[:, variable, channel].set(own)
        return (values, jnp.where(better, found, best)), None

    def sweep(state, _):
        return jax.lax.scan(climb, state, (coordinates, candidates))[0], None

    state = (values, jax.vmap(log_prob)(values))
    state, _ = jax.lax.scan(sweep, state, None, length=num_sweeps)
    values, best = _climb_to_modes(circuit, mask, params, known, num_sweeps, *state)
    place = jnp.argmax(best)
    return MarginalMap(values[place], best[place])


def _candidates(circuit, mask, params):
    """Coordinates ``[D, 2]`` that are searched, and their options ``[D, M]``."""
    layout = circuit.layout
    params, _ = parameters.of_regions(layout, params)
    coordinates, options = [], []
    for block, own in zip(layout.blocks, params.leaves, strict=True):
        for variable in block.variables:
            if not mask[variable]:
                continue
            leaf = circuit.config.leaves[variable]
            count = integrals.num_values(leaf)
            at, places = np.nonzero(block.valid & (block.scopes == variable))
            for channel in range(layout.num_channels):
                coordinates.append((variable, channel))
                if count is None:
                    options.append(own.mean[at, :, places, channel].ravel())
                else:
                    options.append(jnp.arange(count, dtype=params.classes.dtype))
    width = max(map(len, options))
    # Shorter lists end in their last option again.
    padded = [jnp.pad(o, (0, width - len(o)), mode="edge") for o in options]
    pair = jnp.asarray(np.array(coordinates, np.int32))
    return (pair[:, 0], pair[:, 1]), jnp.stack(padded)


_STEPS_PER_SWEEP = 10


def _climb_to_modes(circuit, mask, params, known, num_sweeps, values, best):
    """Mean shift of all Normal variables that are searched for."""
    layout = circuit.layout
    normal = np.zeros(len(mask), bool)
    for block in layout.blocks:
        normal[block.variables] = isinstance(block.family, Normal)
    if not (normal & mask).any() or num_sweeps == 0:
        return values, best
    own, weights = parameters.of_regions(layout, params)
    every = jnp.broadcast_to(known, (values.shape[0], known.shape[0]))
    moves = jnp.asarray(normal & mask)[None, :, None]

    def step(values, _):
        inputs = log_inputs(layout, weights, values, every)
        chances = moments.posterior(layout, weights, inputs)
        shifted = []
        for block, leaves in zip(layout.blocks, own.leaves, strict=True):
            if not isinstance(block.leaf, Normal):
                stay = jnp.transpose(values, (1, 2, 0))[block.variables]
                shifted.append(stay)
                continue
            precision = 1 / block.leaf.variance(leaves)
            mass = input_layer.blend(block, precision, chances)
            total = input_layer.blend(block, precision * leaves.mean, chances)
            shifted.append(safe_divide(total, mass))
        ordered = input_layer.in_variable_order(layout.blocks, shifted)
        return jnp.where(moves, jnp.transpose(ordered, (2, 0, 1)), values), None

    steps = _STEPS_PER_SWEEP * num_sweeps
    moved, _ = jax.lax.scan(step, values, None, length=steps)
    found = jax.vmap(circuit.log_prob, (None, 0, None))(params, moved, known)
    better = found > best
    return jnp.where(better[:, None, None], moved, values), jnp.maximum(found, best)
