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
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.starts import clusters, comparable
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
    labels: np.ndarray | None = None,
    smoothing: Smoothing = SMOOTHING,
    **options: Any,
) -> CircuitParams:
    """Parameters by clustering, without a step of training.

    Args:
        layout: the circuit.
        key: for the clusters.
        x: ``[N, V, C]``; any values where not observed.
        observed: bool ``[N, V]``, or None.
        labels: classes ``[N]``, or None: clusters take their places.
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
    table = comparable.values(layout, x, observed)
    alike = _alike(layout, [number[latent] for latent in latents])
    distinct = _labels(key, table, list(number), alike, layout.num_channels, options)
    label = distinct[[number[latent] for latent in latents]]
    if labels is not None:
        label[layout.graph.places.graph.root] = labels
    return CircuitParams(
        leaves=_leaves(layout, label, x, observed, smoothing),
        sums=_sums(layout, label, smoothing.sums),
        mixtures=tuple(
            None
            if mixture is None
            else jnp.zeros((len(mixture), layout.num_units(number), mixture.shape[1]))
            for number, mixture in enumerate(layout.mixtures, start=1)
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


def _alike(layout: Layout, number: list[int]) -> np.ndarray:
    """Of every latent, the least one whose values tied parameters take for the same.

    Args:
        layout: the circuit.
        number: of each region, its latent.

    Returns:
        A latent for each latent, that of their number where nothing is tied.
    """
    graph, regions, places = layout.graph.places
    parent = np.arange(max(number) + 1)

    def root(latent: int) -> int:
        while parent[latent] != latent:
            latent = parent[latent]
        return latent

    first: dict[Any, tuple[int, ...]] = {}

    def join(key: Any, latents: tuple[int, ...]) -> None:
        for pair in zip(first.setdefault(key, latents), latents, strict=True):
            least, other = sorted(map(root, pair))
            parent[other] = least

    for n, (block, rows) in enumerate(layout.tied_leaves or ()):
        del block
        for region, (level, row) in enumerate(regions):
            if level == 0:
                for place in np.flatnonzero(layout.blocks[n].valid[row]):
                    join((n, rows[row, place]), (number[region],))
    if layout.tied_sums is not None:
        for p, (level, fold, row) in zip(graph.partitions, places, strict=True):
            table, rows = layout.tied_sums.rows[level - 1][fold]
            latents = tuple(number[r] for r in (p.region, *p.children))
            join((table, len(latents), rows[row]), latents)
    return np.array([root(latent) for latent in range(len(parent))])


def _labels(key, table, latents, alike, num_channels, options) -> np.ndarray:
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
        key_size = jax.random.fold_in(key, size)
        out[places] = clusters.labels(
            key_size, table, patches, int(size), groups=alike[places], **options
        )
    return out


def _class_logits(layout, label):
    root = label[layout.graph.places.graph.root]
    count = np.bincount(root, minlength=layout.num_classes) + 1.0
    return jnp.log(jnp.asarray(count / count.sum(), jnp.float32))


def _sums(layout, label, smoothing):
    """Logits of all sums, by how often two latents come together."""
    graph, _, places = layout.graph.places
    ties = layout.tied_sums
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
    logits: dict[Any, Array] = {}
    for (units, tail), folds in calls.items():
        partitions = [
            graph.partitions[n] for place in folds for _, n in sorted(members[place])
        ]
        out = label[[p.region for p in partitions]]
        sides = [label[[p.children[i] for p in partitions]] for i in range(len(tail))]
        count = _counts(out, tuple(sides), units, tail)
        if ties is not None:
            rows = np.concatenate([ties.rows[n - 1][f][1] for n, f in folds])
            table, _ = ties.rows[folds[0][0] - 1][folds[0][1]]
            logits[table] = _log_weights(
                comparable.pooled(count, rows), smoothing, tail
            )
            continue
        tables = _log_weights(count, smoothing, tail)
        ends = np.cumsum([len(members[place]) for place in folds])
        logits |= dict(zip(folds, jnp.split(tables, ends[:-1]), strict=True))
    if ties is not None:
        return (tuple(logits[table] for table in range(len(ties.tables))),)
    return tuple(
        tuple(logits[number, n] for n in range(len(level.folds)))
        for number, level in enumerate(layout.graph.levels, start=1)
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _counts(out, sides, units, tail):
    """``[P, O, D]`` from clusters ``[P, N]`` of the sums and of each factor."""

    def partition(labels):
        out, *sides = (label.astype(jnp.int32) for label in labels)
        column = functools.reduce(lambda a, b: a * tail[-1] + b, sides)
        return jnp.zeros((units, math.prod(tail))).at[out, column].add(1.0)

    return jax.lax.map(partition, (out, *sides))


@functools.partial(jax.jit, static_argnums=2)
def _log_weights(counts, smoothing, tail):
    """Logits ``[P, O, *tail]`` from counts ``[P, O, D]``."""

    def partition(count):
        size = math.prod(tail)
        share = (count.sum(0) + 1e-2) / (count.sum() + 1e-2 * size)
        count = count + smoothing * size * share[None]
        return jnp.log(count / count.sum(1, keepdims=True))

    logits = jax.lax.map(partition, counts)
    return logits.reshape(*counts.shape[:2], *tail)


def _leaves(layout, label, x, observed, smoothing):
    rows = layout.graph.places.regions
    inputs = sorted((row, g) for g, (level, row) in enumerate(rows) if level == 0)
    label = label[[g for _, g in inputs]]
    tied = layout.tied_leaves or ((None, None),) * len(layout.blocks)
    return tuple(
        _block(block, layout.num_leaves, label, x, observed, smoothing, *own)
        for block, own in zip(layout.blocks, tied, strict=True)
    )


def _block(block, num_units, label, x, observed, smoothing, tied, rows):
    """The parameters of a block's leaves, ``[G, K, L, C]``.

    Those of a tied block have the counts of all leaves of their rows.
    """
    own = block if tied is None else tied
    weight = comparable.weights(x, observed)

    def together(counts):
        if tied is not None:
            counts = comparable.pooled(counts[block.valid], rows[block.valid])[:, None]
        return jnp.moveaxis(counts, 3, 1)

    if isinstance(own.leaf, Categorical):
        length = int(np.max(own.leaf.num_values))
        count = _tables(label, block.scopes, x, weight, num_units, length)
        table = _smoothed_table(together(count), smoothing)
        logits = CategoricalParams(jnp.zeros_like(table))
        return own.leaf.from_statistics((table,), logits)
    # Moments about a point near the mean, the same for variables that are tied.
    center = comparable.means(block, rows, x, weight)
    about = _moments(label, block.scopes, x - center[None], weight, num_units)
    mean, std = _smoothed_moments(together(about), smoothing.leaves)
    return own.leaf.from_moments(mean + center[own.scopes][:, None], std)


def _by_leaf(function, label, scopes, x, weight):
    """``[G, L, C, K, ...]`` of a function of labels, values and weights ``[N]``."""

    def region(operands):
        label, scope = operands

        def place(v):
            return jax.lax.map(
                lambda value: function(label, value, weight[:, v]), x[:, v].T
            )

        return jax.lax.map(place, scope)

    return jax.lax.map(region, (label.astype(jnp.int32), scopes))


@functools.partial(jax.jit, static_argnums=(4, 5))
def _tables(label, scopes, x, weight, num_units, length):
    """How often each value came."""

    def table(label, value, weight):
        value = jnp.clip(value, 0, length - 1).astype(jnp.int32)
        return jnp.zeros((num_units, length)).at[label, value].add(weight)

    return _by_leaf(table, label, scopes, x, weight)


@functools.partial(jax.jit, static_argnums=1)
def _smoothed_table(count, smoothing):
    """Smoothed frequencies, not normalized, from counts ``[G, K, L, C, M]``."""
    length = count.shape[-1]
    of_all = count.sum(1, keepdims=True)
    share = (of_all + 1e-3) / (of_all.sum(-1, keepdims=True) + 1e-3 * length)
    return count + smoothing.leaves * share + smoothing.uniform / length


@functools.partial(jax.jit, static_argnums=4)
def _moments(label, scopes, x, weight, num_units):
    """Sums of the weights, of the values and of their squares."""

    def moments(label, value, weight):
        def total(term):
            return jnp.zeros(num_units).at[label].add(weight * term)

        return jnp.stack([total(1.0), total(value), total(value**2)], 1)

    return _by_leaf(moments, label, scopes, x, weight)


@jax.jit
def _smoothed_moments(sums, smoothing):
    """Means and deviations, towards those of all examples: of ``[G, K, L, C, 3]``."""
    count, total, square = jnp.moveaxis(sums, -1, 0)
    whole = jnp.sum(square, axis=1, keepdims=True)
    variance = whole / jnp.maximum(jnp.sum(count, axis=1, keepdims=True), 1.0)
    count = count + smoothing
    mean, square = total / count, (square + smoothing * variance) / count
    return mean, jnp.sqrt(jnp.maximum(square - mean**2, 0))
