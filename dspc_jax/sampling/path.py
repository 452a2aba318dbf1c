"""Ancestral sampling and MPE along the chosen units alone.

Each example follows one tree of the graph: per region on it one unit, per partition one
row of weights, per pixel one leaf. The draws are those of `dspc_jax.sampling.downward`
with hard choices, from the same noise, at the cost of gathers in place of products.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.upward import Evidence
from dspc_jax.layers import input_layer, sum_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves.family import TableLeaf, with_moments
from dspc_jax.leaves.quantiles import are_many
from dspc_jax.ops.numerics import finite_or_zero, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.sampling import relaxation as rx
from dspc_jax.sampling.noise import Noise, alternatives, exp_gumbel, gumbel
from dspc_jax.structure.folding import FoldedPartitions, Level
from dspc_jax.types import Array, PyTree

_OFF = -1  # the unit of a region that is not on the path


class PathChoice(NamedTuple):
    """The choices of one kind.

    Attributes:
        weights: weights of the alternatives, without the evidence, ``[N, S, D]``, or
            ``[N, D]`` for a single choice.
        chosen: indices of the chosen alternatives, ``[N, S]`` or ``[N]``.
    """

    weights: Array
    chosen: Array


class Path(NamedTuple):
    """The choices of examples.

    Attributes:
        units: the chosen unit of each input region, ``[G, N]``, -1 off the path.
        choices: all choices: a `Noise` with a `PathChoice` in place of every array that
            was used, and ``()`` in place of the leaves. They are all on the path where
            the graph has ``alternatives``; else some have no meaning.
    """

    units: Array
    choices: Noise


def descend(
    layout: Layout, weights: CircuitWeights, evidence: Evidence | None, noise: Noise
) -> Path:
    """Follows the choices down to the input regions."""
    graph = layout.graph

    def follow(fold):
        if graph.alternatives == 1:
            return functools.partial(_follow_all, len(fold.children))
        return functools.partial(_follow_taken, fold)

    num_examples = noise.classes.shape[0]
    logits = safe_log(weights.classes)[None]
    if evidence is not None:
        logits = logits + jnp.transpose(evidence.regions[-1][0])
    shape = (num_examples, layout.num_classes)
    uniform = alternatives(noise.classes, layout.num_classes, logits.dtype)
    classes = jnp.argmax(logits + gumbel(uniform), axis=-1)
    class_choice = PathChoice(jnp.broadcast_to(weights.classes, shape), classes)
    top = len(graph.levels) - 1
    mixture_choices: list[Any] = [None for _ in graph.levels]
    sum_choices: list[list[Any]] = [[] for _ in graph.levels]
    requests: list[list[Array]] = [[] for _ in graph.levels]
    units = classes[None]
    for number in range(top, -1, -1):
        level = graph.levels[number]
        if number < top:
            units = _collect(graph.parents[number + 1], requests[number + 1])
        if level.mixture is not None:
            mixture, bits = weights.mixtures[number], noise.mixtures[number]
            assert mixture is not None
            assert bits is not None
            log_p = None if evidence is None else evidence.partitions[number]
            units, choice = _through_mixture(level, mixture, log_p, bits, units)
            mixture_choices[number] = _by_example(choice)
        start = 0
        for index, fold in enumerate(level.folds):
            factors = None
            if evidence is not None:
                children = levels.children_of(fold, evidence.regions)
                factors = sum_layer.factors(layout.sum_layer, children)
            bits = jnp.moveaxis(noise.sums[number][index], 0, 1)
            operands = (weights.sums[number][index], bits, factors)
            states = units[start : start + fold.size]
            start += fold.size
            pieces, choice = levels.downward(follow(fold), fold, states, operands)
            sum_choices[number].append(_by_example(choice))
            for piece, state in pieces:
                requests[piece.level].append(state)
    units = _collect(graph.parents[0], requests[0])
    sums = tuple(tuple(level) for level in sum_choices)
    choices: list[Any] = [class_choice, tuple(mixture_choices), sums, ()]
    return Path(units, Noise(*choices))


def _collect(parents: np.ndarray, requests: list[Array]) -> Array:
    """The units ``[G, N]`` of a level's regions; at most one parent is on the path."""
    units = levels.joined(requests, parents.max() + 1)
    if parents.shape[1] > 1:
        exists = jnp.asarray(parents >= 0)[..., None]
        return jnp.max(jnp.where(exists, units[parents], _OFF), axis=1)
    order = parents[:, 0]
    return units if np.array_equal(order, np.arange(len(order))) else units[order]


