r"""The downward pass: from a key to a sample, hard or relaxed.

From the root down, every region carries a *selector* :math:`q_{gk}` over its units,
given that the region is reached, and a *mass* :math:`m_g`, how much it is reached. A
partition chooses among the products of its children with the weights that its selector
mixes,

.. math::
  \tilde w_d = \sum_o q_o\, w_{od}\, \frac{\pi_d(e^{\ell})}{e^{\ell_o}}, \qquad
  y = \mathrm{relax}(\log \tilde w + g),

(the fraction is the evidence's share, 1 without evidence) and hands the marginals of
:math:`y` to its children. A mixture chooses among partitions in the same way and scales
their masses. The parameters of leaves are blended with :math:`m_g q_{gk}` and combined
with one noise number per pixel and channel. Each repetition keeps its own selectors
down to its own leaves, so selectors of one never meet leaves of another.

With one-hot choices this is ancestral sampling, exactly. `dspc_jax.sampling.path` does
the same by following the chosen units alone; `dspc_jax.sampling.dense` is the paper's
node-by-node blend.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.upward import Evidence
from dspc_jax.layers import input_layer, mixing_layer, sum_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.leaves.family import TableLeaf, with_moments
from dspc_jax.ops.numerics import finite_or_zero, safe_divide, safe_log
from dspc_jax.ops.products import expand
from dspc_jax.ops.rows import take
from dspc_jax.ops.storage import stored
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.sampling import relaxation as rx
from dspc_jax.sampling.noise import Noise, alternatives, exp_gumbel
from dspc_jax.sampling.path import chosen_leaves
from dspc_jax.structure.folding import FoldedPartitions, Level
from dspc_jax.types import Array

LEAF_MODES = ("sample", "mean")


def select(
    layout: Layout,
    weights: CircuitWeights,
    evidence: Evidence | None,
    noise: Noise,
    relaxation: str,
    temperature: Array | float,
) -> Array:
    """The downward pass to the input regions.

    Args:
        layout: the circuit.
        weights: its normalized parameters.
        evidence: log-densities of the observed values, from
            `dspc_jax.inference.upward.upward`, or None.
        noise: noise of the batch.
        relaxation: see `dspc_jax.sampling.relaxation`.
        temperature: scalar.

    Returns:
        Mass times selector of every input region, ``[G, K, N]``.
    """
    graph = layout.graph

    def choose_one(logits, noise):
        return rx.choose_one(relaxation, logits, noise, temperature)

    logits = safe_log(weights.classes)[:, None]
    if evidence is not None:
        logits = logits + evidence.regions[-1][0]
    uniform = alternatives(noise.classes, layout.num_classes, logits.dtype)
    perturbation = exp_gumbel(jnp.transpose(uniform))
    logits = jnp.broadcast_to(logits, perturbation.shape)
    selectors = choose_one(logits[None], perturbation[None])
    masses = jnp.ones((1, perturbation.shape[-1]), perturbation.dtype)
    requests: list[list[tuple[Array, Array]]] = [[] for _ in graph.levels]
    for number in range(len(graph.levels) - 1, -1, -1):
        level = graph.levels[number]
        if number < len(graph.levels) - 1:
            selectors, masses = _collect(
                graph.parents[number + 1], requests[number + 1]
            )
        if level.mixture is not None:
            log_probs = None
            if evidence is not None:
                log_probs = evidence.partitions[number], evidence.regions[number + 1]
            mixture, bits = weights.mixtures[number], noise.mixtures[number]
            assert mixture is not None
            assert bits is not None
            uniform = alternatives(bits, level.mixture.shape[1], mixture.dtype)
            selectors, masses = _through_mixture(
                level,
                mixture,
                (selectors, masses),
                log_probs,
                exp_gumbel(jnp.moveaxis(uniform, 0, -1)),
                choose_one,
            )
        start = 0
        for index, fold in enumerate(level.folds):
            rows = slice(start, start + fold.size)
            start += fold.size
            known = None
            if evidence is not None:
                part = evidence.partitions[number][rows]
                known = (part, levels.children_of(fold, evidence.regions))
            table = weights.sums[number][index]
            bits = _per_partition(fold, noise.sums[number][index], table)
            temperatures = jnp.broadcast_to(temperature, (fold.size,))
            operands = (table, bits, known, temperatures)
            states = (selectors[rows], masses[rows])
            choose = functools.partial(
                _choose_product, relaxation, layout.sum_layer, len(fold.children)
            )
            for piece, state in levels.downward(choose, fold, states, operands)[0]:
                requests[piece.level].append(state)
    selectors, masses = _collect(graph.parents[0], requests[0])
    return selectors * masses[:, None]


def _collect(parents: np.ndarray, requests: Sequence[tuple[Array, Array]]):
    """Selectors and masses of a level from the requests of its parents."""
    selectors, masses = levels.joined(requests, parents.max() + 1)
    if parents.shape[1] == 1:
        order = parents[:, 0]
        if np.array_equal(order, np.arange(len(order))):
            return selectors, masses
        return take(selectors, order), take(masses, order)
    exists = jnp.asarray(parents >= 0, masses.dtype)[..., None]
    per_parent = exists * take(masses, parents)
    total = jnp.sum(per_parent, axis=1)
    # A region out of reach keeps a counterfactual selector, the mean of its parents'.
    share = jnp.where(
        total[:, None] > 0,
        safe_divide(per_parent, total[:, None]),
        exists / jnp.sum(exists, axis=1, keepdims=True),
    )
    return jnp.einsum("gan,gakn->gkn", share, take(selectors, parents)), total


def _through_mixture(level: Level, weights, region_state, evidence, noise, choose_one):
    """Selectors and masses of partitions from those of their regions."""
    selectors, masses = region_state
    mixture = level.mixture
    assert mixture is not None
    weights = jnp.moveaxis(weights, 1, 2)[..., None]
    joint = selectors[:, None] * weights
    if evidence is not None:
        part, region = evidence
        share = mixing_layer.gather(mixture, part) - finite_or_zero(region)[:, None]
        # A forbidden partition may explain the evidence arbitrarily better.
        joint = joint * jnp.exp(jnp.where(weights > 0, share, -jnp.inf))
    total = jnp.sum(joint, axis=2)
    chosen = choose_one(safe_log(total), noise[level.slots])
    posterior = jnp.where(
        total[:, :, None] > 0,
        safe_divide(joint, total[:, :, None]),
        jnp.broadcast_to(selectors[:, None], joint.shape),
    )
    flat = np.flatnonzero(mixture.ravel() >= 0)
    order = flat[np.argsort(mixture.ravel()[flat])]
    posterior = posterior.reshape(-1, *posterior.shape[2:])
    shares = (chosen * masses[:, None]).reshape(-1, masses.shape[-1])
    if np.array_equal(order, np.arange(mixture.size)):
        return posterior, shares
    return take(posterior, order), take(shares, order)


def _choose_product(relaxation, kind, num_sides, states, operands):
    """Selectors and masses of the children, per side, from those of partitions."""
    selectors, masses = states
    table, bits, evidence, temperature = operands
    pairs = num_sides == 2 and kind == "tucker"
    choice = _partition_choice(table, pairs, selectors, evidence, kind)
    count = math.prod(choice.weight.shape[1:3])
    perturbation = exp_gumbel(alternatives(bits, count, table.dtype, axis=1))
    perturbation = perturbation.reshape(choice.weight.shape)
    sides = rx.choose(relaxation, choice, perturbation, temperature[0])
    if not pairs:  # one choice in all
        sides = (sides[0],) * num_sides
    return [(side, masses) for side in sides], None


def _partition_choice(weights, pairs: bool, selectors, evidence, kind) -> rx.Choice:
    """The products' weights under the selectors, as pairs ``[P, I, J, N]``."""
    flat = weights.reshape(*weights.shape[:2], -1)
    sizes = weights.shape[2:] if pairs else (flat.shape[-1], 1)
    num_examples = selectors.shape[-1]
    logs = ()
    if evidence is not None:
        part, children = evidence
        joined = sum_layer.factors(kind, children)
        joined, tops = sum_layer.shifted(weights, joined)
        total = functools.reduce(jnp.add, tops)
        selectors = safe_divide(selectors, jnp.exp(part - total))
        logs = joined if pairs else (joined[0], jnp.zeros_like(joined[0][:, :1]))
    mixed = expand(flat, selectors)
    return rx.Choice(mixed.reshape(weights.shape[0], *sizes, num_examples), *logs)


