"""Chow-Liu trees as circuits, against the direct formula."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax.structure.trees_from_data import chow_liu_tree
from tests import cases, oracles

SIZES = (2, 4, 3, 2, 3)


def rows(num: int, seed: int = 0) -> np.ndarray:
    """Rows of variables of other cardinalities that depend on one another."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(12, size=num)
    noise = rng.integers(12, size=(num, len(SIZES)))
    kept = rng.random((num, len(SIZES))) < 0.6
    return np.where(kept, hidden[:, None], noise) % np.array(SIZES)


def reference(x, observed, parents, sizes, pseudocount) -> Any:
    """The direct formula: ``log p`` of a row, by dictionaries of counts."""

    def probability(v, value, parent=-1, given=None):
        there = observed[:, v]
        if parent >= 0:
            there = there & observed[:, parent] & (x[:, parent] == given)
        column = x[there, v]
        total = len(column) + pseudocount * sizes[v]
        if total == 0:
            return probability(v, value)
        return (np.sum(column == value) + pseudocount) / total

    def log_prob(row):
        p = 1.0
        for v, parent in enumerate(parents):
            p *= probability(v, row[v], parent, row[parent])
        return np.log(p) if p > 0 else -np.inf

    return log_prob


@functools.cache
def model(pseudocount: float, is_masked: bool) -> Any:
    x = rows(25)
    observed = np.ones(x.shape, bool)
    if is_masked:
        observed = np.random.default_rng(1).random(x.shape) < 0.7
    config, params = pc.chow_liu_tree(
        np.where(observed, x, np.nan),
        observed,
        num_values=SIZES,
        pseudocount=pseudocount,
        root=0,
    )
    # All values of a variable are seen: bins and values are the same.
    parents = chow_liu_tree(
        np.where(observed, x, np.nan), observed, pseudocount=pseudocount, root=0
    )
    return pc.build(config), params, x, observed, parents


@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("pseudocount", [0.0, 0.3])
def test_the_law_is_that_of_the_formula_and_adds_up_to_1(pseudocount, is_masked):
    circuit, params, x, observed, parents = model(pseudocount, is_masked)
    values = oracles.all_values(circuit)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    result = log_prob(params, values.astype(np.float32))
    of_row = reference(x, observed, parents, SIZES, pseudocount)
    wanted = [of_row(value[:, 0].astype(int)) for value in values]
    possible = np.isfinite(wanted)
    assert possible.all() == (pseudocount > 0)
    np.testing.assert_allclose(
        result[possible], np.array(wanted)[possible], rtol=1e-5, atol=1e-5
    )
    assert (result[~possible] < -60).all()
    np.testing.assert_allclose(np.exp(result).sum(), 1, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_marginals_and_explanations_are_exact():
    """Max-product as well: given all values, one term of every sum is not 0."""
    circuit, params, _, _, _ = model(0.3, False)
    table = oracles.tabulate(circuit, params)
    np.testing.assert_allclose(np.exp(table.best), table.probs, rtol=1e-6)
    x = table.values[::7].astype(np.float32)
    observed = np.resize(cases.masks(len(SIZES)), (len(x), len(SIZES)))
    queries = cases.jit(
        lambda params, x, observed: jax.vmap(
            lambda x, m: (circuit.log_prob(params, x, m), circuit.mpe(params, x, m))
        )(x, observed)
    )
    result, mode = queries(params, x, observed)
    for log_p, best, *query in zip(result, mode, x, observed, strict=True):
        np.testing.assert_allclose(np.exp(log_p), table.marginal(*query), rtol=1e-4)
        law = table.conditional(*query)
        (number,) = table.find(best[None])
        np.testing.assert_allclose(law[number], law.max(), rtol=1e-5)


def test_a_step_of_em_leaves_frequencies_as_they_are():
    circuit, params, x, _, _ = model(0.0, False)

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x[..., None])
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
        return optax.apply_updates(params, change)

    values = oracles.all_values(circuit).astype(np.float32)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    before, after = (log_prob(p, values) for p in (params, step(params)))
    np.testing.assert_allclose(np.exp(after), np.exp(before), rtol=1e-4, atol=1e-12)


