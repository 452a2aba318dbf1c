"""Through a level of the graph: from children to partitions, and back to the children.

What is computed for a partition is one function of stacked partitions; here it gets the
rows of their children, or is asked for these, all at once or in the steps of a level
whose regions are children of one another.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.ops.derivatives import Differentiable, varying_alike
from dspc_jax.ops.rows import take
from dspc_jax.structure.folding import FoldedPartitions
from dspc_jax.structure.pieces import ABSENT, Piece
from dspc_jax.structure.steps import Steps
from dspc_jax.types import Array, PyTree


def children_of(fold: FoldedPartitions, regions: Sequence[PyTree]) -> list[PyTree]:
    """Per side, the children's rows.

    Args:
        fold: P partitions.
        regions: per level (inputs first), arrays ``[G, ...]``.

    Returns:
        Per side, arrays ``[P, ...]``; 0 where a partition has fewer children, as
        logarithms of factors and as parts of samples are.
    """
    like = regions[fold.children[0][0].level]
    return [_rows_of(side, regions, like) for side in fold.children]


def children_among(
    fold: FoldedPartitions, regions: Sequence[PyTree], level: int
) -> list[PyTree]:
    """As `children_of`, where the regions of the level itself are known as well.

    Args:
        fold: P partitions of the level.
        regions: per level (inputs first), arrays ``[G, ...]``.
        level: the number of the level; 0 are the inputs.
    """
    if fold.steps is None:
        return children_of(fold, regions)
    outside = _rows_of(fold.steps.outside, regions)
    return _children(fold.steps, regions[level], outside)


def _rows_of(
    pieces: Sequence[Piece], regions: Sequence[PyTree], like: PyTree = None
) -> PyTree:
    """The rows of pieces; those that are absent are 0, shaped ``like`` others."""

    def rows(piece):
        if piece.level == ABSENT:
            return jax.tree.map(
                lambda a: jnp.zeros((piece.size, *a.shape[1:]), a.dtype), like
            )
        take_rows = functools.partial(_rows, rows=piece.rows)
        return jax.tree.map(take_rows, regions[piece.level])

    parts = list(map(rows, pieces))
    return parts[0] if len(parts) == 1 else _concatenated(parts)


def _rows(array: Array, rows: np.ndarray | slice) -> Array:
    return array[rows] if isinstance(rows, slice) else take(array, rows)


def _concatenated(parts: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def upward(
    function: Callable[..., Any],
    fold: FoldedPartitions,
    regions: Sequence[PyTree],
    operands: PyTree,
) -> Any:
    """Computes partitions from their children.

    Args:
        function: ``(children, operands) -> [P, ...]`` of any number of partitions;
            hashable, and all arrays are among its arguments.
        fold: the partitions.
        regions: per lower level, arrays ``[G, ...]``, or equal trees of them. With
            steps these and the result differ in the first axis only.
        operands: what else the function takes, arrays ``[P, ...]``.

    Returns:
        ``[P, ...]``.
    """
    if fold.steps is None:
        return function(children_of(fold, regions), operands)
    outside = _rows_of(fold.steps.outside, regions)
    alone = functools.partial(_alone, function)
    return _ascend(alone, fold.steps, outside, operands)[0]


def _alone(function, children, operands):
    return function(children, operands), None


def downward(
    function: Callable[..., tuple[list[PyTree], PyTree]],
    fold: FoldedPartitions,
    states: PyTree,
    operands: PyTree,
) -> tuple[list[tuple[Piece, PyTree]], PyTree]:
    """Computes states of children from those of their partitions.

    Args:
        function: ``(states, operands) -> (per side the children's states, more)`` of
            any number of partitions; hashable, and all arrays that have gradients are
            among its arguments.
        fold: the partitions.
        states: arrays ``[P, ...]``, see `joined`.
        operands: what else the function takes, arrays ``[P, ...]``.

    Returns:
        For each piece of children in other levels, in the order of the references in
        `dspc_jax.structure.folding.FoldedGraph`, their states; and the function's
        second result, arrays ``[P, ...]``.
    """
    if fold.steps is None:
        sides, more = function(states, operands)
        pairs = zip(fold.children, sides, strict=True)
        return [cut for side in pairs for cut in _cut(*side)], more
    whole = [jnp.issubdtype(a.dtype, jnp.integer) for a in jax.tree.leaves(states)]
    descend = _add_to_children if all(whole) else _descend
    _, outside, more = descend(function, fold.steps, states, operands)
    return _cut(fold.steps.outside, outside), more


@functools.partial(Differentiable, num_static=2)
def _ascend(function, steps: Steps, outside, operands):
    """Computes the level's rows, from below.

    Args:
        function: ``(children, operands) -> (rows, more)``.
        steps: the steps.
        outside: the children from other levels.
        operands: of the partitions.

    Returns:
        The level's rows, and more of them.
    """
    buffer = _buffer(steps, jax.tree.map(lambda a: a[:0], outside), outside)

    def step(buffer, now):
        start, rows, operands = now
        rows_of_children = [
            jax.tree.map(functools.partial(_read, rows=side), buffer) for side in rows
        ]
        out, more = function(rows_of_children, operands)
        write = functools.partial(_write, start=start)
        return jax.tree.map(write, buffer, out), more

    buffer, more = _scan(step, buffer, steps, steps.children, operands)
    return jax.tree.map(lambda a: a[: len(steps.places)], buffer), more


def _add_to_children(function, steps: Steps, states, operands):
    """Adds to the children's states, from above.

    Args:
        function: ``(states, operands) -> (per side the children's states, more)``.
        steps: the steps.
        states: of the level's rows, so far.
        operands: of the partitions.

    Returns:
        The states of the level's rows, those of the children in other levels, and more
        of the level's rows.
    """
    size, width = len(steps.places), steps.partitions.shape[1]
    outside = jax.tree.map(
        lambda a: jnp.zeros((steps.num_outside, *a.shape[1:]), a.dtype), states
    )
    buffer = _buffer(steps, states, outside)

    def step(buffer, now):
        start, (exists, rows), operands = now

        def rows_of_step(a):
            return _where(exists, jax.lax.dynamic_slice_in_dim(a, start, width, 0))

        own = jax.tree.map(rows_of_step, buffer)
        sides, more = function(own, operands)
        add = functools.partial(_add, rows=rows)
        return jax.tree.map(add, buffer, _concatenated(sides)), more

    rows = np.concatenate(steps.children, axis=1)
    rows = (steps.exists, rows)
    buffer, more = _scan(step, buffer, steps, rows, operands, reverse=True)
    first = size + width
    outside = jax.tree.map(lambda a: a[first : first + steps.num_outside], buffer)
    return jax.tree.map(lambda a: a[:size], buffer), outside, more


_descend = Differentiable(_add_to_children, num_static=2)


def _ascend_fwd(function, steps, outside, operands):
    out = _ascend(function, steps, outside, operands)
    return out, (out[0], outside, operands)


def _ascend_bwd(function, steps, residuals, g):
    """The way back up is a way down: from cotangents of rows to those of children."""
    own, outside, operands = residuals
    g, g_more = g

    def pull(g, operands):
        children, operands, g_more = operands
        g_children, g_operands = jax.vjp(function, children, operands)[1]((g, g_more))
        return g_children, g_operands

    operands = (_children(steps, own, outside), operands, g_more)
    _, g_outside, g_operands = _descend(pull, steps, g, operands)
    return g_outside, g_operands


def _descend_fwd(function, steps, states, operands):
    out = _descend(function, steps, states, operands)
    return out, (out[0], operands)


def _descend_bwd(function, steps, residuals, g):
    """The way back down is a way up: from cotangents of children to those of rows."""
    own, operands = residuals
    g_own, g_outside, g_more = g

    def pull(g_children, operands):
        own, operands, g_own, g_more = operands
        pulled, g_operands = jax.vjp(function, own, operands)[1]((g_children, g_more))
        return jax.tree.map(jnp.add, g_own, pulled), g_operands

    return _ascend(pull, steps, g_outside, (own, operands, g_own, g_more))


_ascend.defvjp(_ascend_fwd, _ascend_bwd)
_descend.defvjp(_descend_fwd, _descend_bwd)


def _scan(step, buffer, steps, rows, operands, *, reverse=False):
    """The buffer after all steps, and their other results, arrays ``[P, ...]``.

    What is padded is 0 in the operands, in the children's rows and in the states, so
    that it adds nothing to what a function sums over its partitions.
    """
    starts = jnp.asarray(steps.partitions[:, 0])
    scanned = (starts, jax.tree.map(jnp.asarray, rows), _by_step(steps, operands))
    buffer, scanned = varying_alike((buffer, scanned))
    buffer, more = jax.lax.scan(step, buffer, scanned, reverse=reverse)
    return buffer, jax.tree.map(
        lambda a: a.reshape(-1, *a.shape[2:])[steps.places], more
    )


def _where(exists: Array | np.ndarray, rows: Array) -> Array:
    """0 in place of padding, on the first axes."""
    exists = exists.reshape(*exists.shape, *[1] * (rows.ndim - exists.ndim))
    return jnp.where(exists, rows, jnp.zeros((), rows.dtype))


def _read(buffer: Array, rows: Array | np.ndarray) -> Array:
    return buffer.at[rows].get(unique_indices=True, mode="promise_in_bounds")


def _add(buffer: Array, values: Array, rows: Array) -> Array:
    return buffer.at[rows].add(values, unique_indices=True, mode="promise_in_bounds")


def _write(buffer: Array, values: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, values, start, 0)


def _children(steps: Steps, own: PyTree, outside: PyTree) -> list[PyTree]:
    """Per side, the children's rows: arrays ``[P, ...]``."""
    buffer = _buffer(steps, own, outside)
    return [
        jax.tree.map(functools.partial(_read, rows=side.ravel()[steps.places]), buffer)
        for side in steps.children
    ]


def joined(states: Sequence[PyTree], count: int) -> PyTree:
    """All references' states to a level, from those of pieces.

    Args:
        states: of the pieces in other levels, arrays ``[.., ...]``.
        count: the number of references. Those within the level come last and are 0,
            `downward` adds to that.

    Returns:
        Arrays ``[count, ...]``.
    """

    def rows(*arrays):
        missing = count - sum(len(a) for a in arrays)
        if missing:
            shape = (missing, *arrays[0].shape[1:])
            arrays = (*arrays, jnp.zeros(shape, arrays[0].dtype))
        return jnp.concatenate(arrays)

    return jax.tree.map(rows, *states)


def _cut(pieces: Sequence[Piece], states: PyTree) -> list[tuple[Piece, PyTree]]:
    """The states of each piece but those that are absent."""
    sizes = [piece.size for piece in pieces]
    ends = np.cumsum(sizes)
    return [
        (piece, jax.tree.map(lambda a, part=slice(end - size, end): a[part], states))
        for piece, size, end in zip(pieces, sizes, ends, strict=True)
        if piece.level != ABSENT
    ]


def _buffer(steps: Steps, own: PyTree, outside: PyTree) -> PyTree:
    """The rows of `Steps`: those of the level, if ``own`` has any, and of others."""
    size, width = len(steps.places), steps.partitions.shape[1]

    def joined(own, outside):
        first, last = size - len(own) + width, len(steps.children) * width
        shapes = [(count, *outside.shape[1:]) for count in (first, last)]
        slack, padding = (jnp.zeros(shape, outside.dtype) for shape in shapes)
        return jnp.concatenate([own, slack, outside, padding])

    return jax.tree.map(joined, own, outside)


def _by_step(steps: Steps, operands: PyTree) -> PyTree:
    """``[P, ...]`` to ``[T, W, ...]``."""
    return jax.tree.map(functools.partial(_rows_by_step, steps), operands)


@functools.partial(Differentiable, num_static=1)
def _rows_by_step(steps: Steps, rows: Array) -> Array:
    """The derivative is again a gather; XLA would scatter, which is slow."""
    return _where(steps.exists, rows[steps.partitions])


def _rows_by_step_fwd(steps: Steps, rows: Array) -> tuple[Array, Any]:
    return _rows_by_step(steps, rows), None


def _rows_by_step_bwd(steps: Steps, _: Any, g: Array) -> tuple[Array]:
    """What is padded has no gradient."""
    return (g.reshape(-1, *g.shape[2:])[steps.places],)


_rows_by_step.defvjp(_rows_by_step_fwd, _rows_by_step_bwd)
