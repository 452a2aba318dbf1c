r"""The paper's differentiable sampling, node by node: the reference semantics.

Bottom-up, every unit of every region holds a sample of its scope. A sum unit draws
:math:`y = \mathrm{softmax}((\log w + g)/t)` over its products and its sample is
:math:`\sum_d y_d x_d`, where a product's sample joins those of its children. All units
are computed, so this needs memory for ``G * K`` whole images per example; it is meant
for small circuits and for checking the cheaper routing of `dspc_jax.sampling.downward`.

References:
    Lang et al. 2022, section 3.2 (with ``log w`` where the text prints the weights).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import levels
from dspc_jax.inference.upward import Evidence
from dspc_jax.layers import mixing_layer
from dspc_jax.ops.numerics import finite_or_zero, safe_divide, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.sampling.noise import Noise, expanded, gumbel
from dspc_jax.types import Array


def sample(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    evidence: Evidence | None,
    noise: Noise,
    temperature: Array,
    leaf_mode: str,
) -> Array:
    """Draws blended samples ``[N, V, C]`` by Gumbel-softmax at every node.

    Args:
        layout: the circuit.
        params: its parameters.
        weights: the same, normalized.
        evidence: log-densities of the observed values, or None.
        noise: noise of the batch.
        temperature: scalar.
        leaf_mode: ``"sample"`` or ``"mean"``.

    Returns:
        The samples, differentiable in ``params`` and ``weights``.
    """
    noise = expanded(layout, noise)
    regions = [_leaf_samples(layout, params, noise, leaf_mode)]
    for number, level in enumerate(layout.graph.levels):
        folds = []
        for index, fold in enumerate(level.folds):
            perturbation = jnp.moveaxis(noise.sums[number][index], 0, -1)[fold.slots]
            known = None
            if evidence is not None:
                known = levels.children_of(fold, evidence.regions)
            temperatures = jnp.broadcast_to(temperature, (fold.size,))
            table = weights.sums[number][index]
            operands = (temperatures, table, gumbel(perturbation), known)
            folds.append(levels.upward(_blend_products, fold, regions, operands))
        out = jnp.concatenate(folds)
        if level.mixture is not None:
            table, uniform = weights.mixtures[number], noise.mixtures[number]
            assert table is not None
            assert uniform is not None
            logits = safe_log(table)[..., None]
            if evidence is not None:
                part = mixing_layer.gather(level.mixture, evidence.partitions[number])
                logits = logits + jnp.moveaxis(part, 1, 2)
            perturbation = jnp.moveaxis(uniform, 0, -1)[level.slots]
            y = _softmax(logits + gumbel(perturbation)[:, None], temperature, (2,))
            out = jnp.einsum("gkmn,gmkvcn->gkvcn", y, _members(level.mixture, out))
        regions.append(out)
    logits = safe_log(weights.classes)[:, None]
    if evidence is not None:
        logits = logits + evidence.regions[-1][0]
    y = _softmax(logits + gumbel(jnp.transpose(noise.classes)), temperature, (0,))
    return jnp.einsum("yn,yvcn->nvc", y, regions[-1][0])


def _blend_products(samples, operands):
    """Each unit's blend of the products' samples, ``[P, O, V, C, N]``."""
    temperatures, table, perturbation, evidence = operands
    logits = safe_log(table)[..., None]
    if evidence is not None:
        logits = logits + _evidence_logits(evidence, logits.ndim)
    shape = (table.shape[0], 1, *table.shape[2:], perturbation.shape[-1])
    axes = tuple(range(2, logits.ndim - 1))
    y = _softmax(logits + perturbation.reshape(shape), temperatures[0], axes)
    if len(axes) == 2:
        out = _blend(jnp.sum(y, axis=3), samples[0])
        return out + _blend(jnp.sum(y, axis=2), samples[1])
    return functools.reduce(jnp.add, (_blend(y, s) for s in samples))


def _leaf_samples(layout, params, noise, leaf_mode):
    """The draws of all leaves, ``[G, K, V, C, N]``; 0 outside a region's scope."""
    num_regions = layout.graph.input_scopes.shape[0]
    num_variables, num_channels = layout.graph.num_variables, layout.num_channels
    num_examples = noise.leaves.shape[0]
    uniform = jnp.transpose(noise.leaves, (1, 2, 0))
    shape = (num_regions, layout.num_leaves, num_variables, num_channels, num_examples)
    out = jnp.zeros(shape, noise.leaves.dtype)
    regions = np.arange(num_regions)[:, None]
    for block, leaf_params in zip(layout.blocks, params.leaves, strict=True):
        leading = (*block.scopes.shape, num_channels, num_examples)
        leading = (leading[0], layout.num_leaves, *leading[1:])
        components = tuple(
            jnp.broadcast_to(jnp.expand_dims(c, 4), (*leading, *c.shape[4:]))
            for c in block.leaf.components(leaf_params)
        )
        if leaf_mode == "mean":
            draws = block.leaf.mean(components)
        else:
            numbers = jnp.broadcast_to(uniform[block.scopes][:, None], leading)
            draws = block.leaf.draw(numbers, components)
        draws = jnp.where(block.valid[:, None, :, None, None], draws, 0.0)
        # A padded position points at variable 0 and adds 0 there.
        out = out.at[regions, :, block.scopes].add(jnp.moveaxis(draws, 2, 1))
    return out


def _members(mixture, samples):
    return samples[np.maximum(mixture, 0)]


def _blend(y, samples):
    return jnp.einsum("pokn,pkvcn->povcn", y, samples, precision="highest")


def _softmax(logits: Array, temperature: Array | float, axes: tuple[int, ...]) -> Array:
    """Softmax of ``logits / temperature``; -inf is 0, with zero gradients."""
    possible = logits > -jnp.inf
    z = jnp.where(possible, logits, 0.0) / temperature
    z = jnp.where(possible, z, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(z, axis=axes, keepdims=True))
    weights = jnp.exp(z - finite_or_zero(top))
    return safe_divide(weights, jnp.sum(weights, axis=axes, keepdims=True))


def _evidence_logits(children, ndim):
    if ndim == 5:  # pairs
        return children[0][:, None, :, None] + children[1][:, None, None]
    return functools.reduce(jnp.add, children)[:, None]
