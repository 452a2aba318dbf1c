r"""Latent-variable distillation: every latent is the cluster of its patch.

A unit of a region stands for a value of a latent variable. Where that value is known
for each example, all parameters are frequencies: weights are how often two clusters
come together, leaves are the distribution of the values in a cluster,

.. math::
  w_{od} = \frac{n_{od} + a\, n_{\cdot d} / n}{n_{o \cdot} + a}.

With ``cp`` and ``cp_t`` layers the latent of a product is the cluster of its region's
patch, and the units of a region have the latent of the product that they enter; with
``tucker`` they have that of their own region.

References:
    Liu, Zhang and Van den Broeck, "Scaling up probabilistic circuits by latent variable
    distillation", ICLR 2023.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.layers import sum_layer
from dspc_jax.leaves.categorical import Categorical, CategoricalParams
from dspc_jax.ops import missing
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.starts import clusters
from dspc_jax.types import Array, Key


class Smoothing(NamedTuple):
    """What is added to the frequencies.

    Attributes:
        sums: examples for each product of a sum, shared out among the products as they
            are over the whole data.
        leaves: examples for each leaf, with the values of the whole data.
        uniform: examples for each leaf that is a table, the same of each value.
    """

    sums: float = 0.1
    leaves: float = 2.0
    uniform: float = 0.1


SMOOTHING = Smoothing()


class _Latent(NamedTuple):
    """The cluster of a patch of variables, one of ``size``."""

    scope: tuple[int, ...]
    size: int


def distill(
    layout: Layout,
    key: Key,
    x: Array,
    observed: Array | None = None,
    *,
    smoothing: Smoothing = SMOOTHING,
    **options: Any,
) -> CircuitParams:
    """Parameters by clustering, without a step of training.

    Args:
        layout: the circuit.
        key: for the clusters.
        x: ``[N, V, C]``; any values where not observed.
        observed: bool ``[N, V]``, or None.
        smoothing: of the frequencies.
        **options: of `dspc_jax.starts.clusters.labels`.

    Returns:
        The parameters.

    Raises:
        ValueError: with ``cp_t``, a region enters products of different patches, whose
            latents its units cannot both have (in trees, none does).
    """
    if observed is not None:
        x = jnp.where(observed[..., None], x, 0.0)  # it may be NaN
    latents = _latents(layout)
    number = {latent: n for n, latent in enumerate(dict.fromkeys(latents))}
    table = _comparable(layout, x, observed)
    found = _labels(key, table, list(number), layout.num_channels, options)
    label = found[[number[latent] for latent in latents]]
    return CircuitParams(
        leaves=_leaves(layout, label, x, observed, smoothing),
        sums=_sums(layout, label, smoothing.sums),
        mixtures=tuple(
            None
            if level.mixture is None
            else jnp.zeros((*level.mixture.shape[:1], units, level.mixture.shape[1]))
            for level, units in zip(
                layout.graph.levels,
                map(layout.num_units, range(1, len(layout.graph.levels) + 1)),
                strict=True,
            )
        ),
        classes=_class_logits(layout, label),
    )


def _latents(layout: Layout) -> list[_Latent]:
    """Per region, the latent that its units have the values of."""
    graph, rows, _ = layout.graph.places
    own = [
        _Latent(scope, layout.num_units(level))
        for scope, (level, _) in zip(graph.scopes, rows, strict=True)
    ]
    if layout.sum_layer == "tucker":
        return own
    latents: dict[int, _Latent] = {graph.root: own[graph.root]}
    for p in graph.partitions:
        for child in p.children:
            latent = own[child]._replace(scope=graph.scopes[p.region])
            if latents.setdefault(child, latent) != latent:
                raise ValueError(
                    "structure must let every region enter products of one patch, or "
                    "sum_layer be 'cp' or 'tucker', for a start by distillation, got "
                    f"region {child} in products of {len(latents[child].scope)} and of "
                    f"{len(latent.scope)} variables"
                )
    return [latents[region] for region in range(len(graph.scopes))]


def _comparable(layout: Layout, x: Array, observed: Array | None) -> Array:
    """``[N, V * C]``: values in units in which distances of patches make sense.

    Those of leaves with a bounded support are shares of it, others are in deviations.
    What is missing is the variable's mean.
    """
    scale = np.ones(x.shape[1], np.float32)
    unbounded = np.zeros(x.shape[1], bool)
    for block in layout.blocks:
        low, high = block.leaf_of_variables.support
        width = np.broadcast_to(np.asarray(high - low, float), block.variables.shape)
        unbounded[block.variables] = ~np.isfinite(width)
        scale[block.variables] = np.where(np.isfinite(width), width, 1.0)
    deviation = missing.deviation(x, observed)
    divisor = jnp.where(unbounded[:, None], deviation, scale[:, None])[None]
    if observed is not None:
        count = jnp.sum(observed, axis=0)[:, None]
        total = jnp.sum(x, axis=0)
        count = jnp.broadcast_to(count, total.shape).astype(x.dtype)
        mean = safe_divide(total, count)
        x = jnp.where(observed[..., None], x, mean[None])
    divisor = jnp.broadcast_to(divisor, x.shape)
    return safe_divide(x, divisor).reshape(len(x), -1)


def _labels(key, table, latents, num_channels, options) -> np.ndarray:
    """Per latent, the clusters ``[N]`` of the examples; a single one is 0."""
    sizes = np.array([latent.size for latent in latents])
    out = np.zeros((len(latents), len(table)), np.min_scalar_type(max(sizes) - 1))
    for size in np.unique(sizes[sizes > 1]):
        (places,) = np.nonzero(sizes == size)
        channels = np.arange(num_channels)
        patches = [
            (np.array(latents[n].scope)[:, None] * num_channels + channels).ravel()
            for n in places
        ]
        out[places] = clusters.labels(
            jax.random.fold_in(key, size), table, patches, int(size), **options
        )
    return out


def _class_logits(layout, label):
    root = label[layout.graph.places.graph.root]
    count = np.bincount(root, minlength=layout.num_classes) + 1.0
    return jnp.log(jnp.asarray(count / count.sum(), jnp.float32))


def _sums(layout, label, smoothing):
    """Logits of all sums, by how often two latents come together."""
    graph, _, places = layout.graph.places
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for n, (level, fold, row) in enumerate(places):
        members.setdefault((level, fold), []).append((row, n))
    # Folds of equal sums are one call: all that it costs is its compilation.
    calls: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
    for number, level in enumerate(layout.graph.levels, start=1):
        for n, fold in enumerate(level.folds):
            size = layout.num_leaves if fold.from_inputs else layout.num_sums
            kind = layout.sum_layer if len(fold.children) == 2 else "hadamard"
            tail = sum_layer.weight_shape(kind, (size, size))
            calls.setdefault((layout.num_units(number), tail), []).append((number, n))
    logits = {}
    for (units, tail), folds in calls.items():
        partitions = [
            graph.partitions[n] for place in folds for _, n in sorted(members[place])
        ]
        out = label[[p.region for p in partitions]]
        sides = [label[[p.children[i] for p in partitions]] for i in range(len(tail))]
        found = _log_weights(out, tuple(sides), smoothing, units, tail)
        ends = np.cumsum([len(members[place]) for place in folds])
        logits |= dict(zip(folds, jnp.split(found, ends[:-1]), strict=True))
    return tuple(
        tuple(logits[number, n] for n in range(len(level.folds)))
        for number, level in enumerate(layout.graph.levels, start=1)
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _log_weights(out, sides, smoothing, units, tail):
    """``[P, O, *tail]`` from clusters ``[P, N]`` of the sums and of each factor."""

    def partition(labels):
        out, *sides = (label.astype(jnp.int32) for label in labels)
        column = functools.reduce(lambda a, b: a * tail[-1] + b, sides)
        size = math.prod(tail)
        count = jnp.zeros((units, size)).at[out, column].add(1.0)
        share = (count.sum(0) + 1e-2) / (count.sum() + 1e-2 * size)
        count = count + smoothing * size * share[None]
        return jnp.log(count / count.sum(1, keepdims=True))

    logits = jax.lax.map(partition, (out, *sides))
    return logits.reshape(len(out), units, *tail)


def _leaves(layout, label, x, observed, smoothing):
    rows = layout.graph.places.regions
    inputs = sorted((row, g) for g, (level, row) in enumerate(rows) if level == 0)
    label = label[[g for _, g in inputs]]
    return tuple(
        _block(block, layout.num_leaves, label, x, observed, smoothing)
        for block in layout.blocks
    )


def _block(block, num_units, label, x, observed, smoothing):
    """The parameters of a block's leaves, ``[G, K, L, C]``."""
    leaf = block.leaf
    weight = jnp.ones(x.shape[:2]) if observed is None else observed.astype(x.dtype)
    arrays = (label, block.scopes, x, weight)
    if isinstance(leaf, Categorical):
        length = int(np.max(leaf.num_values))
        table = _tables(*arrays, num_units, length, smoothing)
        return leaf.from_statistics((table,), CategoricalParams(jnp.zeros_like(table)))
    mean, std = _moments(*arrays, num_units, smoothing.leaves)
    return leaf.from_moments(mean, std)


