r"""Expectation-maximization: expected counts by one vjp, applied as an optax update.

The gradient of :math:`\log p(x)` with respect to the *normalized* weight of an edge,
times that weight, is the posterior probability that :math:`x` came through the edge;
with respect to a leaf's natural parameters it is the posterior-weighted sufficient
statistic, and with respect to its log-partition function minus the posterior itself.
One reverse pass gives all expected counts; the M-step is closed form.

References:
    Darwiche, "A differential approach to inference in Bayesian networks", JACM 2003.
    Peharz et al., "Einsum Networks", ICML 2020, section 3.5 (stochastic EM).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from dspc_jax import examples, parameters
from dspc_jax.arguments import instance, real_number, shown
from dspc_jax.circuit import Circuit
from dspc_jax.inference import likelihood
from dspc_jax.leaves import FittableLeaf
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.parameters import CircuitParams, CircuitWeights
from dspc_jax.types import Array, PyTree

_LEAST_WEIGHT = 1e-30  # keeps logits finite; far below the rounding of a sum of weights


def expected_counts(
    circuit: Circuit,
    params: CircuitParams,
    x: ArrayLike,
    observed: ArrayLike | None = None,
) -> CircuitWeights:
    """Expected counts of a batch, summed over its examples (the E-step).

    Args:
        circuit: a circuit with exponential-family or categorical leaves.
        params: its parameters.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``, or None.

    Returns:
        The tree of `CircuitWeights`: edge counts in place of weights; for leaves a pair
        ``(statistics, mass)`` of posterior-weighted statistics and posterior mass.
        Examples of probability 0 do not count.

    Raises:
        ValueError: a leaf family has no closed-form M-step, a shape or type is another,
            or an observed value is NaN; the message names its row and variable. (A
            traced one is not seen, and gives counts NaN, and these parameters NaN.)
    """
    _check_leaves(circuit)
    layout = circuit.layout
    params, dtype = widened(params)
    x, mask = examples.rows(layout, "x", x, observed, dtype)
    return _counts(layout, params, x, mask)


@functools.partial(jax.jit, static_argnums=0)
def _counts(layout, params, x, mask):
    weights = parameters.normalize(layout, params)

    def total(weights):
        log_p = likelihood.log_prob(layout, weights, x, mask)
        return jnp.sum(jnp.where(log_p == -jnp.inf, 0.0, log_p))

    gradient = jax.grad(total)(weights)
    edges = jax.tree.map(
        jnp.multiply, weights._replace(leaves=()), gradient._replace(leaves=())
    )
    leaves = []
    for block, *natural_and_gradient in zip(
        layout.blocks, weights.leaves, gradient.leaves, strict=True
    ):
        assert isinstance(block.leaf, FittableLeaf)
        leaves.append(block.leaf.counts(*natural_and_gradient))
    return edges._replace(leaves=tuple(leaves))


def em(circuit: Circuit, *, step_size: float = 1.0) -> optax.GradientTransformation:
    """The M-step as an optax transformation of expected counts.

    ``update(expected_counts(circuit, params, x), state, params)`` gives the change of
    ``params``. Weights and leaf expectations move to ``(1 - s) old + s fitted``. With
    ``step_size`` 1 and all training data in ``x`` the likelihood never falls; with
    mini-batches take less (0.05 to 0.5). A unit without posterior mass keeps its
    parameters. Changes of bfloat16 parameters are float32, so that
    ``optax.apply_updates`` rounds their sums only.

    Args:
        circuit: a circuit with exponential-family or categorical leaves.
        step_size: s in (0, 1].

    Returns:
        The transformation, without state.

    Raises:
        ValueError: the step size is outside (0, 1], or a leaf has no closed-form
            M-step.
    """
    _check_leaves(circuit)
    step_size = real_number("step_size", step_size)
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size must be in (0, 1], got {step_size}")
    layout = circuit.layout

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> PyTree:
        if params is None:
            raise ValueError("params must be parameters in an update by EM, got None")
        params, _ = widened(params)
        counts: CircuitWeights = updates
        weights = parameters.normalize(layout, params)

        def sums(count, weight, axes):
            total = jnp.sum(count, axis=axes, keepdims=True)
            fitted = jnp.where(total <= 0, weight, safe_divide(count, total))
            new = (1 - step_size) * weight + step_size * fitted
            # The change of logits keeps their normalization; a weight of 0 stays 0.
            change = _log_weight(new) - _log_weight(weight)
            return jnp.where(weight > 0, change, 0.0)

        edges = CircuitParams(
            leaves=(),
            sums=jax.tree.map(
                lambda *a: sums(*a, axes=tuple(range(2, a[0].ndim))),
                counts.sums,
                weights.sums,
            ),
            mixtures=jax.tree.map(
                lambda *a: sums(*a, axes=(2,)),
                counts.mixtures,
                weights.mixtures,
            ),
            classes=sums(counts.classes, weights.classes, (0,)),
        )
        leaves = tuple(
            _leaf_change(block.leaf, leaf, statistics, mass, step_size)
            for block, leaf, (statistics, mass) in zip(
                layout.blocks, params.leaves, counts.leaves, strict=True
            )
        )
        return edges._replace(leaves=leaves), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _log_weight(weight: Array) -> Array:
    """``log`` of a weight, of the least one where it is below."""
    return jnp.log(jnp.maximum(weight, _LEAST_WEIGHT))


def _leaf_change(leaf, params, statistics, mass, step_size):
    def per_value(array, like):
        return array if array.ndim == like.ndim else array[..., None]

    target = tuple(
        (1 - step_size) * old + step_size * safe_divide(new, per_value(mass, new))
        for old, new in zip(leaf.expected_statistics(params), statistics, strict=True)
    )
    fitted = leaf.from_statistics(target, params)

    def change(new, old):
        finite_old = jnp.isfinite(old)
        least = math.log(_LEAST_WEIGHT)
        new = jnp.maximum(new, least) if new.ndim > mass.ndim else new
        kept = (per_value(mass, new) <= 0) | ~finite_old
        return jnp.where(kept, 0.0, new - old)

    return jax.tree.map(change, fitted, params)


def _check_leaves(circuit: Circuit) -> None:
    instance("circuit", circuit, Circuit)
    for block in circuit.layout.blocks:
        if not isinstance(block.leaf, FittableLeaf):
            raise ValueError(
                "circuit must have leaves with a closed-form M-step for EM, got "
                f"{shown(block.family)}; train it by gradient"
            )
