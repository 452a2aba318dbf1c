r"""Expected counts: the E-step of expectation-maximization, by one vjp.

The gradient of :math:`\log p(x)` with respect to the *normalized* weight of an edge,
times that weight, is the posterior probability that :math:`x` came through the edge;
with respect to a leaf's natural parameters it is the posterior-weighted sufficient
statistic, and with respect to its log-partition function minus the posterior itself.
One reverse pass gives all expected counts.

References:
    Darwiche, "A differential approach to inference in Bayesian networks", JACM 2003.
"""

from dataclasses import replace
import functools
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
import numpy as np

from dspc_jax import examples, parameters
from dspc_jax.arguments import instance, shown, whole_number
from dspc_jax.circuit import Circuit
from dspc_jax.inference import likelihood
from dspc_jax.inference.upward import above
from dspc_jax.leaves import FittableLeaf
from dspc_jax.leaves.moment_fitting import moment_fitted
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.meshes import placed
from dspc_jax.ops.numerics import logsumexp, safe_log
from dspc_jax.ops.values import as_values
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array

_PART = 128  # examples
_CACHE = 32 * 2**20  # bytes


def expected_counts(
    circuit: Circuit,
    params: CircuitParams,
    x: ArrayLike,
    observed: ArrayLike | None = None,
    *,
    labels: ArrayLike | None = None,
    example_weights: ArrayLike | None = None,
    batch_size: int | None = None,
    approximate: bool = False,
) -> CircuitWeights:
    """Expected counts of a batch, summed over its examples (the E-step).

    With ``labels`` the class of an example is observed: its posterior is 1 at the
    label, and EM raises the likelihood of values and labels together.

    With a ``batch_size`` the examples go through the circuit one part after another,
    so that beside the data and the counts memory is that of one part. A full-batch step
    of EM, which cleans up after those on mini-batches, is then two lines::

        counts = pc.expected_counts(circuit, params, data, batch_size=500)
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)

    Args:
        circuit: a circuit with exponential-family or categorical leaves.
        params: its parameters.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``, or None.
        labels: classes ``[N]``, whole numbers in ``0 .. Y - 1``, -1 where a class is
            not known; None: none is.
        example_weights: how often each example counts, real numbers ``[N]`` of at least
            0; None: once.
        batch_size: the most examples at once, in parts of equal size; None: all, or
            about 128 on a CPU whose cache the log-densities of all would not fit in
            (a fraction of the memory, whose pages cost time).
        approximate: whether leaves without an M-step in closed form count moments, for
            an `dspc_jax.em` that is approximate, too.

    Returns:
        The tree of `CircuitWeights`: edge counts in place of weights; for leaves a pair
        ``(statistics, mass)`` of posterior-weighted statistics and posterior mass.
        Examples of probability 0 do not count.

    Raises:
        ValueError: a leaf family has no closed-form M-step, a shape or type is another,
            a label or weight is out of its range, the batch size is no positive whole
            number, or an observed value is NaN; the message names its row and variable.
            (A traced one is not seen, and gives counts NaN, and these parameters NaN;
            an example whose traced label is out of range does not count.)
    """
    layout = fittable_layout(circuit, approximate=approximate)
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, least=1)
    params, dtype = widened(params)
    x, mask = examples.rows(layout, "x", x, observed, dtype)
    label = None if labels is None else _labels(layout, labels, len(x))
    weight = _example_weights(example_weights, len(x), dtype)
    if batch_size is None:
        num_parts = _num_parts(layout, len(x), dtype.itemsize)
    else:
        num_parts = -(-len(x) // batch_size)
    counts = functools.partial(_counts, layout, num_parts)
    return placed(counts, PartitionSpec())(params, x, mask, label, weight)


def _labels(layout: Layout, labels: Any, count: int) -> Array:
    """Classes ``[N]`` of so many examples, -1 where not known."""
    array = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    if array.shape != (count,) or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers of shape [N] = ({count},), got {array.dtype} of "
            f"shape {array.shape}"
        )
    if _is_known(array):
        array = np.asarray(array)
        wrong = array[(array < -1) | (array >= layout.num_classes)]
        if wrong.size:
            raise ValueError(
                f"labels must be in 0 .. {layout.num_classes - 1}, or -1 where not "
                f"known, got {wrong[0]}"
            )
    return jnp.asarray(array, jnp.int32)


def _example_weights(weights: Any, count: int, dtype: Any) -> Array | None:
    """How often each of so many examples counts, ``[N]``."""
    if weights is None:
        return None
    array = as_values("example_weights", weights, dtype)
    if array.shape != (count,):
        raise ValueError(
            f"example_weights must have shape [N] = ({count},), got {array.shape}"
        )
    if _is_known(array):
        values = np.asarray(array)
        wrong = values[~(np.isfinite(values) & (values >= 0))]
        if wrong.size:
            raise ValueError(
                "example_weights must be finite numbers of at least 0, got "
                f"{float(wrong[0])}"
            )
    return array


