"""Expected counts by definition: every tree of choices of a circuit, one by one."""

from collections import Counter
from collections.abc import Iterator
import functools
import itertools
from typing import Any

import jax
import numpy as np
from scipy import special

import dspc_jax as pc
from dspc_jax.leaves import FittableLeaf
from dspc_jax.parameters import CircuitWeights
from dspc_jax.structure.trees_from_data import latent_tree
from tests import cases, oracles

CONFIGS = {
    "trees": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2, 2),
        pc.Bernoulli(),
        num_leaves=2,
        num_sums=2,
        num_classes=2,
        sum_layer="tucker",
    ),
    "shared": pc.CircuitConfig(
        cases.SHARED, pc.Categorical(3), num_leaves=2, num_sums=3
    ),
    # A leaf beside two sums in one product.
    "hidden-tree": pc.CircuitConfig(
        latent_tree(np.array([-1, 0, 0, 1])), pc.Bernoulli(), num_leaves=2, num_sums=2
    ),
    "channels": pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 0, 2),
        (pc.Normal(), pc.Binomial(4)),
        num_channels=2,
        num_leaves=3,
    ),
}


class Trees:
    """All ways to choose one term of every sum, with their weights and choices."""

    def __init__(self, circuit: Any, params: Any):
        self._oracle = oracles.Oracle(circuit, params)
        self._graph, self._params = self._oracle.graph, params
        self._location = self._oracle.location
        self._kind = circuit.config.sum_layer

    def counts(self, x: np.ndarray, observed: np.ndarray) -> tuple[float, Counter]:
        """``log p(x)`` and the posterior probability of every choice; x ``[V, C]``."""
        leaves = {
            region: self._oracle._inputs(region, x[None], observed)[:, 0]
            for region in range(len(self._graph.scopes))
            if not self._graph.partitions_of[region]
        }
        trees = [
            (log_class + log_p, [("class", y), *chosen])
            for y, log_class in enumerate(self._oracle.log_classes)
            for log_p, chosen in self._region(self._graph.root, y, leaves)
        ]
        total = oracles.logsumexp(np.array([log_p for log_p, _ in trees]))
        counts = Counter()
        for log_p, chosen in trees:
            for choice in chosen:
                counts[choice] += np.exp(log_p - total)
        return float(total), counts

    def _region(self, region, unit, leaves, lifted=False) -> Iterator[Any]:
        numbers = self._graph.partitions_of[region]
        if not numbers and lifted and region in self._location.lifted:
            yield from self._sum(
                self._location.lifted[region], unit, [region], leaves, False
            )
            return
        if not numbers:
            yield leaves[region][unit], [("leaf", region, unit)]
            return
        level, row = self._location.regions[region]
        logits = self._params.mixtures[level - 1]
        for number in numbers:
            at, place = self._location.partitions[number]
            log_w, chosen = 0.0, []
            if logits is not None:
                places = [self._location.partitions[n][1] for n in numbers]
                weights = np.asarray(logits, np.float64)[row, unit]
                log_w = weights[place] - oracles.logsumexp(weights[places])
                chosen = [("mixture", level - 1, row, unit, place)]
            children = self._graph.partitions[number].children
            for log_p, below in self._sum(at, unit, children, leaves, True):
                yield log_w + log_p, [*chosen, *below]

    def _sum(self, at, unit, children, leaves, may_lift) -> Iterator[Any]:
        level, fold, row = at
        logits = np.asarray(self._params.sums[level - 1][fold], np.float64)[row, unit]
        log_w = special.log_softmax(logits, axis=None)
        lifts = may_lift and any(self._graph.partitions_of[c] for c in children)
        for units in np.ndindex(log_w.shape):
            pairs = zip(
                children,
                units if len(units) > 1 else units * len(children),
                strict=True,
            )
            below = [self._region(child, u, leaves, lifts) for child, u in pairs]
            for parts in itertools.product(*below):
                chosen = [choice for _, choices in parts for choice in choices]
                log_p = log_w[units] + sum(part for part, _ in parts)
                yield log_p, [("sum", level - 1, fold, row, unit, *units), *chosen]