def _by_leaf(function, label, scopes, x, weight):
    """``[G, K, L, C, ...]`` of a function of labels, values and weights ``[N]``."""

    def region(operands):
        label, scope = operands

        def place(v):
            return jax.lax.map(
                lambda value: function(label, value, weight[:, v]), x[:, v].T
            )

        return jax.lax.map(place, scope)

    out = jax.lax.map(region, (label.astype(jnp.int32), scopes))
    return jnp.moveaxis(out, 3, 1)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _tables(label, scopes, x, weight, num_units, length, smoothing):
    """Smoothed frequencies, not normalized."""

    def table(label, value, weight):
        value = jnp.clip(value, 0, length - 1).astype(jnp.int32)
        count = jnp.zeros((num_units, length)).at[label, value].add(weight)
        share = (count.sum(0) + 1e-3) / (count.sum() + 1e-3 * length)
        return count + smoothing.leaves * share[None] + smoothing.uniform / length

    return _by_leaf(table, label, scopes, x, weight)


@functools.partial(jax.jit, static_argnums=4)
def _moments(label, scopes, x, weight, num_units, smoothing):
    """Means and deviations, towards those of all examples."""

    def moments(label, value, weight):
        def total(term):
            return jnp.zeros(num_units).at[label].add(weight * term)

        whole = jnp.maximum(weight.sum(), 1.0)
        center = jnp.sum(weight * value) / whole
        value = value - center
        variance = jnp.sum(weight * value**2) / whole
        count = total(1.0) + smoothing
        mean = total(value) / count
        square = (total(value**2) + smoothing * variance) / count
        return jnp.stack([mean + center, jnp.sqrt(jnp.maximum(square - mean**2, 0))], 1)

    out = _by_leaf(moments, label, scopes, x, weight)
    return out[..., 0], out[..., 1]