def test_no_other_tree_is_better():
    """Of the same data, under every root and against trees that are drawn."""
    x = rows(200)
    totals = []
    for root in (0, 2, "center"):
        config, params = pc.chow_liu_tree(x, pseudocount=0, root=root)
        log_prob = cases.jit(jax.vmap(pc.build(config).log_prob, (None, 0)))
        totals.append(log_prob(params, x[..., None].astype(np.float32)).sum())
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)
    rng = np.random.default_rng(0)
    whole = np.ones(x.shape, bool)
    for _ in range(5):
        parents = [-1, *(rng.integers(v) for v in range(1, len(SIZES)))]
        of_row = reference(x, whole, parents, SIZES, 0.0)
        assert sum(map(of_row, x)) <= totals[0] + 1e-3


@pytest.mark.slow
def test_a_deep_tree_of_binary_variables_goes_into_a_file(tmp_path):
    rng = np.random.default_rng(0)
    x = np.zeros((300, 40), int)
    for v in range(1, 40):
        x[:, v] = np.where(
            rng.random(300) < 0.2, rng.integers(2, size=300), x[:, v - 1]
        )
    config, params = pc.chow_liu_tree(x, pseudocount=0.5)
    pc.save(tmp_path / "tree.npz", config, params)
    stored, loaded = pc.load(tmp_path / "tree.npz")
    assert stored == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    circuit = pc.build(config)
    result = jax.vmap(circuit.log_prob, (None, 0))(params, x[..., None])
    parents = chow_liu_tree(x, pseudocount=0.5)
    of_row = reference(x, np.ones(x.shape, bool), parents, [2] * 40, 0.5)
    np.testing.assert_allclose(result, [of_row(row) for row in x], rtol=1e-4)
    keys = jax.random.split(jax.random.key(0), 4)
    samples = jax.vmap(circuit.sample, (0, None))(keys, params)
    assert np.isin(samples, [0, 1]).all()


def test_columns_of_one_value_and_of_none():
    x = np.array([[0, 3, 0], [1, 3, 0], [0, 3, 0]])
    observed = np.array([[True, True, False]] * 3)
    config, params = pc.chow_liu_tree(x, observed, pseudocount=0)
    assert [leaf.support[1] for leaf in config.leaves] == [1, 3, 1]
    log_p = pc.build(config).log_prob(params, np.array([[0.0], [3], [1]]))
    np.testing.assert_allclose(np.exp(log_p), 2 / 3 * 1 / 2, rtol=1e-6)


X = np.array([[0, 1], [2, 1]])


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X + 0.5, {}, "x must be whole numbers .* got 0.5 in row 0 of column 0"),
        (X - 1, {}, "x must be whole numbers from 0 .* got -1 in row 0 of column 0"),
        (X + 255, {}, "x must be whole numbers from 0 to 255 .* got 256 in row 0"),
        (X[:1], {}, "x must hold at least two examples, got 1"),
        (X[..., None].repeat(2, 2), {}, r"x must have shape \[N, V\] .*got"),
        (X, {"num_values": 2}, "num_values must be from 3 to 256 of variable 0, got 2"),
        (X, {"num_values": (3, 257)}, "from 2 to 256 of variable 1, got 257"),
        (X, {"num_values": (3,)}, "num_values must be a number or 2 of them.* got 1"),
        (X, {"num_values": 2.5}, "num_values must be a whole number, got 2.5"),
        (X, {"pseudocount": -1}, "pseudocount must be at least 0, got -1.0"),
        (X, {"root": 2}, r"root must be .* a variable 0..1, got 2"),
    ],
)
def test_what_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        pc.chow_liu_tree(x, **options)
