"""The distribution of a small circuit by enumeration: NumPy, float64, node by node.

The oracle walks the `RegionGraph` recursively. It shares nothing with the layers, the
folding or the leaves of the library; from there it takes the parameter arrays and the
answer to one question: which row of them belongs to which region and partition
(`locate`, from the documented fields of `FoldedGraph`, checked for being one-to-one).
"""

from collections.abc import Iterator
import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from dspc_jax.leaves import (
    Binomial,
    Categorical,
    DiscretizedLogistic,
    Normal,
)
from dspc_jax.structure.folding import FoldedGraph
from dspc_jax.structure.pieces import ABSENT
from dspc_jax.structure.region_graph import RegionGraph

PartitionRow = tuple[int, int, int]
"""Level (1: the lowest inner one), fold and row of a partition."""


class Location(NamedTuple):
    """Where the parameters of a region graph's parts stand in the folded arrays.

    Attributes:
      regions: per region, its level and its row.
      partitions: per partition, its row and its place among the region's partitions.
      lifted: per input region that meets an inner one, the row of the sum layer over
        it; empty where the circuit has none.
    """

    regions: dict[int, tuple[int, int]]
    partitions: dict[int, tuple[PartitionRow, int]]
    lifted: dict[int, PartitionRow]


def locate(graph: RegionGraph, folded: FoldedGraph) -> Location:
    """Matches a region graph with its folded form, from the root down.

    Several matches may exist (two partitions of one region may have the same shape
    below): under each of them, parameters are those of a circuit of this structure.
    """
    start = ((graph.root, (len(folded.levels), 0)),)
    for lifts in (False, True):
        for result in _matches(graph, folded, lifts, start, Location({}, {}, {})):
            return result
    raise AssertionError("regions and rows are not one to one")


def _matches(
    graph: RegionGraph,
    folded: FoldedGraph,
    lifts: bool,
    pending: tuple,
    partial: Location,
) -> Iterator[Location]:
    """All ways to complete a match in which the pending (region, place) are pairs."""
    if not pending:
        if len(partial.regions) == len(graph.scopes):
            yield partial
        return
    (region, place), rest = pending[0], pending[1:]
    if region in partial.regions or place in partial.regions.values():
        if partial.regions.get(region) == place:
            yield from _matches(graph, folded, lifts, rest, partial)
        return
    numbers, rows = graph.partitions_of[region], folded_partitions(folded, place)
    if len(numbers) != len(rows):
        return
    for order in itertools.permutations(range(len(rows))):
        chosen = {n: (rows[at], at) for n, at in zip(numbers, order, strict=True)}
        below = [_below(graph, folded, lifts, n, row) for n, (row, _) in chosen.items()]
        matched = [pairs for pairs in below if pairs is not None]
        if len(matched) == len(below):
            grown = Location(
                partial.regions | {region: place},
                partial.partitions | chosen,
                partial.lifted | dict(pair for _, lifted in matched for pair in lifted),
            )
            children = [pair for pairs, _ in matched for pair in pairs]
            yield from _matches(graph, folded, lifts, (*rest, *children), grown)


def _below(graph, folded, lifts, number, row):
    """The children of a partition with their places, and which of them are lifted.

    None if the folded partition ``row`` has another shape.
    """
    children = graph.partitions[number].children
    wanted = tuple(_shape_of(graph, lifts, c, children) for c in children)
    if _shapes_below(folded, row) != wanted:
        return None
    pairs, lifted = [], []
    for child, at in zip(children, children_rows(folded, row), strict=True):
        if at[0] > 0 and not graph.partitions_of[child]:
            (over,) = folded_partitions(folded, at)
            lifted.append((child, over))
            (at,) = children_rows(folded, over)
        pairs.append((child, at))
    return pairs, lifted


def folded_partitions(folded: FoldedGraph, place) -> list[PartitionRow]:
    """The partitions of the folded region at (level, row), in the mixture's order."""
    level, row = place
    if level == 0:
        return []
    fields = folded.levels[level - 1]
    rows = [
        (level, f, r) for f, fold in enumerate(fields.folds) for r in range(fold.size)
    ]
    if fields.mixture is None:
        return [rows[row]]
    return [rows[number] for number in fields.mixture[row] if number >= 0]


def children_rows(folded: FoldedGraph, row: PartitionRow) -> list[tuple[int, int]]:
    """(level, row) of the children of a folded partition, side by side."""
    level, fold, number = row
    out = []
    for side in folded.levels[level - 1].folds[fold].children:
        rows = [(piece.level, int(r)) for piece in side for r in _numbers(piece.rows)]
        out.append(rows[number])
    return [place for place in out if place[0] != ABSENT]


