"""Expectation-maximization, against counts of every tree of choices, one by one."""

from collections import Counter
from collections.abc import Iterator
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.leaves import FittableLeaf
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
        if not numbers and lifted:
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
    trees = Trees(circuit, params)
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    leaves = []
    for block, own in zip(circuit.layout.blocks, params.leaves, strict=True):
        mass = np.zeros(own[0].shape[:4])
        assert isinstance(block.leaf, FittableLeaf)
        sizes = [t.shape for t in block.leaf.expected_statistics(own)]
        leaves.append((tuple(map(np.zeros, sizes)), mass))
    for example, mask in zip(x, observed, strict=True):
        _, counts = trees.counts(np.asarray(example, np.float64), mask)
        for (kind, *place), count in counts.items():
            if kind == "class":
                weights.classes[place[0]] += count
            elif kind == "sum":
                weights.sums[place[0]][place[1]][tuple(place[2:])] += count
            elif kind == "mixture":
                weights.mixtures[place[0]][tuple(place[1:])] += count
            else:
                add_leaf(circuit, trees, leaves, place, count, example, mask)
    return weights._replace(leaves=tuple(leaves))


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


def assert_close(a: Any, b: Any) -> None:
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_enumeration_is_of_this_circuit(name):
    circuit, params, x, observed = model(name)
    trees, oracle = Trees(circuit, params), oracles.Oracle(circuit, params)
    for example, mask in zip(x[:3], observed[:3], strict=True):
        example = np.asarray(example, np.float64)
        log_p, counts = trees.counts(example, mask)
        np.testing.assert_allclose(log_p, oracle.log_prob(example[None], mask)[0])
        classes = [count for (kind, *_), count in counts.items() if kind == "class"]
        np.testing.assert_allclose(sum(classes), 1)


@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("name", CONFIGS)
def test_expected_counts_are_those_of_all_trees(name, is_masked):
    circuit, params, x, observed = model(name)
    count = cases.jit(functools.partial(pc.expected_counts, circuit))
    counts = count(params, x, observed if is_masked else None)
    assert_close(counts, expected(name, is_masked))


def test_impossible_examples_do_not_count():
    circuit, params, x, _ = model("trees")
    count = cases.jit(functools.partial(pc.expected_counts, circuit))
    impossible = np.concatenate([x, np.full_like(x[:2], 7.0)])
    assert_close(count(params, impossible), count(params, x))


def moved(name: str, step_size: float) -> tuple[Any, Any]:
    """The weights before and after one step, both normalized."""
    circuit, params, x, _ = model(name)
    optimizer = pc.em(circuit, step_size=step_size)

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x)
        updates, _ = optimizer.update(counts, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    return params, step(params)


def normalized(logits: Any, num_kept: int) -> np.ndarray:
    axes = tuple(range(num_kept, logits.ndim))
    return special.softmax(np.asarray(logits, np.float64), axis=axes)


@pytest.mark.parametrize(
    ("name", "step_size"), [*((name, 1.0) for name in CONFIGS), ("trees", 0.3)]
)
def test_a_step_moves_to_the_fractions_of_the_counts(name, step_size):
    old, new = moved(name, step_size)
    counts = expected(name, False)

    def check(old: Any, new: Any, count: Any, num_kept: int) -> None:
        axes = tuple(range(num_kept, count.ndim))
        total = count.sum(axis=axes, keepdims=True)
        before, after = normalized(old, num_kept), normalized(new, num_kept)
        # A unit that no example came through keeps its weights.
        fitted = np.where(total > 0, count / np.where(total > 0, total, 1.0), before)
        wanted = (1 - step_size) * before + step_size * fitted
        np.testing.assert_allclose(after, wanted, rtol=1e-3, atol=1e-5)

    check(old.classes, new.classes, counts.classes, 0)
    for trees, num_kept in (("sums", 2), ("mixtures", 2)):
        parts = (getattr(tree, trees) for tree in (old, new, counts))
        for before, after, count in zip(*map(jax.tree.leaves, parts), strict=True):
            check(before, after, count, num_kept)
    blocks = pc.build(CONFIGS[name]).layout.blocks
    parts = zip(blocks, old.leaves, new.leaves, counts.leaves, strict=True)
    for block, before, after, (statistics, mass) in parts:
        assert isinstance(block.leaf, FittableLeaf)
        start, end = map(block.leaf.expected_statistics, (before, after))
        for at, total in np.ndenumerate(mass):
            if total < 0.05:
                continue
            if isinstance(block.leaf, pc.Normal):  # bounded deviations: tests/leaves
                wanted = step_size * statistics[0][at] / total
                moved_by = after.mean[at] - before.mean[at]
                np.testing.assert_allclose(moved_by, wanted, rtol=2e-3, atol=2e-4)
                continue
            for first, last, statistic in zip(start, end, statistics, strict=True):
                wanted = (1 - step_size) * np.asarray(first)[at]
                wanted += step_size * statistic[at] / total
                np.testing.assert_allclose(last[at], wanted, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_likelihood_never_falls(name):
    circuit, params, x, _ = model(name)
    optimizer = pc.em(circuit)

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x)
        updates, _ = optimizer.update(counts, optimizer.init(params), params)
        log_p = jnp.mean(jax.vmap(circuit.log_prob, (None, 0))(params, x))
        return optax.apply_updates(params, updates), log_p

    values = []
    for _ in range(10):
        params, log_p = step(params)
        values.append(float(log_p))
    assert all(after >= before - 1e-5 for before, after in itertools.pairwise(values))
    assert values[-1] > values[0] + 0.1


def test_wrong_uses_are_named():
    circuit, params, _, _ = model("trees")
    for step_size in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"step_size must be in \(0, 1\], got"):
            pc.em(circuit, step_size=step_size)
    optimizer = pc.em(circuit)
    with pytest.raises(ValueError, match="params must be parameters"):
        optimizer.update(params, optimizer.init(params))
    other = pc.build(
        pc.CircuitConfig(pc.RandomBinaryTrees(2, 1), pc.DiscretizedLogistic(4))
    )
    with pytest.raises(ValueError, match="closed-form M-step for EM, got Discretized"):
        pc.em(other)
    with pytest.raises(ValueError, match="closed-form M-step for EM, got Discretized"):
        pc.expected_counts(other, cases.random_params(other, 0), jnp.zeros((1, 2, 1)))
