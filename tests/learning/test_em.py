"""Expectation-maximization, against counts of every tree of choices, one by one."""

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
from tests.learning import choices


def assert_close(a: Any, b: Any) -> None:
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", choices.CONFIGS)
def test_the_enumeration_is_of_this_circuit(name):
    circuit, params, x, observed = choices.model(name)
    trees, oracle = choices.Trees(circuit, params), oracles.Oracle(circuit, params)
    for example, mask in zip(x[:3], observed[:3], strict=True):
        example = np.asarray(example, np.float64)
        log_p, counts = trees.counts(example, mask)
        np.testing.assert_allclose(log_p, oracle.log_prob(example[None], mask)[0])
        classes = [count for (kind, *_), count in counts.items() if kind == "class"]
        np.testing.assert_allclose(sum(classes), 1)


@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("name", cases.parameters(choices.CONFIGS, ["channels"]))
def test_expected_counts_are_those_of_all_trees(name, is_masked):
    circuit, params, x, observed = choices.model(name)
    count = cases.jit(functools.partial(pc.expected_counts, circuit))
    counts = count(params, x, observed if is_masked else None)
    assert_close(counts, choices.expected(name, is_masked))


def test_impossible_examples_do_not_count():
    circuit, params, x, _ = choices.model("trees")
    count = cases.jit(functools.partial(pc.expected_counts, circuit))
    impossible = np.concatenate([x, np.full_like(x[:2], 7.0)])
    assert_close(count(params, impossible), count(params, x))


def moved(name: str, step_size: float) -> tuple[Any, Any]:
    """The weights before and after one step, both normalized."""
    circuit, params, x, _ = choices.model(name)
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
    ("name", "step_size"), [*((name, 1.0) for name in choices.CONFIGS), ("trees", 0.3)]
)
def test_a_step_moves_to_the_fractions_of_the_counts(name, step_size):
    old, new = moved(name, step_size)
    counts = choices.expected(name, False)

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
    blocks = pc.build(choices.CONFIGS[name]).layout.blocks
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


@pytest.mark.parametrize(
    "name", cases.parameters(choices.CONFIGS, ["channels", "shared"])
)
def test_the_likelihood_never_falls(name):
    circuit, params, x, _ = choices.model(name)
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
    circuit, params, _, _ = choices.model("trees")
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