def _per_partition(fold: FoldedPartitions, noise: Array, table: Array) -> Array:
    """Noise of partitions, ``[P, 2 or D, N]``, from that of slots, ``[N, S, ...]``.

    Where partitions share noise, its numbers are made once for all of them, and before
    steps: what these take must have derivatives, which bits have not.
    """
    noise = jnp.moveaxis(noise, 0, -1)
    repeats = fold.size // fold.num_slots
    if repeats > 1 or fold.steps is not None:
        count = math.prod(table.shape[2:])
        noise = stored(alternatives(noise, count, table.dtype, axis=1))
    if np.array_equal(fold.slots, np.arange(fold.size) // repeats):
        shape = (fold.num_slots, repeats, *noise.shape[1:])
        return jnp.broadcast_to(noise[:, None], shape).reshape(-1, *noise.shape[1:])
    return noise[fold.slots]


def blend(
    layout: Layout,
    params: CircuitParams,
    selectors: Array,
    uniform: Array,
    leaf_mode: str,
    *,
    one_hot: bool = False,
) -> Array:
    """Draws from leaves with blended parameters, one number per pixel and channel.

    Args:
        layout: the circuit.
        params: its parameters.
        selectors: mass times selector, ``[G, K, N]``.
        uniform: ``[N, V, C]``.
        leaf_mode: ``"sample"`` or ``"mean"``.
        one_hot: whether every selector on the path is one-hot, as all are where choices
            are: a draw then is that of the chosen leaf, looked up where that is faster.

    Returns:
        ``[N, V, C]``.
    """
    values = []
    for block, leaf_params in zip(layout.blocks, params.leaves, strict=True):
        if one_hot and leaf_mode == "sample" and isinstance(block.leaf, TableLeaf):
            values.append(_look_up(block, leaf_params, selectors, uniform))
            continue
        components = tuple(
            input_layer.blend(block, component, selectors)
            for component in block.leaf.components(leaf_params)
        )
        leaf = block.leaf_of_variables
        if leaf_mode == "mean":
            values.append(leaf.mean(components))
        else:
            numbers = jnp.transpose(uniform, (1, 2, 0))[block.variables]
            values.append(leaf.draw(numbers, components))
    return jnp.transpose(
        input_layer.in_variable_order(layout.blocks, values), (2, 0, 1)
    )


def _look_up(block: InputBlock, params: Any, selectors: Array, uniform: Array) -> Array:
    """Exact draws ``[Vb, C, N]`` of the leaves that one-hot selectors choose."""
    fixed = jax.lax.stop_gradient(selectors)
    numbers = jnp.arange(fixed.shape[1], dtype=fixed.dtype)
    units = jnp.einsum("gkn,k->gn", fixed, numbers, precision="highest")
    units = jnp.where(jnp.sum(fixed, axis=1) > 0, units, -1).astype(jnp.int32)
    index = chosen_leaves(block, units)
    leaf = block.leaf
    assert isinstance(leaf, TableLeaf)
    draw = leaf.draw_at(jnp.swapaxes(uniform, 0, 1)[block.variables], params, index)
    moments = functools.partial(_blended_moments, block)
    return with_moments(moments, jnp.swapaxes(draw, 1, 2), (params, selectors), ())


def _blended_moments(block: InputBlock, operands: Any, index: tuple[()]):
    del index
    params, selectors = operands
    leaf = block.leaf
    assert isinstance(leaf, TableLeaf)
    mean, std = (input_layer.blend(block, a, selectors) for a in leaf.moments(params))
    return mean, std


def keep_observed(sample: Array, x: Array, observed: Array) -> Array:
    """The sample with the observed values in their places, ``[N, V, C]``.

    NaN in every place if one that is observed is NaN.
    """
    out = jnp.where(observed[..., None], x, sample)
    missing = jnp.any(jnp.isnan(x) & observed[..., None], axis=(1, 2), keepdims=True)
    return jnp.where(missing, jnp.nan, out)