@functools.cache
def model(name: str) -> tuple[Any, Any, Any, Any]:
    """A circuit, its parameters, and ten examples with masks."""
    circuit = pc.build(CONFIGS[name])
    params = cases.random_params(circuit, seed=1)
    config = circuit.config
    rng = np.random.default_rng(2)
    top = np.array([min(leaf.support[1], 1.5) for leaf in config.leaves])
    if name != "channels":
        top = np.array([leaf.support[1] for leaf in config.leaves])
    shape = (10, len(top), config.num_channels)
    x = np.floor(rng.uniform(size=shape) * (top[:, None] + 1))
    if name == "channels":
        x[:, 0] = rng.normal(0.5, 0.4, size=x[:, 0].shape)
    observed = rng.uniform(size=shape[:2]) < 0.7
    return circuit, params, x.astype(np.float32), observed


@functools.cache
def expected(name: str, is_masked: bool) -> Any:
    """The counts by enumeration, as arrays in the tree of the library's."""
    circuit, params, x, observed = model(name)
    if not is_masked:
        observed = np.ones_like(observed)
    return summed(circuit, params, x, observed)


def summed(circuit: Any, params: Any, x: np.ndarray, observed: np.ndarray) -> Any:
    """As `expected`, of any parameters and examples."""
    trees = Trees(circuit, params)
    weights = CircuitWeights(*jax.tree.map(lambda leaf: np.zeros(leaf.shape), params))
    leaves = []
    for block, own in zip(circuit.layout.blocks, params.leaves, strict=True):
        mass = np.zeros(own[0].shape[:4])
        assert isinstance(block.leaf, FittableLeaf)
        sizes = [t.shape for t in block.leaf.expected_statistics(own)]
        leaves.append((tuple(map(np.zeros, sizes)), mass))
    for example, mask in zip(x, observed, strict=True):
        _, counts = trees.counts(np.asarray(example, np.float64), mask)
        for (kind, *place), count in counts.items():
            if kind == "leaf":
                add_leaf(circuit, trees, leaves, place, count, example, mask)
            else:
                add_edge(weights, kind, place, count)
    return weights._replace(leaves=tuple(leaves))


def add_edge(weights, kind, place, count):
    if kind == "class":
        weights.classes[place[0]] += count
    elif kind == "sum":
        weights.sums[place[0]][place[1]][tuple(place[2:])] += count
    else:
        weights.mixtures[place[0]][tuple(place[1:])] += count


def add_leaf(circuit, trees, leaves, place, count, x, observed):
    region, unit = place
    row = trees._location.regions[region][1]
    for block, own, (statistics, mass) in zip(
        circuit.layout.blocks, trees._params.leaves, leaves, strict=True
    ):
        places = zip(block.scopes[row], block.valid[row], strict=True)
        for position, (variable, is_valid) in enumerate(places):
            if not is_valid or not observed[variable]:
                continue
            for channel, value in enumerate(x[variable]):
                at = (row, unit, position, channel)
                mass[at] += count
                if isinstance(block.leaf, pc.Categorical):
                    statistics[0][(*at, int(value))] += count
                    continue
                # Those of Normal leaves are about each leaf's mean.
                center = float(own.mean[at]) if isinstance(block.leaf, pc.Normal) else 0
                for power, statistic in enumerate(statistics, start=1):
                    statistic[at] += count * (float(value) - center) ** power


@functools.cache
def prior(name: str) -> Any:
    """The probability of every edge in a sample, and of the leaves ``[G, K, 1, 1]``."""
    circuit, params, x, observed = model(name)
    trees = Trees(circuit, params)
    weights = CircuitWeights(*jax.tree.map(lambda leaf: np.zeros(leaf.shape), params))
    masses = np.zeros((*params.leaves[0][0].shape[:2], 1, 1))
    _, counts = trees.counts(np.zeros(x.shape[1:]), np.zeros_like(observed[0]))
    for (kind, *place), count in counts.items():
        if kind == "leaf":
            region, unit = place
            masses[trees._location.regions[region][1], unit] += count
        else:
            add_edge(weights, kind, place, count)
    return weights._replace(leaves=(masses,) * len(params.leaves))
