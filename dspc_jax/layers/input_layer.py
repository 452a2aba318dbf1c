r"""The input layer: factorized leaf distributions over the scopes of input regions.

Unit :math:`k` of region :math:`g` is :math:`\prod_{v \in g} \prod_c p(x_{vc})`. For an
exponential family its log-density is one product of sufficient statistics with natural
parameters, :math:`\sum_d \eta_{gkd} T_{gd}(x) - A_{gk}`; the base measure
:math:`h(x)` is the same for all units and is added once per example. No array over
examples, variables and units exists. Other families are summed over the scope one
variable at a time. A Normal leaf is a polynomial, so one product, or is summed where
the terms of the polynomial would cancel: the parameters decide that on the device.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.leaves import (
    BasedLeaf,
    DirectLeaf,
    ExpandableLeaf,
    ExponentialLeaf,
    Leaf,
    joining,
)
from dspc_jax.leaves.family import impossible
from dspc_jax.ops import missing
from dspc_jax.ops.batching import for_all
from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.products import contract, expand
from dspc_jax.ops.storage import computed_once, stored
from dspc_jax.ops.values import LARGEST
from dspc_jax.types import Array, Key

_SHORT_SCOPE = 4
"""Longest scope that unrolled code sums; a scan is as fast at 4 and 17 times as fast at
16 (on CPU)."""


@dataclasses.dataclass(frozen=True, eq=False)
class InputBlock:
    """The variables of one leaf family.

    Attributes:
        family: their leaf, joined where their configurations differ
            (`dspc_jax.leaves.joining`).
        scopes: ``[G, L]`` variables of the family in each input region (0 where
            padded).
        valid: ``[G, L]`` False where padded.
        variables: all variables of the family, ascending.
    """

    family: Leaf
    scopes: np.ndarray
    valid: np.ndarray
    variables: np.ndarray

    @functools.cached_property
    def leaf(self) -> Leaf:
        """The leaf of parameters and components ``[G, K, L, C]``."""
        return self.at(self.scopes[:, None])

    @functools.cached_property
    def leaf_of_variables(self) -> Leaf:
        """The leaf of parameters, components and values ``[Vb, ...]``."""
        return self.at(self.variables)

    def at(self, variables: np.ndarray | Array) -> Leaf:
        """The leaf of these variables, see `dspc_jax.leaves.joining.at`."""
        return joining.at(self.family, variables)


def make_blocks(
    input_scopes: np.ndarray,
    leaves: tuple[Leaf, ...],
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[InputBlock, ...]:
    """Splits padded scopes ``[G, L]`` by the family of each variable.

    Args:
        input_scopes: variables of each region, -1 where padded.
        leaves: of every variable.
        groups: the variables of each block; None: those that are joinable.

    Returns:
        The blocks.
    """
    blocks = []
    for group in joining.joinable(leaves) if groups is None else groups:
        members = np.isin(np.arange(len(leaves)), group)
        rows = [[v for v in scope if v >= 0 and members[v]] for scope in input_scopes]
        width = max(map(len, rows))
        padded = [row + [0] * (width - len(row)) for row in rows]
        scopes = np.array(padded, input_scopes.dtype)
        valid = np.array(
            [[True] * len(row) + [False] * (width - len(row)) for row in rows]
        )
        family = joining.join(leaves, group)
        variables = np.flatnonzero(members).astype(input_scopes.dtype)
        blocks.append(InputBlock(family, scopes, valid, variables))
    return tuple(blocks)


def regrouped(
    old: Sequence[InputBlock],
    params: Sequence[Any],
    new: Sequence[InputBlock],
    shapes: Sequence[Any],
) -> tuple[Any, ...]:
    """Parameters of the same leaves in other blocks.

    Args:
        old: blocks of equal leaves.
        params: theirs.
        new: blocks of joined leaves, over the same regions.
        shapes: theirs, trees of `jax.ShapeDtypeStruct`.

    Returns:
        Parameters of the new blocks; padding is 0.
    """

    def joined(block, shape):
        parts = [
            (part, jax.tree.map(np.asarray, own))
            for part, own in zip(old, params, strict=True)
            if part.variables[0] in block.variables
        ]
        if len(parts) == 1:
            return parts[0][1]
        arrays = jax.tree.map(
            lambda s, a: np.zeros(s.shape, a.dtype), shape, parts[0][1]
        )
        for part, own in parts:
            for row, place in np.argwhere(part.valid):
                at = block.valid[row] & (block.scopes[row] == part.scopes[row, place])
                for target, source in zip(
                    *map(jax.tree.leaves, (arrays, own)), strict=True
                ):
                    values = source[row, :, place]
                    target[row, :, at.argmax()][tuple(map(slice, values.shape))] = (
                        values
                    )
        return arrays

    arrays = [joined(*pair) for pair in zip(new, shapes, strict=True)]
    return jax.tree.map(jnp.asarray, tuple(arrays))


def init(key: Key, block: InputBlock, num_units: int, num_channels: int) -> Any:
    """Random parameters, leading axes ``[G, K, L, C]``."""
    num_regions, length = block.scopes.shape
    return block.leaf.init(key, (num_regions, num_units, length, num_channels))


def init_from_data(
    key: Key,
    block: InputBlock,
    num_units: int,
    data: Array,
    spread: float,
    observed: Array | None = None,
) -> Any:
    """Parameters whose leaves have random examples as means.

    On scikit-learn's digits with Normal leaves the ``spread`` 0.5 starts with the best
    likelihood among 0.1, 0.25, 0.5 and 1; after 300 steps of Adam those from 0.25 up
    are equal.

    Args:
        key: chooses the examples.
        block: the family's variables.
        num_units: K.
        data: ``[N, V, C]``; any values where not observed.
        spread: deviation of a leaf relative to that of its variable over the data.
        observed: bool ``[N, V]``, or None. In the place of a missing value comes one of
            another example that has it.

    Returns:
        The family's parameters, leading axes ``[G, K, L, C]``; random where no example
        has the variable.
    """
    num_regions, _ = block.scopes.shape
    shape = (num_regions, num_units)
    rows = jax.random.randint(key, shape, 0, data.shape[0], jnp.int32)
    rows, scopes = rows[:, :, None], block.scopes[:, None, :]
    if observed is not None:
        key_rows = jax.random.fold_in(key, 1)
        rows = missing.observed_rows(key_rows, observed, rows, scopes)
        data = jnp.where(observed[..., None], data, 0.0)
    mean = data[rows, scopes]
    deviation = missing.deviation(data, observed)[block.scopes]
    std = jnp.broadcast_to(spread * deviation[:, None], mean.shape)
    start = block.leaf.from_moments(mean, std)
    if observed is None:
        return start
    key_random = jax.random.fold_in(key, 2)
    never = ~observed.any(axis=0)[block.scopes][:, None, :, None]

    def unless_never(start, otherwise):
        where = never.reshape(*never.shape, *[1] * (start.ndim - never.ndim))
        return jnp.where(where, otherwise.astype(start.dtype), start)

    random = init(key_random, block, num_units, data.shape[-1])
    return jax.tree.map(unless_never, start, random)


def log_prob(
    block: InputBlock,
    natural: Any,
    x: Array,
    observed: Array | None,
    unobserved: Array | None = None,
) -> Array:
    """Log-density of every unit, without the base measure of exponential families.

    Args:
        block: the family's variables.
        natural: its natural parameters, leading axes ``[G, K, L, C]``.
        x: values ``[V, C, N]``; finite where not observed.
        observed: bool ``[V, N]``; unobserved variables are integrated out. None: all
            are.
        unobserved: the contribution of an unobserved leaf in place of 0,
            ``[G, K, L, C]`` (its greatest log-density, for MPE).

    Returns:
        ``[G, K, N]``, nats.
    """
    valid = jnp.asarray(block.valid[:, None, :, None])
    leaf, scopes = block.leaf, block.scopes
    if leaf.exponential:
        assert isinstance(leaf, ExponentialLeaf)
        statistics = [t[scopes] for t in leaf.statistics(x)]
        out = _product(block, natural, valid, statistics, observed)
    elif isinstance(leaf, ExpandableLeaf):
        product, statistics, accurate = leaf.expand(natural)
        out = _product(block, product, valid, statistics(x[scopes]), observed)
        # The product stays outside of the branches: XLA on CPU fails to compile some.
        out = jax.lax.cond(
            for_all(accurate), lambda: out, lambda: _direct(block, natural, x, observed)
        )
    else:
        out = _direct(block, natural, x, observed)
    if unobserved is not None and observed is not None:
        per_variable = jnp.sum(jnp.where(valid, unobserved, 0.0), axis=-1)
        hidden = (~observed[block.scopes]).astype(out.dtype)
        out += contract(per_variable, hidden)
    return out


def log_base(block: InputBlock, x: Array, observed: Array | None) -> Array:
    """The base measures of an example's observed variables, summed: ``[N]``, nats.

    That of other families is 1. -inf where a value is impossible in itself, NaN where
    one is NaN.
    """
    leaf = block.leaf_of_variables
    x = x[block.variables]
    base = jnp.zeros_like(x)
    if isinstance(leaf, BasedLeaf):
        base = leaf.log_base(x)
    base = jnp.where(jnp.abs(x) < LARGEST, base, impossible(x))
    base = jnp.sum(base, axis=1)
    if observed is not None:
        base = jnp.where(observed[block.variables], base, 0.0)
    return jnp.sum(base, axis=0)


def _product(block, natural, valid, statistics, observed):
    """``sum_d eta_d T_d - A`` of statistics ``[G, L, C, N]``: one matrix product."""
    num_regions, length, num_channels, num_examples = statistics[0].shape
    eta = [jnp.where(valid, eta, 0.0) for eta in natural.eta]
    eta = jnp.concatenate([e.reshape(*e.shape[:2], -1) for e in eta], axis=-1)
    if observed is not None:
        counted = observed[block.scopes][:, :, None]
        statistics = [jnp.where(counted, t, 0.0) for t in statistics]
    shape = (num_regions, length * num_channels, num_examples)
    statistics = [t.reshape(shape) for t in statistics]
    out = contract(eta, jnp.concatenate(statistics, axis=1))
    log_partition = jnp.sum(jnp.where(valid, natural.log_partition, 0.0), axis=-1)
    if observed is None:
        return out - jnp.sum(log_partition, axis=-1)[..., None]
    counted = observed[block.scopes].astype(out.dtype)
    return out - contract(log_partition, counted)


def _direct(block, natural, x, observed):
    """Sums one variable at a time: no array is [examples, variables, units]."""
    num_channels = x.shape[1]
    scopes, valid = jnp.asarray(block.scopes), jnp.asarray(block.valid)

    @jax.checkpoint
    def variable(variable_natural, scope, valid):
        leaf = block.at(scope)
        assert isinstance(leaf, DirectLeaf)

        def channel(c):
            channel_natural = jax.tree.map(lambda p: p[:, :, c], variable_natural)
            return leaf.log_prob(channel_natural, x[scope, c])

        total = functools.reduce(jnp.add, map(channel, range(num_channels)))
        counted = valid[:, None, None]
        if observed is not None:
            counted = counted & observed[scope][:, None]
        return jnp.where(counted, total, 0.0)

    def at(position):
        slices = jax.tree.map(lambda p: p[:, :, position], natural)
        return variable(slices, scopes[:, position], valid[:, position])

    if scopes.shape[1] <= _SHORT_SCOPE:
        return functools.reduce(jnp.add, map(at, (*range(1, scopes.shape[1]), 0)))

    def add(total, operand):
        return total + variable(*operand), None

    by_position = jax.tree.map(lambda p: jnp.moveaxis(p, 2, 0), natural)
    start = at(0)
    rest = jax.tree.map(lambda p: p[1:], (by_position, scopes.T, valid.T))
    return jax.lax.scan(add, start, rest)[0]


def in_variable_order(blocks: Sequence[InputBlock], values: Sequence[Array]) -> Array:
    """Joins the blocks' values ``[Vb, ...]`` to ``[V, ...]``."""
    if len(values) == 1:
        return values[0]
    order = np.argsort(np.concatenate([block.variables for block in blocks]))
    return jnp.concatenate(values)[order]


