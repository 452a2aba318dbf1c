"""Steps of EM with smoothing, rescaling and momentum, against their formulas."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.learning import counts as counts_module
from dspc_jax.learning.counts import prior_counts
from dspc_jax.parameters import normalize
from tests import cases
from tests.learning import choices


def step(name: str, counts: Any = None, params: Any = None, **settings: Any) -> Any:
    """The parameters after one step by the enumerated counts, or by others."""
    circuit, own, _, _ = choices.model(name)
    params = own if params is None else params
    counts = choices.expected(name, False) if counts is None else counts
    counts = jax.tree.map(lambda a: np.asarray(a, np.float32), counts)
    optimizer = pc.em(circuit, **settings)

    @cases.jit
    def move(counts, params):
        change, _ = optimizer.update(counts, optimizer.init(params), params)
        return optax.apply_updates(params, change)

    return move(counts, params)


class Reference:
    """The module's formulas in NumPy, float64, array by array."""

    def __init__(self, name: str, **settings: Any):
        self._circuit, self._params, _, _ = choices.model(name)
        self._prior = choices.prior(name)
        self._s = settings.get("step_size", 1.0)
        self._sums = settings.get("pseudocount", 0.0)
        self._leaves = settings.get("leaf_pseudocount", self._sums)
        self._towards = settings.get("smooth_towards", "current")
        self._rescale = settings.get("rescale", False)

    def step(self, counts: Any) -> list[np.ndarray]:
        """Weights, then the leaves' moments about 0, after a step."""
        self._num = counts.classes.sum()
        self._counts = counts
        levels = self._circuit.layout.graph.levels
        exists = [
            None if m is None else np.broadcast_to(level.mixture[:, None] >= 0, m.shape)
            for level, m in zip(levels, self._params.mixtures, strict=True)
        ]
        new = [self._edges(*arrays, num_kept=2) for arrays in self._of("sums")]
        exists = [e for e in exists if e is not None]
        new += [
            self._edges(*arrays, num_kept=2, exists=there)
            for arrays, there in zip(self._of("mixtures"), exists, strict=True)
        ]
        new += [self._edges(*arrays, num_kept=0) for arrays in self._of("classes")]
        return new + self._of_leaves()

    def _of(self, part: str) -> Any:
        trees = (self._params, self._counts, self._prior)
        return zip(*(jax.tree.leaves(getattr(t, part)) for t in trees), strict=True)

    def _edges(self, logits, count, prior, *, num_kept, exists=True) -> np.ndarray:
        axes = tuple(range(num_kept, count.ndim))
        logits = np.where(exists, np.asarray(logits, np.float64), -np.inf)
        old = special.softmax(logits, axis=axes)
        sums = functools.partial(np.sum, axis=axes, keepdims=True)
        if self._towards == "current":
            towards = old
        elif self._towards == "uniform":
            towards = (old > 0) / sums(old > 0)
        else:
            together = count.sum(1, keepdims=True) if num_kept else count
            towards = together / sums(together)
        a, total = self._sums, sums(count)
        fitted = np.where(total + a > 0, (count + a * towards) / (total + a), old)
        if not self._rescale:
            return (1 - self._s) * old + self._s * fitted
        new = self._s * (count + a * towards) / self._num
        new += (1 - self._s) * sums(prior) * old
        return new / sums(new)

    def _of_leaves(self) -> list[np.ndarray]:
        new = []
        blocks = self._circuit.layout.blocks
        parts = zip(blocks, self._params.leaves, self._counts.leaves, strict=True)
        for block, own, (statistics, mass) in parts:
            old, zero = moments(block, own), np.zeros_like(mass)
            center = np.asarray(own.mean) if isinstance(block.leaf, pc.Normal) else zero
            counts = np.stack(raw(statistics, mass, center))
            towards = old
            if self._towards == "uniform":
                towards = np.full_like(old, block.leaf.support[1] / 2)
                if isinstance(block.leaf, pc.Categorical):
                    towards = np.full_like(old, 1 / old.shape[-1])
            total = mass if counts.ndim == mass.ndim + 1 else mass[..., None]
            if self._towards == "marginal":
                towards = counts.sum(2, keepdims=True) / total.sum(1, keepdims=True)
            share, added = self._s, counts + self._leaves * towards
            total = total + self._leaves
            if self._rescale:
                prior = aligned(self._prior.leaves[0], total)
                visits = self._s * total / self._num
                share = visits / (visits + (1 - self._s) * prior)
            # No mass: nothing moves.
            fitted = np.where(total > 0, added / np.where(total > 0, total, 1), old)
            new += list((1 - share) * old + share * fitted)
        return new


