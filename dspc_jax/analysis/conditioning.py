r"""Conditional and marginal distributions as circuits of the remaining variables.

The region graph without some of its variables: regions that have none left are gone,
and sums have absorbed their values (`dspc_jax.analysis.absorbed`), likelihoods of
evidence or integrals, which are 1.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples, parameters
from dspc_jax.analysis import absorbed
from dspc_jax.arguments import instance, shown
from dspc_jax.circuit import Circuit, CircuitConfig, build
from dspc_jax.inference.upward import log_base, upward
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import logsumexp
from dspc_jax.parameters import CircuitParams
from dspc_jax.rows import parameter_rows
from dspc_jax.structure.region_graph import Partition, RegionGraph
from dspc_jax.types import Array


def conditional_circuit(
    circuit: Circuit, params: CircuitParams, x: Any, observed: Any
) -> tuple[Circuit, CircuitParams]:
    r"""The distribution :math:`p(x_{hidden} \mid x_{obs})` as a circuit, exact.

    For many queries given the same evidence: it is smaller than the circuit, and none
    of its queries needs the evidence again. Variables keep their order.

    Args:
        circuit: any.
        params: its parameters.
        x: values ``[V, C]``; may be traced, and mapped.
        observed: bool ``[V]``, not traced: at least one variable is not observed.

    Returns:
        The circuit of the variables that are not observed, and its parameters,
        differentiable in ``params`` and ``x``. Nothing of it is tied, and its
        structure is a `dspc_jax.RegionGraph`. Where the evidence is impossible the
        sums have their weights as they are without evidence.

    Raises:
        ValueError: a shape or type is another, everything is observed, or the mask is
            traced.
    """
    instance("circuit", circuit, Circuit)
    params, dtype = widened(params)
    mask = _mask(circuit, "observed", observed)
    x, _ = examples.example(circuit.layout, x, mask, dtype)
    smaller = _smaller(circuit, tuple((~mask).tolist()))
    return smaller.circuit, _absorb(circuit, smaller, params, x, jnp.asarray(mask))


def marginal_circuit(
    circuit: Circuit, params: CircuitParams, variables: Any
) -> tuple[Circuit, CircuitParams]:
    r"""The distribution of some variables as a circuit, exact.

    Args:
        circuit: any.
        params: its parameters.
        variables: bool ``[V]``, not traced, the ones that remain: at least one.

    Returns:
        The circuit of these variables, in their order, and its parameters,
        differentiable in ``params``; as of `conditional_circuit`.

    Raises:
        ValueError: a shape or type is another, no variable remains, or the mask is
            traced.
    """
    instance("circuit", circuit, Circuit)
    params, dtype = widened(params)
    remaining = _mask(circuit, "variables", variables)
    nothing = jnp.zeros(len(remaining), bool)
    smaller = _smaller(circuit, tuple(remaining.tolist()))
    x = jnp.zeros(examples.shape(circuit.layout), dtype)
    return smaller.circuit, _absorb(circuit, smaller, params, x, nothing)


class _Source(NamedTuple):
    """Where rows of a table of sums come from.

    Attributes:
        table: level and fold of the old circuit.
        side: the child of pairs that is gone, or None.
        rows: of the old table.
        places: in the new one.
    """

    table: tuple[int, int]
    side: int | None
    rows: np.ndarray
    places: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Smaller:
    """A circuit without some variables, and where its parameters come from.

    Attributes:
        circuit: of the remaining variables.
        regions: per old input region its new row, -1 where it is gone.
        variables: per old variable its new number, -1 where it is gone.
        sums: per new level and fold, the sources of its table.
        mixtures: per new level, ``(old level, old rows and places, new ones)`` of each
            old level that it has mixtures from.
    """

    circuit: Circuit
    regions: np.ndarray
    variables: np.ndarray
    sums: tuple[tuple[tuple[_Source, ...], ...], ...]
    mixtures: tuple[tuple[tuple[int, np.ndarray], ...], ...]


def _mask(circuit: Circuit, name: str, given: Any) -> np.ndarray:
    """The mask, of which some variable remains."""
    if isinstance(given, Tracer):
        raise ValueError(
            f"{name} must not be traced: it makes the structure, got {shown(given)}"
        )
    mask = np.asarray(given)
    wanted = (circuit.layout.graph.num_variables,)
    if mask.shape != wanted or mask.dtype != np.bool_:
        raise ValueError(
            f"{name} must be bool of shape [V] = {wanted}, got {shown(mask)}"
        )
    if mask.all() if name == "observed" else not mask.any():
        raise ValueError(
            f"{name} must leave a variable, got {mask.sum()} of {wanted[0]}"
        )
    return mask


@functools.lru_cache(maxsize=64)
def _smaller(circuit: Circuit, remaining: tuple[bool, ...]) -> _Smaller:
    layout, config = circuit.layout, circuit.config
    old = layout.graph.places.graph
    kept = np.array(remaining)
    variables = np.where(kept, np.cumsum(kept) - 1, -1)
    scopes = [
        tuple(int(variables[v]) for v in scope if kept[v]) for scope in old.scopes
    ]
    alive = [bool(scope) for scope in scopes]
    numbers = np.where(alive, np.cumsum(alive) - 1, -1)
    partitions, origins = [], []
    for origin, partition in enumerate(old.partitions):
        children = [int(numbers[c]) for c in partition.children if alive[c]]
        if children:
            region = int(numbers[partition.region])
            partitions.append(Partition(region, children))
            origins.append(origin)
    graph = RegionGraph(int(kept.sum()), [s for s in scopes if s], partitions)
    tucker = config.sum_layer == "tucker"
    leaves = tuple(
        leaf for leaf, own in zip(config.leaves, remaining, strict=True) if own
    )
    built = build(
        CircuitConfig(
            structure=graph,
            leaf=leaves,
            num_channels=config.num_channels,
            num_leaves=config.num_leaves,
            num_sums=config.num_sums,
            num_classes=config.num_classes,
            sum_layer="tucker" if tucker else "cp_t",
        )
    )
    places = built.layout.graph.places
    assert places.graph == graph, "regions were added to a graph that has them all"
    regions = np.full(len(layout.graph.input_scopes), -1)
    for region, number in enumerate(numbers):
        level, row = layout.graph.places.regions[region]
        if level == 0 and number >= 0:
            regions[row] = places.regions[number][1]
    return _Smaller(
        built,
        regions,
        variables,
        _sources(circuit, built, origins, alive),
        _mixture_sources(circuit, built, origins),
    )


def _sources(circuit, built, origins, alive):
    """As `_Smaller.sums`."""
    old, new = circuit.layout.graph.places, built.layout.graph.places
    found: list[list[dict[Any, list[tuple[int, int]]]]] = [
        [{} for _ in level.folds] for level in built.layout.graph.levels
    ]
    pairs = circuit.layout.sum_layer == "tucker"
    for (level, fold, row), origin in zip(new.partitions, origins, strict=True):
        *table, old_row = old.partitions[origin]
        children = [alive[c] for c in old.graph.partitions[origin].children]
        gone = pairs and len(children) == 2 and not all(children)
        side = children.index(False) if gone else None
        key = (table[0] - 1, table[1], side)
        found[level - 1][fold].setdefault(key, []).append((old_row, row))

    def source(key, rows):
        old_rows, places = np.array(rows).T
        return _Source(key[:2], key[2], old_rows, places)

    return tuple(
        tuple(tuple(source(*item) for item in fold.items()) for fold in level)
        for level in found
    )


def _mixture_sources(circuit, built, origins):
    """As `_Smaller.mixtures`."""
    untied = dataclasses.replace(
        circuit.config, tie_leaves="none", tie_sums="none", mixing="learned"
    )
    old, new = (parameter_rows(c).mixtures for c in (build(untied), built))
    found: list[dict[int, list[tuple[int, ...]]]] = [
        {} for _ in built.layout.graph.levels
    ]
    for place, origin in zip(new, origins, strict=True):
        before = old[origin]
        if place is not None and before is not None:
            pair = (*before[1:], *place[1:])
            found[place[0]].setdefault(before[0], []).append(pair)
    return tuple(
        tuple((level, np.array(pairs).T) for level, pairs in own.items())
        for own in found
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _absorb(circuit, smaller, params, x, observed) -> CircuitParams:
    layout, built = circuit.layout, smaller.circuit.layout
    params, weights = parameters.of_regions(layout, params)
    evidence = upward(layout, weights, x[None], observed[None])
    # Base measures are no unit's: they alone may make the evidence impossible.
    possible = log_base(layout, x[None], observed[None])[0] != -jnp.inf
    evidence = jax.tree.map(lambda a: jnp.where(possible, a, 0.0), evidence)
    tables = absorbed.sums(layout, weights.sums, evidence.regions)
    mixed = absorbed.mixtures(layout, weights.mixtures, evidence)
    classes = weights.classes[None, None]
    shapes = parameters.shapes(built)
    return CircuitParams(
        leaves=absorbed.moved_leaves(
            *(layout.blocks, params.leaves, built.blocks, shapes.leaves),
            *(smaller.regions, smaller.variables),
        ),
        sums=tuple(
            tuple(_gathered(tables, sources) for sources in folds)
            for folds in smaller.sums
        ),
        mixtures=tuple(
            None if shape is None else _placed(mixed, sources, shape)
            for sources, shape in zip(smaller.mixtures, shapes.mixtures, strict=True)
        ),
        classes=absorbed.log_weights(classes, [evidence.regions[-1]])[0, 0],
    )


def _gathered(tables, sources) -> Array:
    """A table of sums from old ones; a lost child of pairs is summed over."""
    parts = []
    for source in sources:
        level, fold = source.table
        rows = tables[level][fold][source.rows]
        if source.side is not None:
            rows = logsumexp(rows, axis=2 + source.side)
        parts.append(rows)
    order = np.argsort(np.concatenate([source.places for source in sources]))
    return jnp.concatenate(parts)[order]


def _placed(mixed, sources, shape) -> Array:
    """A level's logits of mixtures; those of one partition may be anything: 0."""
    dtype = next(a.dtype for a in jax.tree.leaves(mixed))
    out = jnp.zeros(shape.shape, dtype)
    for level, (rows, places, new_rows, new_places) in sources:
        out = out.at[new_rows, :, new_places].set(mixed[level][rows, :, places])
    return out