def _numbers(rows):
    return range(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _shape_of(graph, lifts, region, siblings):
    """The structure at and below a region of the graph, as nested tuples."""
    below = sorted(
        tuple(
            _shape_of(graph, lifts, c, graph.partitions[n].children)
            for c in graph.partitions[n].children
        )
        for n in graph.partitions_of[region]
    )
    scope = graph.scopes[region]
    inner = [bool(graph.partitions_of[s]) for s in siblings]
    if lifts and not below and any(inner):
        return (scope, (((scope, ()),),))
    return (scope, tuple(below))


def _shapes_below(folded, row):
    return tuple(_folded_shape(folded, at) for at in children_rows(folded, row))


def _folded_shape(folded, place):
    below = sorted(
        _shapes_below(folded, row) for row in folded_partitions(folded, place)
    )
    if place[0] == 0:
        scope = tuple(int(v) for v in folded.input_scopes[place[1]] if v >= 0)
    else:
        row = folded_partitions(folded, place)[0]
        scopes = [_folded_shape(folded, at)[0] for at in children_rows(folded, row)]
        scope = tuple(sorted(v for s in scopes for v in s))
    return (scope, tuple(below))


def logsumexp(a: np.ndarray, axis: Any = None) -> np.ndarray:
    """``log sum exp a``, -inf where nothing is possible."""
    return np.asarray(special.logsumexp(a, axis=axis))


def leaf_log_prob(leaf: Any, params: Any, x: np.ndarray) -> np.ndarray:
    """``log p(x)`` of values ``[S]``; parameters ``[K, 1]`` (tables ``[K, 1, M]``).

    The end of a table that is longer than the leaf's values is padding.
    """
    params = [np.asarray(p, np.float64) for p in params]
    x = np.asarray(x, np.float64)
    with np.errstate(divide="ignore"):
        if isinstance(leaf, Normal):
            if leaf.max_scale is None:
                scale = leaf.min_scale + np.exp(params[1])
            else:
                width = leaf.max_scale - leaf.min_scale
                scale = leaf.min_scale + width * special.expit(params[1])
            return stats.norm.logpdf(x, params[0], scale)
        if isinstance(leaf, Binomial):  # Bernoulli is one
            return stats.binom.logpmf(x, leaf.num_trials, special.expit(params[0]))
        if isinstance(leaf, Categorical):
            logits = params[0][..., 0, : leaf.num_values]
            table = special.log_softmax(logits, axis=-1)
            inside = (x >= 0) & (x < leaf.num_values) & (x == np.round(x))
            index = np.where(inside, x, 0).astype(int)
            return np.where(inside, table[..., index], -np.inf)
        if isinstance(leaf, DiscretizedLogistic):
            top = leaf.num_values - 1
            scale = leaf.min_scale + top * np.exp(params[1])
            distribution = stats.logistic(params[0] * top, scale)
            high = np.where(x == top, np.inf, x + 0.5)
            low = np.where(x == 0, -np.inf, x - 0.5)
            # On either side of the location, the difference that keeps its digits.
            mass = np.where(
                x < params[0] * top,
                distribution.cdf(high) - distribution.cdf(low),
                distribution.sf(low) - distribution.sf(high),
            )
            inside = (x >= 0) & (x <= top) & (x == np.round(x))
            return np.where(inside, np.log(np.maximum(mass, 0.0)), -np.inf)
    raise TypeError(f"no oracle for {leaf}")


def all_values(circuit: Any) -> np.ndarray:
    """Every value of a discrete circuit, ``[S, V, C]``."""
    ranges = [
        np.arange(leaf.support[0], leaf.support[1] + 1)
        for leaf in circuit.config.leaves
        for _ in range(circuit.config.num_channels)
    ]
    states = np.array(list(itertools.product(*ranges)), np.float64)
    return states.reshape(len(states), -1, circuit.config.num_channels)


class Oracle:
    """A circuit with its parameters, evaluated node by node."""

    def __init__(self, circuit: Any, params: Any):
        self.config, self.layout, self.params = circuit.config, circuit.layout, params
        self.graph: RegionGraph = self.config.structure.region_graph()
        self.location = locate(self.graph, self.layout.graph)
        self.log_classes = special.log_softmax(np.asarray(params.classes, np.float64))

    def class_log_probs(
        self, x: np.ndarray, observed: np.ndarray | None = None, maximize: bool = False
    ) -> np.ndarray:
        """``log p(x | y)`` ``[Y, S]`` of values ``[S, V, C]``.

        Args:
          x: values; where not observed they do not matter.
          observed: bool ``[V]``; None: all.
          maximize: takes the greatest term of each sum (max-product) instead.
        """
        if observed is None:
            observed = np.ones(self.graph.num_variables, bool)
        reduce = np.max if maximize else logsumexp
        done: dict[int, np.ndarray] = {}

        def below(region, siblings):
            if region not in done:
                done[region] = self._region(region, x, observed, reduce, below)
            inner = [bool(self.graph.partitions_of[s]) for s in siblings]
            if region not in self.location.lifted or not any(inner):
                return done[region]
            return self._sum(self.location.lifted[region], [done[region]], reduce)

        return below(self.graph.root, ())

    def log_prob(
        self, x: np.ndarray, observed: np.ndarray | None = None, maximize: bool = False
    ) -> np.ndarray:
        """``log p(x)`` ``[S]``."""
        per_class = self.class_log_probs(x, observed, maximize)
        reduce = np.max if maximize else logsumexp
        return reduce(per_class + self.log_classes[:, None], axis=0)

    def class_posterior(self, x, observed=None) -> np.ndarray:
        """``p(y | x)`` ``[Y, S]``."""
        joint = self.class_log_probs(x, observed) + self.log_classes[:, None]
        return np.exp(joint - logsumexp(joint, axis=0))

    def _region(self, region, x, observed, reduce, below):
        numbers = self.graph.partitions_of[region]
        if not numbers:
            return self._inputs(region, x, observed)
        level, row = self.location.regions[region]
        parts, places = [], []
        for number in numbers:
            children = self.graph.partitions[number].children
            at, place = self.location.partitions[number]
            parts.append(self._sum(at, [below(c, children) for c in children], reduce))
            places.append(place)
        logits = self.params.mixtures[level - 1]
        if logits is None:
            return parts[0]
        log_w = special.log_softmax(np.asarray(logits[row], np.float64)[:, places], -1)
        return reduce(log_w.T[..., None] + np.stack(parts), axis=0)

    def _sum(self, at, children, reduce):
        level, fold, row = at
        logits = np.asarray(self.params.sums[level - 1][fold][row], np.float64)
        log_w = special.log_softmax(logits, axis=tuple(range(1, logits.ndim)))[
            ..., None
        ]
        if len(children) == 2 and self.config.sum_layer == "tucker":
            terms = log_w + children[0][:, None] + children[1][None]
            return reduce(terms, axis=(1, 2))
        return reduce(log_w + sum(children), axis=1)

    def _inputs(self, region, x, observed):
        _, row = self.location.regions[region]
        out = np.zeros((self.config.num_leaves, len(x)))
        for block, leaf_params in zip(
            self.layout.blocks, self.params.leaves, strict=True
        ):
            places = zip(block.scopes[row], block.valid[row], strict=True)
            for place, (variable, valid) in enumerate(places):
                if not valid or not observed[variable]:
                    continue
                for c in range(self.config.num_channels):
                    at = [np.asarray(p)[row, :, place, c, None] for p in leaf_params]
                    leaf = self.config.leaves[variable]
                    out += leaf_log_prob(leaf, at, x[:, variable, c])
        return out


class Table(NamedTuple):
    """The whole distribution of a discrete circuit.

    Attributes:
      values: all values ``[S, V, C]``.
      joint: ``log p(y, x)`` ``[Y, S]``.
      best: per value, ``log max p(x, z)`` over latent choices z ``[S]``.
    """

    values: np.ndarray
    joint: np.ndarray
    best: np.ndarray

    @property
    def probs(self) -> np.ndarray:
        """``p(x)`` ``[S]``."""
        return np.exp(logsumexp(self.joint, axis=0))

    def agrees(self, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Which values agree with ``x`` ``[V, C]`` where observed: bool ``[S]``."""
        return (self.values == x)[:, observed].all(axis=(1, 2))

    def marginal(self, x: np.ndarray, observed: np.ndarray) -> float:
        """``p(x_observed)``."""
        return self.probs[self.agrees(x, observed)].sum()

    def conditional(self, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """``p(. | x_observed)`` over all values ``[S]``."""
        inside = np.where(self.agrees(x, observed), self.probs, 0.0)
        return inside / inside.sum()

    def class_posterior(self, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """``p(y | x_observed)`` ``[Y]``."""
        inside = np.exp(self.joint[:, self.agrees(x, observed)]).sum(axis=1)
        return inside / inside.sum()

    def find(self, x: np.ndarray) -> np.ndarray:
        """Numbers of values ``[N, V, C]`` in the table; -1 for what is not there."""
        number = {value.tobytes(): i for i, value in enumerate(self.values)}
        x = np.asarray(x, np.float64) + 0.0  # -0.0 and 0.0 are one value
        return np.array([number.get(value.tobytes(), -1) for value in x])


def tabulate(circuit: Any, params: Any) -> Table:
    """Enumerates a discrete circuit."""
    oracle = Oracle(circuit, params)
    values = all_values(circuit)
    joint = oracle.class_log_probs(values) + oracle.log_classes[:, None]
    return Table(values, joint, oracle.log_prob(values, maximize=True))


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """P-value of Pearson's test of counts ``[S]`` against a distribution ``[S]``.

    Values expected fewer than five times are pooled; a count where it has none is
    a contradiction (p-value 0).
    """
    if counts[probs == 0].any():
        return 0.0
    expected = counts.sum() * probs
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(stats.chi2.sf(statistic, max(len(counts) - 1, 1)))


def law_p_value(table: Table, samples: np.ndarray, probs: np.ndarray) -> float:
    """P-value of samples ``[N, V, C]`` under a distribution over the table's values."""
    index = table.find(samples)
    if (index < 0).any():
        return 0.0
    return chi_square(np.bincount(index, minlength=len(probs)), probs)
