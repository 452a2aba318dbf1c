"""Ancestral sampling and MPE along the chosen units alone.

In trees, and in forests of equal trees mixed at the root (every graph of this library
so far), each example follows one tree: per region one unit, per partition one row of
weights, per pixel one leaf. The draws are those of `dspc_jax.sampling.downward` with
hard choices, from the same noise. All other graphs are sampled there.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.upward import Evidence
from dspc_jax.layers import input_layer, sum_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.ops.numerics import finite_or_zero, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.sampling import relaxation as rx
from dspc_jax.sampling.noise import Noise, exp_gumbel, gumbel
from dspc_jax.types import Array, PyTree


class PathChoice(NamedTuple):
    """The choices of one kind on the path.

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
        tree: the chosen alternative of the root, ``[N]``.
        units: the chosen unit of each of its input regions, ``[S, N]``.
        choices: all choices: a `Noise` with a `PathChoice` in place of every array that
            was used, and ``()`` in place of the leaves.
    """

    tree: Array
    units: Array
    choices: Noise


def descend(
    layout: Layout, weights: CircuitWeights, evidence: Evidence | None, noise: Noise
) -> Path:
    """Follows the choices down to the input regions."""
    graph, count = layout.graph, layout.graph.alternatives
    assert count is not None

    def follow_partitions(num_sides, units, operands):
        table, perturbation, factors = operands
        first = jnp.arange(units.shape[0], dtype=tree.dtype)[:, None] * count
        rows = first + tree[None]
        weight = table[rows, units]
        perturbation = perturbation.reshape(weight.shape)
        left = right = None
        if factors is not None:
            left, *others = _followed(factors, rows)
            right = others[0][..., None, :] if others else 0.0
            left = left[..., :, None] if others else left
        score = rx.score(weight, left, right, perturbation)
        flat = weight.reshape(*score.shape[:2], -1)
        chosen = jnp.argmax(score.reshape(flat.shape), axis=-1)
        if weight.ndim == 4:
            sides = [chosen // weight.shape[3], chosen % weight.shape[3]]
        else:
            sides = [chosen] * num_sides
        return sides, PathChoice(flat, chosen)

    num_examples = noise.classes.shape[0]
    logits = safe_log(weights.classes)[None]
    if evidence is not None:
        logits = logits + jnp.transpose(evidence.regions[-1][0])
    classes = jnp.argmax(logits + gumbel(noise.classes), axis=-1)
    tree = jnp.zeros(num_examples, jnp.int32)
    top = len(graph.levels) - 1
    shape = (num_examples, layout.num_classes)
    class_choice = PathChoice(jnp.broadcast_to(weights.classes, shape), classes)
    mixture_choices: list[Any] = [None for _ in graph.levels]
    sum_choices: list[list[Any]] = [[] for _ in graph.levels]
    if graph.levels[top].mixture is not None:
        mixture, uniform = weights.mixtures[top], noise.mixtures[top]
        assert mixture is not None
        assert uniform is not None
        logits = safe_log(mixture)[0][classes]
        if evidence is not None:
            chosen = jnp.transpose(evidence.partitions[top], (2, 0, 1))
            logits += jnp.take_along_axis(chosen, classes[:, None, None], 2)[..., 0]
        tree = jnp.argmax(logits + gumbel(uniform[:, 0]), axis=-1)
        mixture_choices[top] = PathChoice(mixture[0][classes][:, None], tree[:, None])
    units = classes[None]
    requests: list[list[Array]] = [[] for _ in graph.levels]
    for number in range(top, -1, -1):
        if number < top:
            units = _collect(graph.parents[number + 1], requests[number + 1], count)
        start = 0
        for index, fold in enumerate(graph.levels[number].folds):
            size = fold.size // count
            factors = None
            if evidence is not None:
                children = levels.children_of(fold, evidence.regions)
                factors = sum_layer.factors(layout.sum_layer, children)
            perturbation = exp_gumbel(jnp.moveaxis(noise.sums[number][index], 0, 1))
            operands = (weights.sums[number][index], perturbation, factors)
            follow = functools.partial(follow_partitions, len(fold.children))
            states = units[start : start + size]
            pieces, choice = levels.downward(follow, fold, states, operands)
            start += size
            sum_choices[number].append(jax.tree.map(lambda a: a.swapaxes(0, 1), choice))
            for piece, state in pieces:
                requests[piece.level].append(state)
    units = _collect(graph.parents[0], requests[0], count)
    sums = tuple(tuple(level) for level in sum_choices)
    choices: list[Any] = [class_choice, tuple(mixture_choices), sums, ()]
    return Path(tree, units, Noise(*choices))


def _followed(children: list[Array], rows: Array) -> list[Array]:
    """Log-densities of the followed partitions' children, greatest 0: ``[S, N, K]``."""
    followed = []
    for child in children:
        child = child - finite_or_zero(jnp.max(child, axis=1, keepdims=True))
        child = jnp.moveaxis(child, 2, 0)  # [N, P, K]
        child = jnp.take_along_axis(child, jnp.transpose(rows)[..., None], axis=1)
        followed.append(jnp.moveaxis(child, 0, 1))
    return followed


def _collect(parents: np.ndarray, requests: list[Array], count: int) -> Array:
    units = levels.joined(requests, (parents.max() + 1) // count)
    order = parents[::count, 0] // count
    if np.array_equal(order, np.arange(len(order))):
        return units
    return units[order]


def leaves(
    layout: Layout, params: CircuitParams, tree: Array, units: Array
) -> list[PyTree]:
    """Per leaf family, parameters of the chosen leaves, leading axes ``[V, N, C]``."""
    count = layout.graph.alternatives
    return [
        _chosen_leaf(block, leaf, tree, units, count)
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    ]


def _chosen_leaf(block: InputBlock, leaf, tree, units, count):
    length = block.scopes.shape[1]
    rows = input_layer.occurrences(block)  # [V, R], one row in each tree
    region, position = rows // length, rows % length
    order = np.argsort(region % count, axis=1)  # by tree
    region = jnp.asarray(np.take_along_axis(region, order, 1))[:, tree]
    position = jnp.asarray(np.take_along_axis(position, order, 1))[:, tree]
    # Along the examples' axis, which a mesh may split: no device needs another's units.
    unit = jnp.take_along_axis(units, region // count, axis=0)
    return jax.tree.map(lambda p: p[region, unit, position], leaf)


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
    values = []
    for block, chosen in zip(
        layout.blocks, leaves(layout, params, path.tree, path.units), strict=True
    ):
        leaf = block.leaf_of_variables
        components = leaf.components(chosen)
        if leaf_mode == "mean":
            values.append(leaf.mean(components))
        else:
            uniform = jnp.swapaxes(noise.leaves, 0, 1)[block.variables]
            values.append(leaf.draw(uniform, components))
    return jnp.swapaxes(input_layer.in_variable_order(layout.blocks, values), 0, 1)


def mpe(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    evidence: Evidence,
    noise: Noise,
) -> Array:
    """Backtracks the maxima of a max-product upward pass: modes ``[N, V, C]``."""
    path = descend(layout, weights, evidence, noise)
    values = [
        block.leaf_of_variables.mode(chosen)
        for block, chosen in zip(
            layout.blocks, leaves(layout, params, path.tree, path.units), strict=True
        )
    ]
    return jnp.swapaxes(input_layer.in_variable_order(layout.blocks, values), 0, 1)