def _is_known(array: Any) -> bool:
    """Whether all values can be looked at: none is traced, or on another host."""
    if isinstance(array, Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def _num_parts(layout: Layout, num_examples: int, num_bytes: int) -> int:
    """Parts of so many examples that are counted one after another.

    Products are as fast for `_PART` examples as for more, while the passes between
    them, and memory that is new to the process, cost the less the smaller the arrays
    of a level are. Other devices have no such caches, and more to do at once.
    """
    levels = enumerate(layout.graph.levels, 1)
    num_units = sum(
        fold.size * layout.num_units(number)
        for number, level in levels
        for fold in level.folds
    )
    if jax.default_backend() != "cpu" or num_units * num_examples * num_bytes < _CACHE:
        return 1
    return max(round(num_examples / _PART), 1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _counts(layout, num_parts, params, x, mask, label, weight):
    weights = parameters.normalize(layout, params)

    def gradient(x, mask, label, weight, is_example=True):
        def total(weights):
            weights = parameters.expanded(layout, weights)
            joint = likelihood.class_log_probs(layout, weights, x, mask)
            joint = joint + safe_log(weights.classes)[None]
            if label is not None:
                own = label[:, None] == jnp.arange(layout.num_classes)[None]
                joint = jnp.where(own | (label[:, None] == -1), joint, -jnp.inf)
            log_p = logsumexp(joint, axis=-1)
            log_p = jnp.where(is_example & (log_p != -jnp.inf), log_p, 0.0)
            return jnp.sum(log_p if weight is None else weight * log_p)

        return jax.grad(total)(weights)

    if num_parts <= 1:
        summed = gradient(x, mask, label, weight)
    else:
        # Part i has the rows i, i + num_parts, ...: where the examples are sharded,
        # every part is, too.
        size = -(-len(x) // num_parts)
        real = jnp.arange(size * num_parts) < len(x)

        def add(summed, part):
            def rows(array):
                lacking = size * num_parts - len(array)
                array = jnp.pad(array, [(0, lacking)] + [(0, 0)] * (array.ndim - 1))
                array = array.reshape(size, num_parts, *array.shape[1:])
                return jax.lax.dynamic_index_in_dim(array, part, 1, keepdims=False)

            step = gradient(*jax.tree.map(rows, (x, mask, label, weight, real)))
            return jax.tree.map(jnp.add, summed, step), None

        start = jax.tree.map(jnp.zeros_like, weights)
        summed, _ = jax.lax.scan(add, start, jnp.arange(num_parts))
    leaves = []
    for block, *natural_and_gradient in zip(
        layout.leaf_blocks, weights.leaves, summed.leaves, strict=True
    ):
        assert isinstance(block.leaf, FittableLeaf)
        leaves.append(block.leaf.counts(*natural_and_gradient))
    return _edges(weights, summed)._replace(leaves=tuple(leaves))


def _edges(weights: CircuitWeights, gradient: CircuitWeights) -> CircuitWeights:
    """The expected counts of the edges alone."""
    return jax.tree.map(
        jnp.multiply, weights._replace(leaves=()), gradient._replace(leaves=())
    )


def prior_counts(layout: Layout, weights: CircuitWeights) -> CircuitWeights:
    """Expected counts of one example of which nothing is observed.

    That of an edge is the probability that a sample of the circuit comes through it.

    Args:
        layout: the circuit.
        weights: its normalized parameters.

    Returns:
        The edge counts; for leaves the mass alone, of every block ``[G, K, L, 1]``.
    """
    shapes = [(*b.scopes.shape, layout.num_leaves) for b in layout.leaf_blocks]
    zeros = tuple(
        jnp.zeros((regions, units, length, 1), weights.classes.dtype)
        for regions, length, units in shapes
    )

    def log_total(weights):
        weights = parameters.expanded(layout, weights)
        inputs = [
            jnp.sum(jnp.where(block.valid[:, None, :, None], own, 0.0), axis=2)
            for block, own in zip(layout.blocks, weights.leaves, strict=True)
        ]
        root = above(layout, weights, functools.reduce(jnp.add, inputs))
        log_classes = safe_log(weights.classes)
        return logsumexp(root.regions[-1][0, :, 0] + log_classes, axis=0)

    gradient = jax.grad(log_total)(weights._replace(leaves=zeros))
    return _edges(weights, gradient)._replace(leaves=gradient.leaves)


def fittable_layout(circuit: Circuit, *, approximate: bool = False) -> Layout:
    """The layout of a circuit as EM takes it.

    Args:
        circuit: any.
        approximate: whether leaves may be fitted by moments.

    Returns:
        The layout, all of whose leaves are `FittableLeaf`; parameters are the same.

    Raises:
        ValueError: there is no circuit, or a leaf has no M-step.
    """
    instance("circuit", circuit, Circuit)
    if not isinstance(approximate, bool):
        raise ValueError(f"approximate must be True or False, got {shown(approximate)}")
    by_moments = _by_moments(circuit.layout)
    layout = by_moments if approximate else circuit.layout
    for block, other in zip(layout.blocks, by_moments.blocks, strict=True):
        if isinstance(block.leaf, FittableLeaf):
            continue
        option = ""
        if isinstance(other.leaf, FittableLeaf):
            option = "fit them by moments with approximate=True, or "
        raise ValueError(
            "circuit must have leaves with a closed-form M-step for EM, got "
            f"{shown(block.family)}; {option}train it by gradient"
        )
    return layout


@functools.lru_cache(maxsize=64)  # as circuits: equal ones are not compiled twice
def _by_moments(layout: Layout) -> Layout:
    """The layout with leaves that are fitted by moments where need be."""

    def fitted(block):
        leaf = moment_fitted(block.family)
        return block if leaf is block.family else replace(block, family=leaf)

    blocks = tuple(map(fitted, layout.blocks))
    if all(a is b for a, b in zip(blocks, layout.blocks, strict=True)):
        return layout
    tied = layout.tied_leaves and tuple(
        own._replace(block=fitted(own.block)) for own in layout.tied_leaves
    )
    return replace(layout, blocks=blocks, tied_leaves=tied)