def _by_example(choice: PathChoice) -> PathChoice:
    return jax.tree.map(lambda a: a.swapaxes(0, 1), choice)


def _through_mixture(level: Level, weights, log_p, bits, units):
    """From the units of regions ``[G, N]`` to those of partitions ``[P, N]``."""
    mixture = level.mixture
    assert mixture is not None
    flat = mixture.ravel()
    order = np.flatnonzero(flat >= 0)
    owner, position = np.divmod(order[np.argsort(flat[order])], mixture.shape[1])
    weight = weights[np.arange(len(mixture))[:, None], jnp.maximum(units, 0)]
    logits = safe_log(weight)
    if log_p is not None:
        unit = jnp.maximum(units, 0)[owner][:, None]
        log_p = jnp.take_along_axis(log_p, unit, axis=1)[:, 0]
        logits += jnp.moveaxis(log_p[np.maximum(mixture, 0)], 1, 2)
    uniform = alternatives(jnp.moveaxis(bits, 0, 1), mixture.shape[1], logits.dtype)
    chosen = first_greatest(logits + gumbel(uniform)[level.slots])
    taken = chosen[owner] == position.astype(chosen.dtype)[:, None]
    return jnp.where(taken, units[owner], _OFF), PathChoice(weight, chosen)


def _follow_all(num_sides: int, units: Array, operands: PyTree):
    """Per side the children's units, where every partition is on the path."""
    table, bits, factors = operands
    weight = table[jnp.arange(units.shape[0])[:, None], units]
    if factors is not None:
        factors = [jnp.moveaxis(_shifted(factor), 1, 2) for factor in factors]
    return _choose(num_sides, weight, factors, bits)


def _follow_taken(fold: FoldedPartitions, units: Array, operands: PyTree):
    """Per side the children's units, where at most one partition of a slot is taken."""
    table, bits, factors = operands
    members = fold.members
    group = jnp.where(jnp.asarray(members >= 0)[..., None], units[members], _OFF)
    unit = jnp.maximum(jnp.max(group, axis=1), 0)
    place = jnp.argmax(group, axis=1)
    rows = jnp.asarray(members)[jnp.arange(len(members))[:, None], place]
    if factors is not None:
        factors = [_followed(factor, rows) for factor in factors]
    sides, choice = _choose(len(fold.children), table[rows, unit], factors, bits)
    sides = [jnp.where(units >= 0, side[fold.slots], _OFF) for side in sides]
    return sides, choice


