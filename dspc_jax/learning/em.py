r"""Expectation-maximization: the M-step, as an optax update by expected counts.

With :math:`F_e` the expected count of an edge of a sum, :math:`T = \sum_e F_e` that of
the sum, :math:`\theta` its weights, :math:`a` the pseudocount, :math:`\pi` what it
smooths towards and :math:`s` the step size,

.. math:: \hat\theta_e = \frac{F_e + a \pi_e}{T + a}, \qquad
    \theta_e' = (1 - s_T)\, \theta_e + s_T\, \hat\theta_e .

:math:`s_T = s`, or with ``rescale``, for N examples and the probability :math:`p` that
a sample of the circuit comes through the sum,

.. math:: s_T = \frac{s (T + a) / N}{s (T + a) / N + (1 - s)\, p}, \qquad\text{that is}
    \qquad \theta_e' \propto s\, \frac{F_e + a \pi_e}{N} + (1 - s)\, p\, \theta_e .

A sum that the batch visits as often as a sample of the circuit would (:math:`T = N p`)
takes the step :math:`s`, one visited less often a smaller one. Leaves move alike, with
expected statistics in place of weights.

References:
    Peharz et al., "Einsum Networks", ICML 2020, section 3.5 (stochastic EM).
    Liu, Shao and Van den Broeck, AISTATS 2026, arXiv 2505.19982 (the rescaled step,
    "anemone").
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
import optax

from dspc_jax import parameters
from dspc_jax.arguments import real_number, shown
from dspc_jax.circuit import Circuit
from dspc_jax.learning.averages import averaged_counts
from dspc_jax.learning.counts import expected_counts, fittable_layout, prior_counts
from dspc_jax.learning.smoothing import Smoothing, smoothing_of
from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.ops.values import traced_number
from dspc_jax.parameters import CircuitParams, CircuitWeights
from dspc_jax.types import Array, PyTree

LEAST_WEIGHT = 1e-30
"""It keeps logits finite; far below the rounding of a sum of weights."""


class EM(optax.GradientTransformation):
    """An M-step that knows its E-step.

    Attributes:
        counts: ``counts(params, x[N, V, C], observed=None)``, the expected counts that
            its ``update`` takes.
    """

    counts: Callable[..., CircuitWeights]

    def __new__(cls, init, update, counts):  # noqa: D102
        self = super().__new__(cls, init, update)
        self.counts = counts
        return self


def em(
    circuit: Circuit,
    *,
    step_size: optax.ScalarOrSchedule = 1.0,
    pseudocount: float | Array = 0.0,
    leaf_pseudocount: float | Array | None = None,
    smooth_towards: str = "current",
    leaf_spread: float = 0.0,
    momentum: float = 0.0,
    rescale: bool = False,
    approximate: bool = False,
) -> EM:
    """The M-step as an optax transformation of expected counts.

    ``update(expected_counts(circuit, params, x), state, params)`` gives the change of
    ``params``; the formulas are above. With ``step_size`` 1, no pseudocounts and all
    training data in ``x`` the likelihood never falls; with mini-batches take less (0.05
    to 0.5, or a schedule that falls), and end with a step of 1 on all data
    (`expected_counts` with a ``batch_size``). A unit without mass, pseudocount
    included, keeps its parameters; a weight of exactly 0 stays 0. Changes of bfloat16
    parameters are float32, so that ``optax.apply_updates`` rounds their sums only.
    ``step_size`` and the pseudocounts may be traced, and are not checked then: one
    compiled program tries them all.

    Args:
        circuit: a circuit with exponential-family or categorical leaves.
        step_size: s in (0, 1], or a schedule ``count -> s``: a function of the traced
            number of steps so far, so that nothing is compiled again. Its values are
            clipped to 0 .. 1.
        pseudocount: a, the number of examples that every sum counts in addition, at
            least 0.
        leaf_pseudocount: that of every leaf; None: ``pseudocount``.
        smooth_towards: what the pseudocount is spread by, one of these.
            ``"current"``: the weights and leaves as they are; it makes the steps of
            rarely visited units shorter. ``"uniform"``: equal weights of all edges
            whose weight is not 0, equally probable values; there is none of Normal
            leaves. ``"marginal"``: the weights that the units of the same partition
            (or mixture) have together, and the distribution that the leaves of the same
            region have together, each by its count.
        leaf_spread: deviation of a Gaussian by which each value that a categorical leaf
            counts also counts for its neighbors, in steps between values, at most 20;
            0: it does not. No mass leaves the range. The likelihood of the training
            data may then fall; for colors and other values with an order of which few
            examples are there.
        momentum: decay of an exponential moving average of the expected counts, in
            [0, 1). It is in the state, and its bias towards the 0 at the start is
            corrected: of the first batch it is the counts themselves.
        rescale: whether each sum and leaf has its own step, by how often it is visited
            ("anemone"). It costs one pass of one example.
        approximate: whether discretized logistic leaves, which have no M-step in closed
            form, are fitted by moments: location and scale have the mean and deviation
            of what a leaf counts (``approximate`` in `expected_counts` as well). The
            likelihood may then fall, and a fixed point is no maximum.

    Returns:
        The transformation. Its state is empty without a schedule and momentum; its
        ``counts`` are `expected_counts` of this circuit.

    Raises:
        ValueError: a number is out of its range, there is no such prior, or a leaf has
            no closed-form M-step, or no uniform distribution where it needs one.
    """
    layout = fittable_layout(circuit, approximate=approximate)
    if not callable(step_size):
        size = step_size = traced_number("step_size", step_size)
        if not isinstance(size, Tracer) and not 0 < size <= 1:
            raise ValueError(f"step_size must be in (0, 1], got {size}")
    momentum = real_number("momentum", momentum)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not isinstance(rescale, bool):
        raise ValueError(f"rescale must be True or False, got {shown(rescale)}")
    smoothing = smoothing_of(
        layout, smooth_towards, pseudocount, leaf_pseudocount, leaf_spread
    )
    m_step = _m_step(layout, step_size, smoothing, rescale)
    if momentum:
        m_step = optax.chain(averaged_counts(layout, momentum), m_step)
    counts = functools.partial(expected_counts, circuit, approximate=approximate)
    return EM(*m_step, counts)


def _m_step(layout, step_size, smoothing: Smoothing, rescale: bool):
    """The transformation of counts as they are, see `em`."""

    def init(params):
        del params
        if not callable(step_size):
            return optax.EmptyState()
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        if params is None:
            raise ValueError("params must be parameters in an update by EM, got None")
        if not isinstance(updates, CircuitWeights):
            raise ValueError(
                "updates must be expected counts (CircuitWeights), got "
                f"{shown(updates)}"
            )
        params, dtype = widened(params)
        counts = jax.tree.map(lambda count: jnp.asarray(count, dtype), updates)
        weights = parameters.normalize(layout, params)
        size: Any = step_size
        if callable(step_size):
            size = jnp.clip(jnp.asarray(step_size(state.count)), 0, 1)
            state = optax.ScaleByScheduleState(optax.safe_increment(state.count))
        size = jnp.asarray(size, dtype)
        prior = prior_counts(layout, weights) if rescale else None
        num_examples = jnp.sum(counts.classes)

        def share(total, prior):
            """The step of units with this mass, pseudocount included."""
            if prior is None:
                return size
            visits = size * safe_divide(total, num_examples)
            return safe_divide(visits, visits + (1 - size) * aligned(prior, total))

        def moved(old, count, total, prior):
            fitted = jnp.where(total <= 0, old, safe_divide(count, total))
            step = share(total, prior)
            return (1 - step) * old + step * fitted

        def sums(count, weight, prior=None, *, axes):
            added = smoothing.of_sums(count, weight, axes)
            count = count if added is None else count + added
            total, prior = (
                None if a is None else jnp.sum(a, axis=axes, keepdims=True)
                for a in (count, prior)
            )
            new = moved(weight, count, total, prior)
            # The change of logits keeps their normalization; a weight of 0 stays 0.
            change = _log_weight(new) - _log_weight(weight)
            return jnp.where(weight > 0, change, 0.0)

        def leaves(block, leaf_params, counts, prior=None):
            leaf = block.leaf
            old = leaf.expected_statistics(leaf_params)
            statistics, mass = smoothing.of_leaves(block, leaf_params, old, *counts)
            target = tuple(
                moved(before, count, aligned(mass, count), prior)
                for before, count in zip(old, statistics, strict=True)
            )
            fitted = leaf.from_statistics(target, leaf_params)
            change = functools.partial(_leaf_change, mass)
            return jax.tree.map(change, fitted, leaf_params)

        def mapped(change, part):
            trees = (counts, weights) if prior is None else (counts, weights, prior)
            return jax.tree.map(change, *(getattr(tree, part) for tree in trees))

        priors = (None,) * len(layout.leaf_blocks) if prior is None else prior.leaves
        change = CircuitParams(
            leaves=tuple(
                map(leaves, layout.leaf_blocks, params.leaves, counts.leaves, priors)
            ),
            sums=mapped(lambda *a: sums(*a, axes=tuple(range(2, a[0].ndim))), "sums"),
            mixtures=mapped(functools.partial(sums, axes=(2,)), "mixtures"),
            classes=mapped(functools.partial(sums, axes=(0,)), "classes"),
        )
        return change, state

    return optax.GradientTransformation(init, update)


def _log_weight(weight: Array) -> Array:
    """``log`` of a weight, of the least one where it is below."""
    return jnp.log(jnp.maximum(weight, LEAST_WEIGHT))


def _leaf_change(mass: Array, new: Array, old: Array) -> Array:
    """The change of parameters to those that were fitted to leaves of this mass."""
    least = math.log(LEAST_WEIGHT)
    new = jnp.maximum(new, least) if new.ndim > mass.ndim else new
    kept = (aligned(mass, new) <= 0) | ~jnp.isfinite(old)
    return jnp.where(kept, 0.0, new - old)
