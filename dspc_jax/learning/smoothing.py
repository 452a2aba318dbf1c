"""Pseudocounts of expectation-maximization, and the distributions they are spread by.

A unit that few examples of a batch came through has counts of little weight. A
pseudocount is a number of examples that every sum and leaf counts in addition, as it is
expected of them; see `dspc_jax.learning.em.em` for the choices.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp

from dspc_jax.arguments import real_number, shown
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves import CenteredLeaf, OrderedLeaf, UniformLeaf
from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.ops.values import traced_number
from dspc_jax.parameters import Layout
from dspc_jax.types import Array

_MOST_SPREAD = 20.0  # 121 values are read for each
PRIORS = ("current", "uniform", "marginal")


class Smoothing(NamedTuple):
    """How counts are smoothed.

    Attributes:
        towards: one of `PRIORS`.
        sums: examples that every sum counts in addition.
        leaves: examples that every leaf counts in addition.
        spread: deviation of the Gaussian that counts of leaves are spread by, in steps
            between values.
    """

    towards: str
    sums: float | Array
    leaves: float | Array
    spread: float

    def of_sums(self, count: Array, weight: Array, axes: Sequence[int]) -> Array | None:
        """What is added to the counts of sums.

        Args:
            count: of edges, of ``[G, K, ...]`` sums or of one.
            weight: theirs.
            axes: those of the edges of one sum.

        Returns:
            In the shape of the weights, 0 where these are 0; None: nothing.
        """
        if _none(self.sums):
            return None
        if self.towards == "current":
            return self.sums * weight
        share = jnp.ones_like(weight)
        if self.towards == "marginal":
            share = count if 0 in axes else jnp.sum(count, axis=1, keepdims=True)
        share = jnp.where(weight > 0, share, 0.0)
        total = jnp.sum(share, axis=tuple(axes), keepdims=True)
        return self.sums * jnp.where(total > 0, safe_divide(share, total), weight)

    def of_leaves(
        self,
        block: InputBlock,
        params: Any,
        current: tuple[Array, ...],
        statistics: tuple[Array, ...],
        mass: Array,
    ) -> tuple[tuple[Array, ...], Array]:
        """The counts of leaves with what is added.

        Args:
            block: the leaves.
            params: theirs.
            current: their expected statistics.
            statistics: sums of them over examples.
            mass: ``[G, K, L, C]``.

        Returns:
            Statistics and mass; padding has none.
        """
        leaf = block.leaf
        if self.spread:
            assert isinstance(leaf, OrderedLeaf)
            statistics = leaf.spread(statistics, self.spread)
        if _none(self.leaves):
            return statistics, mass
        prior = current
        if self.towards == "uniform":
            assert isinstance(leaf, UniformLeaf)
            prior = leaf.uniform_statistics(params)
        elif self.towards == "marginal":
            together, of_all = _of_all_units(leaf, params, statistics, mass)
            prior = tuple(
                jnp.where(aligned(of_all, a) > 0, safe_divide(a, aligned(of_all, a)), b)
                for a, b in zip(together, current, strict=True)
            )
        number = jnp.where(block.valid[:, None, :, None], self.leaves, 0.0)
        added = number.astype(mass.dtype)
        statistics = tuple(
            a + aligned(added, a) * b for a, b in zip(statistics, prior, strict=True)
        )
        return statistics, mass + added


def smoothing_of(
    layout: Layout,
    towards: str,
    sums: float | Array,
    leaves: float | Array | None,
    spread: float,
) -> Smoothing:
    """The smoothing that the arguments of `dspc_jax.learning.em.em` ask for.

    Args:
        layout: the circuit.
        towards: ``smooth_towards``.
        sums: ``pseudocount``.
        leaves: ``leaf_pseudocount``; None: ``sums``.
        spread: ``leaf_spread``.

    Returns:
        The smoothing.

    Raises:
        ValueError: a number is negative or none, there is no such prior, or a leaf has
            no uniform distribution and is to be smoothed towards it, or no ordered
            values and is to be spread over them.
    """
    if towards not in PRIORS:
        raise ValueError(f"smooth_towards must be among {PRIORS}, got {shown(towards)}")
    numbers = []
    for name, value in (("pseudocount", sums), ("leaf_pseudocount", leaves)):
        value = numbers[0] if value is None and numbers else traced_number(name, value)
        if not isinstance(value, Tracer) and value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
        numbers.append(value)
    spread = real_number("leaf_spread", spread)
    if not 0 <= spread <= _MOST_SPREAD:
        raise ValueError(f"leaf_spread must be from 0 to {_MOST_SPREAD}, got {spread}")
    smoothing = Smoothing(towards, numbers[0], numbers[1], spread)
    for block in layout.blocks if spread else ():
        if not isinstance(block.leaf, OrderedLeaf):
            raise ValueError(
                "leaf_spread must be 0 for leaves that are no tables of ordered values "
                f"(categorical), got {spread} with {shown(block.family)}"
            )
    if not _none(smoothing.leaves) and towards == "uniform":
        for block in layout.blocks:
            if not isinstance(block.leaf, UniformLeaf):
                raise ValueError(
                    "smooth_towards must not be 'uniform' for leaves without a uniform "
                    f"distribution (or leaf_pseudocount=0), got {shown(block.family)}"
                )
    return smoothing


def _none(number: float | Array) -> bool:
    """Whether a number of examples is known to be 0."""
    return not isinstance(number, Tracer) and bool(number == 0)


def _of_all_units(leaf, params, statistics, mass):
    """The counts of all leaves of a region, as each of them takes statistics."""
    shift = None
    if isinstance(leaf, CenteredLeaf):
        center = leaf.center(params)
        shift = center - jnp.mean(center, axis=1, keepdims=True)
        statistics = leaf.recentered(statistics, mass, shift)
    statistics, mass = jax.tree.map(
        lambda a: jnp.sum(a, axis=1, keepdims=True), (statistics, mass)
    )
    if shift is not None:
        statistics = leaf.recentered(statistics, mass, -shift)
    return statistics, mass
