r"""Exponential moving averages of expected counts: the momentum of EM.

.. math:: m_t = \beta m_{t-1} + (1 - \beta) F_t, \qquad
    \hat F_t = m_t / (1 - \beta^t), \qquad m_0 = 0
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dspc_jax.leaves import CenteredLeaf, FittableLeaf
from dspc_jax.ops.float_types import widened
from dspc_jax.parameters import CircuitWeights, Layout
from dspc_jax.types import Array, PyTree


class AverageState(NamedTuple):
    """The state of `averaged_counts`.

    Attributes:
        step: t, int32 ``[]``.
        average: m, a tree of expected counts.
        centers: per leaf family what its statistics are about, or None.
    """

    step: Array
    average: CircuitWeights
    centers: tuple[Array | None, ...]


def averaged_counts(layout: Layout, decay: float) -> optax.GradientTransformation:
    """Expected counts to their moving average, corrected for its bias.

    Args:
        layout: the circuit.
        decay: beta, in [0, 1).

    Returns:
        The transformation; it takes the parameters that the counts were taken with.
    """

    def init(params: PyTree) -> Any:
        params, _ = widened(params)

        def zeros(tree):
            return jax.tree.map(jnp.zeros_like, tree)

        leaves = []
        for block, own in zip(layout.leaf_blocks, params.leaves, strict=True):
            assert isinstance(block.leaf, FittableLeaf)
            statistics = zeros(block.leaf.expected_statistics(own))
            first = statistics[0]
            leaves.append((statistics, jnp.zeros(first.shape[:4], first.dtype)))
        edges = CircuitWeights(
            tuple(leaves), *zeros((params.sums, params.mixtures, params.classes))
        )
        return AverageState(jnp.zeros([], jnp.int32), edges, _centers(layout, params))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        if params is None:
            raise ValueError("params must be parameters in an update by EM, got None")
        params, dtype = widened(params)
        centers = _centers(layout, params)
        old = state.average
        leaves = tuple(
            _about(block.leaf, counts, before, now)
            for block, counts, before, now in zip(
                layout.leaf_blocks, old.leaves, state.centers, centers, strict=True
            )
        )
        average = jax.tree.map(
            lambda m, f: decay * m + (1 - decay) * f,
            old._replace(leaves=leaves),
            updates,
        )
        step = jnp.asarray(optax.safe_increment(state.step))
        total = 1 - jnp.asarray(decay, dtype) ** step.astype(dtype)
        corrected = jax.tree.map(lambda m: m / total, average)
        return corrected, AverageState(step, average, centers)

    return optax.GradientTransformation(init, update)


def _centers(layout: Layout, params: Any) -> tuple[Array | None, ...]:
    return tuple(
        block.leaf.center(own) if isinstance(block.leaf, CenteredLeaf) else None
        for block, own in zip(layout.leaf_blocks, params.leaves, strict=True)
    )


def _about(leaf: Any, counts: Any, before: Any, now: Any) -> Any:
    """Counts of statistics about the one center as those about the other."""
    if not isinstance(leaf, CenteredLeaf):
        return counts
    statistics, mass = counts
    return leaf.recentered(statistics, mass, before - now), mass
