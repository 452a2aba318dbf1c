r"""Hidden Markov models as circuits.

The structure is a chain (`dspc_jax.structure.chains`) with tied parameters: one table
of transitions for all times, one set of leaves. All queries, EM (which is Baum and
Welch's), gradients of samples and missing values are those of every circuit. What the
states are, given a sequence, is asked here. Smoothing is a gradient: that of
:math:`\log p(x)` with respect to the log-density of the leaves of state k at time t is
:math:`P(z_t = k \mid x)`. Filtering is the forward recursion.

References:
    Rabiner, "A tutorial on hidden Markov models", Proceedings of the IEEE, 1989.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples, parameters
from dspc_jax.arguments import instance, shown
from dspc_jax.circuit import Circuit, CircuitConfig
from dspc_jax.inference.upward import above, log_inputs
from dspc_jax.leaves import Leaf
from dspc_jax.ops.batching import foldable
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import finite_or_zero, logsumexp, safe_divide, safe_log
from dspc_jax.parameters import CircuitParams
from dspc_jax.rows import parameter_rows
from dspc_jax.structure.chains import HiddenMarkovChain
from dspc_jax.types import Array

LEAST_PROBABILITY = 1e-30
"""What stands for 0 in the logits of `with_markov_tables`, which are finite."""

GIVEN = ("all", "past")


class MarkovTables(NamedTuple):
    """The parameters of a hidden Markov model of K states and C channels.

    Attributes:
        initial: probabilities of the first state, ``[K]``.
        transitions: of the next state (columns) given one (rows), ``[K, K]``.
        leaves: the leaf family's parameters, each array ``[K, C, ...]``.
    """

    initial: Array
    transitions: Array
    leaves: Any


def hidden_markov_chain(
    length: int, num_states: int, leaf: Leaf, *, num_channels: int = 1
) -> CircuitConfig:
    """A hidden Markov model of sequences of one length, homogeneous in time.

    Args:
        length: V, the number of times; shorter sequences have unobserved ends.
        num_states: K.
        leaf: the family of the values at every time.
        num_channels: C, the numbers at a time, independent given its state.

    Returns:
        The configuration. `dspc_jax.build` makes the circuit, whose variables are the
        times.

    Raises:
        ValueError: a number is no whole number of at least 1, or the leaf is none.
    """
    structure = HiddenMarkovChain(length)
    return CircuitConfig(
        structure=structure,
        leaf=leaf,
        num_channels=num_channels,
        num_leaves=num_states,
        num_sums=num_states,
        sum_layer="cp_t",
        tie_leaves="all",
        tie_sums=structure.homogeneous,
    )


def markov_tables(circuit: Circuit, params: CircuitParams) -> MarkovTables:
    """Reads the probabilities of a hidden Markov model.

    Args:
        circuit: of `hidden_markov_chain`.
        params: its parameters.

    Returns:
        The tables. A chain of one time has the transitions of no evidence: uniform.

    Raises:
        ValueError: the circuit is another one.
    """
    sums = _sums(circuit)
    initial, *rest = (jax.nn.softmax(params.sums[i][j][row]) for i, j, row in sums)
    num_states = initial.shape[-1]
    uniform = jnp.full((num_states, num_states), 1 / num_states, initial.dtype)
    leaves = jax.tree.map(lambda a: a[0, :, 0], params.leaves[0])
    return MarkovTables(initial[0], rest[0] if rest else uniform, leaves)


def with_markov_tables(
    circuit: Circuit, params: CircuitParams, tables: MarkovTables
) -> CircuitParams:
    """Parameters with these probabilities and leaves.

    Args:
        circuit: of `hidden_markov_chain`.
        params: any parameters of it; none of their numbers is kept.
        tables: probabilities, rows that add up to 1; 0 becomes 1e-30.

    Returns:
        The parameters.

    Raises:
        ValueError: the circuit is another one, or a shape is.
    """
    sums = _sums(circuit)
    num_states = circuit.config.num_sums
    new = [list(tables_of_level) for tables_of_level in params.sums]
    wanted = {"initial": (num_states,), "transitions": (num_states, num_states)}
    for (i, j, row), (name, shape) in zip(sums, wanted.items(), strict=False):
        probabilities = jnp.asarray(getattr(tables, name), new[i][j].dtype)
        if probabilities.shape != shape:
            raise ValueError(
                f"tables.{name} must have shape {shape}, got {probabilities.shape}"
            )
        logits = jnp.log(jnp.maximum(probabilities, LEAST_PROBABILITY))
        new[i][j] = new[i][j].at[row].set(logits.reshape(new[i][j].shape[1:]))

    def leaf(old, given):
        given = jnp.asarray(given, old.dtype)
        if given.shape != (old.shape[1], *old.shape[3:]):
            raise ValueError(
                "tables.leaves must have arrays of shape [K, C, ...], here "
                f"{(old.shape[1], *old.shape[3:])}, got {given.shape}"
            )
        return given[None, :, None]

    leaves = jax.tree.map(leaf, params.leaves[0], tables.leaves)
    return params._replace(sums=tuple(map(tuple, new)), leaves=(leaves,))


def state_posteriors(
    circuit: Circuit,
    params: CircuitParams,
    x: Any,
    observed: Any = None,
    *,
    given: str = "all",
) -> Array:
    """Probabilities of the states of one sequence, at every time.

    Args:
        circuit: of `hidden_markov_chain`.
        params: its parameters.
        x: ``[V, C]`` (``[V]`` with one channel).
        observed: bool ``[V]``, or None: everything is observed. States of times that
            are not observed have probabilities as well.
        given: ``"all"``: of each state given the whole sequence (smoothing).
            ``"past"``: given what is observed up to its time (filtering).

    Returns:
        ``[V, K]``; each row adds up to 1, or is 0 where the evidence is impossible.
        NaN if an observed value is.

    Raises:
        ValueError: the circuit is another one, a shape is, or ``given`` is none.
    """
    _check(circuit)
    if given not in GIVEN:
        raise ValueError(f"given must be one of {GIVEN}, got {shown(given)}")
    layout = circuit.layout
    params, dtype = widened(params)
    x, observed = examples.example(layout, x, observed, dtype)
    if observed is None:
        observed = jnp.ones(x.shape[:1], bool)
    shape = (layout.graph.num_variables, layout.num_leaves)
    return _posteriors(params, x, observed, layout=layout, given=given, shape=shape)


@foldable
def _posteriors(params, x, observed, *, layout, given):
    _, weights = parameters.of_regions(layout, params)
    inputs = log_inputs(layout, weights, x, observed)
    order = np.argsort(layout.graph.input_scopes[:, 0])
    if given == "past":
        found = _filtered(layout, weights, inputs[order])
    else:

        def total(inputs):
            root = above(layout, weights, inputs).regions[-1][0]
            log_p = logsumexp(root + safe_log(weights.classes)[:, None], axis=0)
            return jnp.sum(finite_or_zero(log_p))

        found = jax.grad(total)(inputs)[order]
    found = jnp.moveaxis(found, -1, 0)
    missing = jnp.any(jnp.isnan(x) & observed[..., None], axis=(1, 2))
    return jnp.where(missing[:, None, None], jnp.nan, found)


def _filtered(layout, weights, log_densities):
    """The forward recursion over ``[V, K, N]``."""
    *_, places = layout.graph.places
    initial, *transitions = (
        weights.sums[level - 1][fold][row] for level, fold, row in places[:2]
    )

    def given(predicted, log_density):
        joint = safe_log(predicted) + log_density
        top = finite_or_zero(jnp.max(joint, axis=0, keepdims=True))
        share = jnp.exp(joint - top)
        total = jnp.sum(share, axis=0, keepdims=True)
        return safe_divide(share, jnp.broadcast_to(total, share.shape))

    def step(before, log_density):
        (table,) = transitions
        predicted = jnp.einsum("jk,jn->kn", table, before, precision="highest")
        now = given(predicted, log_density)
        return now, now

    shape = log_densities.shape[1:]
    first = given(jnp.broadcast_to(initial[0][:, None], shape), log_densities[0])
    if not transitions:
        return first[None]
    rest = jax.lax.scan(step, first, log_densities[1:])[1]
    return jnp.concatenate([first[None], rest])


def _check(circuit: Circuit) -> None:
    instance("circuit", circuit, Circuit)
    config = circuit.config
    structure = config.structure
    is_chain = isinstance(structure, HiddenMarkovChain) and config == (
        hidden_markov_chain(
            structure.length,
            config.num_sums,
            config.leaves[0],
            num_channels=config.num_channels,
        )
    )
    if not is_chain:
        raise ValueError(
            f"circuit must be that of hidden_markov_chain(...), got {shown(config)}"
        )


def _sums(circuit: Circuit) -> list[tuple[int, int, int]]:
    """Where the first state's logits are, and those of the transitions, if any."""
    _check(circuit)
    return list(parameter_rows(circuit).sums[:2])