def aligned(mass: Any, like: Any) -> Any:
    return mass if mass.ndim == like.ndim else mass[..., None]


def raw(statistics: Any, mass: Any, center: Any) -> Any:
    """Sums of powers about 0 from those about a center."""
    first = np.asarray(statistics[0], np.float64)
    if len(statistics) == 1:
        return [first]
    square = statistics[1] + 2 * center * first + center**2 * mass
    return [first + center * mass, square]


def moments(block: Any, params: Any) -> np.ndarray:
    """Of leaves, about 0: means of values, and of their squares, or the table."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    if isinstance(block.leaf, pc.Normal):
        scale = block.leaf.min_scale + np.exp(params.scale_logit)
        return np.stack([params.mean, params.mean**2 + scale**2])
    if isinstance(block.leaf, pc.Categorical):
        return special.softmax(params.logits, -1)[None]
    return block.leaf.num_trials * special.expit(params.logits)[None]


def results(name: str, params: Any) -> list[np.ndarray]:
    """What `Reference.step` gives, of parameters of the library."""
    layout = choices.model(name)[0].layout
    weights = normalize(layout, params)._replace(leaves=())
    leaves = zip(layout.blocks, params.leaves, strict=True)
    edges = (weights.sums, weights.mixtures, weights.classes)
    return jax.tree.leaves(edges) + [a for pair in leaves for a in moments(*pair)]


def check(name: str, params: Any, wanted: list[np.ndarray]) -> None:
    for result, value in zip(results(name, params), wanted, strict=True):
        assert np.isfinite(result).all()
        np.testing.assert_allclose(result, value, rtol=1e-3, atol=1e-5)


SMOOTHED = {"pseudocount": 1.0, "leaf_pseudocount": 4.0}
STEPS = {
    "current": ("trees", {**SMOOTHED, "step_size": 0.3}),
    "uniform": ("shared", {"pseudocount": 0.5, "smooth_towards": "uniform"}),
    "marginal": ("shared", {**SMOOTHED, "smooth_towards": "marginal"}),
    "normals": ("channels", {**SMOOTHED, "smooth_towards": "marginal"}),
    "rescaled": ("shared", {"rescale": True, "step_size": 0.3}),
    "both": (
        "channels",
        {**SMOOTHED, "smooth_towards": "current", "rescale": True, "step_size": 0.3},
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_a_step_is_that_of_the_formulas(case):
    name, settings = STEPS[case]
    wanted = Reference(name, **settings).step(choices.expected(name, False))
    check(name, step(name, **settings), wanted)


@pytest.mark.parametrize("name", ["trees", "shared"])
def test_prior_counts_are_those_of_all_trees(name):
    circuit, params, _, _ = choices.model(name)
    count = cases.jit(
        lambda p: prior_counts(circuit.layout, normalize(circuit.layout, p))
    )
    pairs = zip(
        *map(jax.tree.leaves, (count(params), choices.prior(name))), strict=True
    )
    for result, wanted in pairs:
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-6)


def test_sums_visited_as_often_as_expected_take_the_same_step():
    """Counts of samples without data: those of N examples of which nothing is known."""
    counts = choices.expected("trees", False)
    edges = jax.tree.map(lambda a: 7 * a, choices.prior("trees"))
    rng = np.random.default_rng(0)

    def stirred(count, num_kept):
        """The same mass for every sum, spread by other weights."""
        axes = tuple(range(num_kept, count.ndim))
        share = rng.uniform(size=count.shape)
        share /= share.sum(axes, keepdims=True)
        return share * count.sum(axes, keepdims=True)

    edges = edges._replace(
        sums=jax.tree.map(lambda a: stirred(a, 2), edges.sums),
        mixtures=jax.tree.map(lambda a: stirred(a, 2), edges.mixtures),
        classes=stirred(edges.classes, 0),
        leaves=tuple(
            (tuple(0.3 * mass + 0 * s for s in statistics), mass + 0 * own)
            for (statistics, own), mass in zip(counts.leaves, edges.leaves, strict=True)
        ),
    )
    plain = results("trees", step("trees", edges, step_size=0.3))
    rescaled = results("trees", step("trees", edges, step_size=0.3, rescale=True))
    for a, b in zip(plain, rescaled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_schedule_is_the_number_that_it_gives():
    circuit, params, x, _ = choices.model("trees")
    counts = choices.expected("trees", False)
    optimizer = pc.em(circuit, step_size=lambda t: jnp.where(jnp.equal(t, 0), 0.3, 0.1))
    traces = []

    @cases.jit
    def move(state, params):
        traces.append(1)
        change, state = optimizer.update(counts, state, params)
        return state, optax.apply_updates(params, change)

    state, first = move(optimizer.init(params), params)
    _, second = move(state, first)
    assert len(traces) == 1
    for start, result, size in ((params, first, 0.3), (first, second, 0.1)):
        wanted = step("trees", params=start, step_size=size)
        for a, b in zip(*map(jax.tree.leaves, (result, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_momentum_averages_counts_without_bias():
    """Of Normal leaves, too, whose counts are about means that move in between."""
    name, decay = "channels", 0.9
    circuit, params, _, _ = choices.model(name)
    first = choices.expected(name, False)
    second = jax.tree.map(lambda a: 0.5 * a, first)
    optimizer = pc.em(circuit, momentum=decay)

    @cases.jit
    def move(counts, state, params):
        change, state = optimizer.update(counts, state, params)
        return state, optax.apply_updates(params, change)

    def mean(a, b):
        return (decay * a + b) / (decay + 1)

    state, moved = move(first, optimizer.init(params), params)
    check(name, moved, Reference(name).step(first))
    _, last = move(second, state, moved)
    # A step of 1 by the mean of both, their statistics about 0.
    wanted = Reference(name).step(jax.tree.map(mean, first, second))[:-3]
    blocks = circuit.layout.blocks
    places = zip(
        blocks, params.leaves, moved.leaves, first.leaves, second.leaves, strict=True
    )
    for block, before, after, *counts in places:
        is_normal = isinstance(block.leaf, pc.Normal)
        centers = (before.mean, after.mean) if is_normal else (0.0, 0.0)
        pairs = zip(counts, centers, strict=True)
        powers = [raw(*count, center=center) for count, center in pairs]
        mass = mean(counts[0][1], counts[1][1])
        wanted += [mean(a, b) / mass for a, b in zip(*powers, strict=True)]
    check(name, last, wanted)


@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
def test_counts_in_parts_are_those_of_all(is_masked):
    """Ten examples in parts of at most four: three parts, the last with padding."""
    circuit, params, x, observed = choices.model("channels")
    observed = observed if is_masked else None
    counts = pc.expected_counts(circuit, params, x, observed, batch_size=4)
    for a, b in zip(
        *map(jax.tree.leaves, (counts, choices.expected("channels", is_masked))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_counts_go_in_parts_where_levels_do_not_fit_in_the_cache(monkeypatch):
    """Two parts of five where nothing fits, one where everything does; equal counts."""
    circuit, params, x, _ = choices.model("channels")
    assert len(x) == 10
    whole = counts_module._num_parts(circuit.layout, len(x), 4)
    monkeypatch.setattr(counts_module, "_CACHE", 0)
    monkeypatch.setattr(counts_module, "_PART", 5)
    parts = counts_module._num_parts(circuit.layout, len(x), 4)
    is_cpu = jax.default_backend() == "cpu"
    assert (whole, parts) == (1, 2 if is_cpu else 1)
    counts = pc.expected_counts(circuit, params, x)
    for a, b in zip(
        *map(jax.tree.leaves, (counts, choices.expected("channels", False))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_weights_of_zero_stay_zero():
    """Whatever is smoothed towards; and nothing becomes NaN."""
    circuit, params, _, _ = choices.model("shared")
    params = cases.with_zeros(circuit, params, 3, 0.3)
    counts = choices.expected("shared", False)
    for towards in ("uniform", "marginal"):
        new = step("shared", counts, params, pseudocount=2.0, smooth_towards=towards)
        for a, b in zip(*map(jax.tree.leaves, (params, new)), strict=True):
            np.testing.assert_array_equal(np.isneginf(a), np.isneginf(b))
            assert not np.isnan(b).any()


WRONG = {
    "momentum must be in [0, 1), got 1.0": {"momentum": 1},
    "momentum must be a finite number, got 'fast'": {"momentum": "fast"},
    "pseudocount must be at least 0, got -1.0": {"pseudocount": -1},
    "leaf_pseudocount must be at least 0, got -2.0": {"leaf_pseudocount": -2},
    "smooth_towards must be among": {"smooth_towards": "others"},
    "leaf_spread must be from 0 to 20.0, got 21.0": {"leaf_spread": 21},
    "leaf_spread must be 0 for leaves that are no tables": {"leaf_spread": 1},
    "rescale must be True or False, got 1": {"rescale": 1},
    "smooth_towards must not be 'uniform' for leaves without": {
        "smooth_towards": "uniform",
        "pseudocount": 1,
    },
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_settings_are_named(words):
    circuit, _, _, _ = choices.model("channels")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are below)
        pc.em(circuit, **WRONG[words])
    assert str(caught.value).startswith(words)


def test_wrong_updates_are_named():
    circuit, params, x, _ = choices.model("channels")
    optimizer = pc.em(circuit)
    with pytest.raises(ValueError, match="updates must be expected counts"):
        optimizer.update(params, optimizer.init(params), params)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        pc.expected_counts(circuit, params, x, batch_size=0)


def test_a_leaf_counts_for_neighboring_values():
    """One value was seen: the table is the Gaussian around it, cut at the range."""
    circuit = pc.build(pc.CircuitConfig(pc.RandomBinaryTrees(2, 1), pc.Categorical(7)))
    params = circuit.init(jax.random.key(0))
    x = np.full((5, 2, 1), 5.0)
    optimizer = pc.em(circuit, leaf_spread=0.8)

    @cases.jit
    def move(params):
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = optimizer.update(counts, optimizer.init(params), params)
        return optax.apply_updates(params, change)

    (leaf,) = move(params).leaves
    wanted = np.exp(-0.5 * ((np.arange(7) - 5) / 0.8) ** 2)
    wanted[:2] = 0  # beyond three deviations
    table = jax.nn.softmax(leaf.logits, axis=-1)
    np.testing.assert_allclose(table[0, 0, 0, 0], wanted / wanted.sum(), atol=1e-6)


def test_numbers_may_be_traced():
    """One program for all values, and the same step."""
    circuit = pc.build(
        pc.CircuitConfig(pc.RandomBinaryTrees(4, 1, 1), pc.Categorical(3), num_sums=2)
    )
    x = jax.random.randint(jax.random.key(0), (20, 4, 1), 0, 3).astype(np.float32)
    params = circuit.init(jax.random.key(1), x)
    counts = pc.expected_counts(circuit, params, x)
    names = ("step_size", "pseudocount", "leaf_pseudocount")

    def change(*values):
        em = pc.em(
            circuit,
            **dict(zip(names, values, strict=True)),
            smooth_towards="marginal",
        )
        return em.update(counts, em.init(params), params)[0]

    compiled: Any = jax.jit(change)
    compiled(*jnp.float32([0.5, 2.0, 0.0]))
    values = (0.75, 0.25, 1.5)
    expected = jax.jit(lambda: change(*values))()
    chex.assert_trees_all_close(compiled(*jnp.float32(values)), expected, atol=1e-6)
    assert compiled._cache_size() == 1
    for n, name in enumerate(names):
        wrong = [jnp.ones(2 if n == m else (), jnp.float32) for m in range(3)]
        with pytest.raises(ValueError, match=f"{name} must be a number, got"):
            compiled(*wrong)