def blend(block: InputBlock, component: Array, selectors: Array) -> Array:
    """``sum q_gk c_gk`` per variable: ``[G, K, L, C, ...]`` to ``[V, C, N, ...]``."""
    num_regions, length = block.scopes.shape
    flat = component.reshape(*component.shape[:2], -1)
    blended = expand(flat, selectors)
    blended = blended.reshape(num_regions * length, *component.shape[3:], -1)
    return jnp.moveaxis(_sum_occurrences(block, blended), -1, 2)


@functools.partial(Differentiable, num_static=1)
def _sum_occurrences(block: InputBlock, rows: Array) -> Array:
    """``[G * L, ...]`` to ``[V, ...]``: each variable's rows added up.

    The derivative is again a gather; XLA would scatter, which is slow.
    """

    def part(rows, index):
        values = rows[np.maximum(index, 0)]
        if (index < 0).any():
            exists = (index >= 0).reshape(-1, *[1] * (values.ndim - 1))
            values = jnp.where(exists, values, 0.0)
        return values

    def total(rows):
        parts = (part(rows, index) for index in occurrences(block).T)
        return functools.reduce(jnp.add, parts)

    return computed_once(total, rows)


def _sum_occurrences_fwd(block, rows):
    return _sum_occurrences(block, rows), None


def _sum_occurrences_bwd(block, _, g):
    position = np.zeros(block.variables.max() + 1, block.variables.dtype)
    position[block.variables] = np.arange(len(block.variables))
    valid = block.valid.reshape(-1, *[1] * (g.ndim - 1))
    index = position[np.where(block.valid, block.scopes, block.variables[0]).ravel()]
    # Stored once, examples last: otherwise XLA recomputes the cotangent for every
    # occurrence, or reads it across the examples.
    rows = stored(g)[index]
    return (rows if valid.all() else jnp.where(valid, rows, 0.0),)


_sum_occurrences.defvjp(_sum_occurrences_fwd, _sum_occurrences_bwd)


def occurrences(block: InputBlock) -> np.ndarray:
    """``[Vb, A]``: the rows ``g * L + l`` of each variable, -1 where padded."""
    rows: dict[int, list[int]] = {int(v): [] for v in block.variables}
    for row, (v, valid) in enumerate(
        zip(block.scopes.ravel(), block.valid.ravel(), strict=True)
    ):
        if valid:
            rows[int(v)].append(row)
    width = max(map(len, rows.values()))
    padded = [row + [-1] * (width - len(row)) for row in rows.values()]
    return np.array(padded, block.scopes.dtype)