def _choose(num_sides: int, weight, factors, bits):
    """A product for each row of weights ``[S, N, ...]``: per side its unit."""
    uniform = alternatives(bits, math.prod(weight.shape[2:]), weight.dtype)
    perturbation = exp_gumbel(uniform).reshape(weight.shape)
    left = right = None
    if factors is not None:
        left, *others = factors
        right = others[0][..., None, :] if others else 0.0
        left = left[..., :, None] if others else left
    score = rx.score(weight, left, right, perturbation)
    flat = weight.reshape(*score.shape[:2], -1)
    chosen = first_greatest(score.reshape(flat.shape))
    if weight.ndim == 4:
        sides = [chosen // weight.shape[3], chosen % weight.shape[3]]
    else:
        sides = [chosen] * num_sides
    return sides, PathChoice(flat, chosen)


def first_greatest(score: Array) -> Array:
    """The first greatest along the last axis, in two maxima.

    XLA's CPU backend takes three times as long for an arg max. Where a score is NaN it
    is the last.
    """
    top = jnp.max(score, axis=-1, keepdims=True)
    last = score.shape[-1] - 1
    before = last - jnp.arange(last + 1, dtype=score.dtype)
    places = jnp.where(score == top, before, 0)
    return last - jnp.max(places, axis=-1).astype(jnp.int32)


def _shifted(child: Array) -> Array:
    """Log-densities ``[P, K, N]``, the greatest unit's 0."""
    return child - finite_or_zero(jnp.max(child, axis=1, keepdims=True))


def _followed(child: Array, rows: Array) -> Array:
    """Log-densities of the followed partitions' children, greatest 0: ``[S, N, K]``."""
    child = jnp.moveaxis(_shifted(child), 2, 0)  # [N, P, K]
    child = jnp.take_along_axis(child, jnp.transpose(rows)[..., None], axis=1)
    return jnp.moveaxis(child, 0, 1)


def sample(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    evidence: Evidence | None,
    noise: Noise,
    leaf_mode: str,
) -> Array:
    """Ancestral samples ``[N, V, C]``, conditional on the evidence if there is any."""
    path = descend(layout, weights, evidence, noise)
    return at_leaves(layout, params, path, noise, leaf_mode)


def at_leaves(
    layout: Layout, params: CircuitParams, path: Path, noise: Noise, leaf_mode: str
) -> Array:
    """Values ``[N, V, C]`` of the leaves at a path's end."""

    def values(block: InputBlock, leaf_params: Any) -> Array:
        index = chosen_leaves(block, path.units)
        if leaf_mode == "mean":
            return _at(index, block, leaf_params, _mean)
        uniform = jnp.swapaxes(noise.leaves, 0, 1)[block.variables]
        if isinstance(block.leaf, TableLeaf):
            draw = block.leaf.draw_at(uniform, leaf_params, index)
            moments = functools.partial(_moments_at, block)
            return with_moments(moments, draw, leaf_params, index)
        components = _at(index, block, leaf_params, _components)
        return block.leaf_of_variables.draw(uniform, components)

    return _in_variable_order(layout, params, values)


def mpe(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    evidence: Evidence,
    noise: Noise,
) -> Array:
    """Backtracks the maxima of a max-product upward pass: modes ``[N, V, C]``."""
    path = descend(layout, weights, evidence, noise)

    def values(block: InputBlock, leaf_params: Any) -> Array:
        return _at(chosen_leaves(block, path.units), block, leaf_params, _mode)

    return _in_variable_order(layout, params, values)


def _in_variable_order(layout, params, values) -> Array:
    blocks = list(map(values, layout.blocks, params.leaves))
    return jnp.swapaxes(input_layer.in_variable_order(layout.blocks, blocks), 0, 1)


def chosen_leaves(block: InputBlock, units: Array) -> tuple[Array, ...]:
    """Region, unit and position of each variable's leaf, ``[Vb, N]``."""
    rows = input_layer.occurrences(block)  # [Vb, R], one of them is on the path
    region, position = np.divmod(np.maximum(rows, 0), block.scopes.shape[1])
    if rows.shape[1] == 1:
        unit = units[region[:, 0]]
        return tuple(
            jnp.broadcast_to(jnp.asarray(a), unit.shape)
            for a in (region, unit, position)
        )
    candidates = jnp.where(jnp.asarray(rows >= 0)[..., None], units[region], _OFF)
    place = jnp.argmax(candidates, axis=1)
    own = jnp.arange(len(rows))[:, None]
    region, position = (jnp.asarray(a)[own, place] for a in (region, position))
    return region, jnp.maximum(jnp.max(candidates, axis=1), 0), position


def _components(leaf: Any, params: Any) -> tuple[Array, ...]:
    return leaf.components(params)


def _mean(leaf: Any, params: Any) -> Array:
    return leaf.mean(leaf.components(params))


def _mode(leaf: Any, params: Any) -> Array:
    return leaf.mode(params)


def _moments_at(block: InputBlock, params: Any, index: tuple[Array, ...]) -> PyTree:
    return _at(index, block, params, lambda leaf, params: leaf.moments(params))


def _at(
    index: tuple[Array, ...], block: InputBlock, params: Any, function: Callable
) -> PyTree:
    """A function of leaves, of those that are chosen, leading axes ``[Vb, N, C]``.

    It is computed before they are chosen or after, whichever is less.
    """
    if are_many(index[0].shape, math.prod(jax.tree.leaves(params)[0].shape[:3])):
        return jax.tree.map(lambda a: a[index], function(block.leaf, params))
    chosen = jax.tree.map(lambda a: a[index], params)
    return function(block.leaf_of_variables, chosen)
