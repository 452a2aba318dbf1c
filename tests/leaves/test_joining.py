"""Leaves of one family with other configurations: as if each had its own arrays.

Tables and laws by enumeration are those of the circuit "mixed" of `tests.cases`; long
tests of all queries have it as well.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax import parameters, queries, registry, serialization
from dspc_jax.layers import input_layer
from dspc_jax.leaves import joining
from tests import cases, oracles

TABLES = (pc.Categorical(2), pc.Binomial(3), pc.Categorical(4), pc.Binomial(1))
COUNTS = pc.CircuitConfig(
    pc.RandomBinaryTrees(4, 1, 2), TABLES, num_leaves=2, num_sums=2, num_classes=2
)
NORMALS = pc.CircuitConfig(
    pc.RandomBinaryTrees(3, 1, 2),
    (pc.Normal(0.1), pc.Normal(0.01, 10.0), pc.Normal(0.5, 2.0, (3.0, 1.0))),
    num_leaves=2,
    num_sums=2,
)


def apart(config: pc.CircuitConfig) -> parameters.Layout:
    """A circuit in which every distinct leaf has arrays of its own."""
    layout = pc.build(config).layout
    groups = joining.equal(config.leaves)
    blocks = input_layer.make_blocks(layout.graph.input_scopes, config.leaves, groups)
    return dataclasses.replace(layout, blocks=blocks)


def both(config: pc.CircuitConfig) -> tuple[Any, Any]:
    """Parameters apart, and the same joined."""
    old, new = apart(config), pc.build(config).layout
    shapes = parameters.shapes(old)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    params = cases.randomize(zeros, seed=1)
    leaves = input_layer.regrouped(
        old.blocks, params.leaves, new.blocks, parameters.shapes(new).leaves
    )
    return params, params._replace(leaves=leaves)


def padding(logits: Any, is_valid: bool = False) -> np.ndarray:
    """Which logits of the tables of `COUNTS` are beyond their leaf's values.

    With ``is_valid`` also all of the places that hold no variable.
    """
    block = pc.build(COUNTS).layout.blocks[0]
    sizes = np.array([getattr(leaf, "num_values", 0) for leaf in TABLES])[block.scopes]
    sizes = np.where(block.valid | (not is_valid), sizes, 0)[:, None, :, None, None]
    return np.broadcast_to(np.arange(logits.shape[-1]) >= sizes, logits.shape)


def test_a_family_is_one_block():
    blocks = pc.build(COUNTS).layout.blocks
    assert [list(block.variables) for block in blocks] == [[0, 2], [1, 3]]
    blocks = pc.build(NORMALS).layout.blocks  # a bound, and none, are other formulas
    assert [list(block.variables) for block in blocks] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        (range(2, 50), 1),
        ([10_000] + 299 * [3], 2),
        ([3, 100, 3, 10_000, 3, 60, 3], 3),
        ([7] * 9, 1),
    ],
)
def test_padding_costs_at_most_the_half(sizes, count):
    leaves = tuple(map(pc.Categorical, sizes))
    groups = joining.joinable(leaves)
    assert len(groups) == count
    assert sorted(v for group in groups for v in group) == list(range(len(leaves)))
    for group in groups:
        own = [leaves[v].num_values for v in group]
        assert len(own) * max(own) <= 2 * sum(own)


def test_a_table_of_many_columns_has_few_blocks():
    kinds = (pc.Categorical, pc.Binomial, pc.DiscretizedLogistic)
    leaves = [kinds[i % 3](2 + i) for i in range(225)]
    leaves += [pc.Normal(1e-3 * (1 + i), 10.0 + i) for i in range(75)]
    assert len(joining.joinable(leaves)) == 4


def test_families_of_users_are_joined_only_if_they_say_so():
    @dataclasses.dataclass(frozen=True)
    class Own(pc.Categorical):
        pass

    assert joining.joinable((Own(2), Own(3), Own(2))) == [[0, 2], [1]]
    assert joining.joinable((pc.UnitNormal(), pc.Normal(), pc.UnitNormal(0.1))) == [
        [0, 2],
        [1],
    ]
    ablation = pc.Binomial(3, "variance")
    assert joining.joinable((pc.Binomial(2), ablation)) == [[0], [1]]


# Each way of the leaves into an answer: in evidence, drawn, blended, as their means.
SOME = ("marginal", "sample", "relaxed", "mean")


def queries_of(layout, names, params, x, observed, keys):
    """The answers of some queries, or of all, to a batch."""

    def answers(x, observed, key):
        def draw(**options):
            own = jax.random.clone(key)
            return queries.sample(layout, own, params, x, observed, **options)

        def soft(relaxation, **options):
            return queries.sample_differentiable(
                layout,
                jax.random.clone(key),
                params,
                x,
                observed,
                relaxation=relaxation,
                **options,
            )

        every = {
            "log_prob": lambda: queries.log_prob(layout, params, x),
            "marginal": lambda: queries.log_prob(layout, params, x, observed),
            "sample": draw,
            "leaf means": lambda: draw(leaf_mode="mean"),
            "relaxed": lambda: soft("gumbel_softmax", temperature=0.7),
            "relaxed means": lambda: soft("simple", leaf_mode="mean"),
            "dense": lambda: soft("dense"),
            "mpe": lambda: queries.mpe(layout, params, x, observed),
            "mean": lambda: queries.mean(layout, params, x, observed),
        }
        return {name: every[name]() for name in names or every}

    return jax.vmap(answers)(x, observed, keys)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("mixed", SOME),
        pytest.param("mixed", (), marks=pytest.mark.slow),
        pytest.param("normals", (), marks=pytest.mark.slow),
    ],
    ids=["some-mixed", "mixed", "normals"],
)
def test_every_query_answers_as_if_apart(name, names):
    config = NORMALS if name == "normals" else cases.DISCRETE["mixed"]
    params, joined = both(config)
    rng = np.random.default_rng(0)
    shape = (16, config.structure.num_variables)
    x = rng.normal(size=shape) if name == "normals" else rng.integers(0, 2, shape)
    rest = (jnp.asarray(x, jnp.float32)[..., None], rng.random(shape) < 0.5)
    ask = cases.jit(queries_of, static_argnums=(0, 1))
    keys = cases.fresh_keys
    result = ask(pc.build(config).layout, names, joined, *rest, keys(3, 16))
    expected = ask(apart(config), names, params, *rest, keys(3, 16))
    for query, answer in expected.items():
        np.testing.assert_allclose(
            result[query], answer, rtol=2e-5, atol=2e-5, err_msg=query
        )


@functools.cache
def counted() -> oracles.Table:
    return oracles.tabulate(pc.build(COUNTS), both(COUNTS)[1])


def test_likelihoods_are_those_of_the_enumeration():
    circuit, (_, params) = pc.build(COUNTS), both(COUNTS)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, None)))
    values = jnp.asarray(counted().values, jnp.float32)
    everything, some = jnp.ones(4, bool), jnp.array([True, False, True, False])
    result = np.exp(log_prob(params, values, everything))
    np.testing.assert_allclose(result, counted().probs, rtol=1e-4)
    np.testing.assert_allclose(result.sum(), 1, rtol=1e-5)
    marginals = [counted().marginal(x, np.asarray(some)) for x in counted().values]
    np.testing.assert_allclose(
        np.exp(log_prob(params, values, some)), marginals, rtol=1e-4
    )


def test_values_of_a_greater_leaf_are_impossible():
    """In the likelihood, and in the gradient, which is 0; NaN stays NaN."""
    circuit, (_, params) = pc.build(COUNTS), both(COUNTS)
    x = np.zeros((5, 4), np.float32)
    x[np.arange(4), [0, 1, 2, 3]] = [2, 4, 4, 2]  # the least that are impossible
    x[4, 0] = np.nan
    slopes = cases.jit(jax.vmap(jax.value_and_grad(circuit.log_prob), (None, 0)))
    log_p, gradient = slopes(params, x[..., None])
    np.testing.assert_array_equal(log_p[:4], np.full(4, -np.inf))
    assert np.isnan(log_p[4])
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf[:4], np.zeros_like(leaf[:4]))


def test_samples_follow_the_law():
    """Statistical; a value beyond a leaf's own would be a contradiction (p = 0)."""
    circuit, (_, params) = pc.build(COUNTS), both(COUNTS)
    draw = cases.jit(jax.vmap(circuit.sample, (0, None)))
    samples = draw(cases.fresh_keys(1, 4096), params)
    assert oracles.law_p_value(counted(), samples, counted().probs) > 1e-4


def test_the_best_value_and_the_mean_are_those_of_the_enumeration():
    circuit, (_, params) = pc.build(COUNTS), both(COUNTS)
    best, mean = cases.jit(lambda p: (circuit.mpe(p), circuit.mean(p)))(params)
    table = counted()
    (index,) = table.find(best[None])
    np.testing.assert_allclose(table.best[index], table.best.max(), rtol=1e-5)
    exact = np.einsum("s,svc->vc", table.probs, table.values)
    np.testing.assert_allclose(mean, exact, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [COUNTS, pytest.param(NORMALS, marks=pytest.mark.slow)],
    ids=["counts", "normals"],
)
@pytest.mark.optax
def test_a_step_of_em_is_the_same(config):
    """And it, as every gradient, leaves the padding alone."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2, (20, config.structure.num_variables)), float)
    old, new = apart(config), pc.build(config).layout
    params, joined = both(config)

    @functools.partial(cases.jit, static_argnums=0)
    def step(layout, params):
        circuit = dataclasses.replace(pc.build(config), layout=layout)
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
        return optax.apply_updates(params, change)

    expected, result = step(old, params), step(new, joined)
    moved = input_layer.regrouped(
        old.blocks, expected.leaves, new.blocks, parameters.shapes(new).leaves
    )
    for a, b in zip(
        jax.tree.leaves(result),
        jax.tree.leaves(expected._replace(leaves=moved)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    if config == COUNTS:
        before, after = (np.asarray(p.leaves[0].logits) for p in (joined, result))
        np.testing.assert_array_equal(after[padding(before)], before[padding(before)])


@pytest.mark.slow
def test_padding_counts_for_nothing():
    """No query changes with it, and no gradient reaches it."""
    circuit, (_, params) = pc.build(COUNTS), both(COUNTS)
    table = params.leaves[0].logits
    is_padding = padding(table, is_valid=True)
    noise = np.random.default_rng(2).normal(size=table.shape)
    table = jnp.where(is_padding, jnp.asarray(noise, table.dtype), table)
    leaves = (params.leaves[0]._replace(logits=table), *params.leaves[1:])
    changed = params._replace(leaves=leaves)

    def total(params, key):
        drawn = circuit.sample_differentiable(key, params)
        log_p = circuit.log_prob(params, jnp.zeros(4))
        return log_p + drawn.sum() + circuit.mean(params).sum() + circuit.mpe(params)[0]

    slopes = cases.jit(jax.value_and_grad(lambda *args: total(*args).sum()))
    values = [slopes(p, jax.random.key(0)) for p in (params, changed)]
    assert values[0][0] == values[1][0]
    gradient = np.asarray(values[1][1].leaves[0].logits)
    np.testing.assert_array_equal(gradient[is_padding], 0)
    assert (gradient[~is_padding] != 0).all()


@pytest.mark.parametrize("data", [None, np.zeros((5, 4)), np.ones((5, 4))])
def test_padding_starts_at_zero(data):
    params = pc.build(COUNTS).init(jax.random.key(0), data)
    logits = np.asarray(params.leaves[0].logits)
    np.testing.assert_array_equal(logits == 0, padding(logits))


@pytest.mark.slow
def test_implicit_gradients_are_the_same():
    config = NORMALS
    params, joined = both(config)

    @functools.partial(cases.jit, static_argnums=0)
    def slopes(layout, params):
        def total(params):
            drawn = queries.sample_differentiable(
                layout, jax.random.key(2), params, relaxation="implicit"
            )
            return jnp.sum(jnp.sin(drawn))

        return jax.grad(total)(params)

    expected, result = (
        slopes(apart(config), params),
        slopes(pc.build(config).layout, joined),
    )
    for a, b in zip(
        jax.tree.leaves((result.sums, result.classes)),
        jax.tree.leaves((expected.sums, expected.classes)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_scales_in_other_units_are_reached():
    """Columns of deviations 1 and 100,000, each with bounds of its own."""
    x = np.random.default_rng(0).normal(size=(500, 2, 1)) * [[1], [1e5]]
    leaves = (pc.Normal(0.01, 10.0), pc.Normal(100.0, 1e6))
    trees = pc.RandomBinaryTrees(2, 0)
    circuit = pc.build(pc.CircuitConfig(trees, leaves, num_leaves=1))
    (block,) = circuit.layout.blocks
    params = circuit.init(jax.random.key(0), x)

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
        return optax.apply_updates(params, change)

    for _ in range(3):
        params = step(params)
    scale = block.leaf.components(params.leaves[0])[1]
    np.testing.assert_allclose(scale.ravel(), x.std(axis=0).ravel(), rtol=1e-3)


@pytest.mark.parametrize("config", [COUNTS, NORMALS], ids=["counts", "normals"])
def test_files_of_version_1_are_joined(config, tmp_path, monkeypatch):
    """In them every distinct leaf had arrays of its own."""
    params, joined = both(config)
    with monkeypatch.context() as patch:
        patch.setattr(serialization, "VERSION", 1)
        pc.save(tmp_path / "old", config, params)
    stored, loaded = pc.load(tmp_path / "old")
    assert stored == config
    pc.save(tmp_path / "new", config, joined)
    for tree in (loaded, pc.load(tmp_path / "new", config)[1]):
        assert jax.tree.structure(tree) == jax.tree.structure(joined)
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(joined), strict=True):
            assert isinstance(a, jax.Array)
            np.testing.assert_array_equal(a, b)
    assert registry.to_json(stored) == registry.to_json(config)


def test_types_of_parameters_stay():
    """Configurations of joined leaves are numbers of no type, as those of one are."""
    for config in (COUNTS, NORMALS, cases.DISCRETE["mixed"]):
        circuit = pc.build(config)
        half = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16),
            parameters.shapes(circuit.layout),
        )
        weights = jax.eval_shape(
            functools.partial(parameters.normalize, circuit.layout), half
        )
        types = {leaf.dtype for leaf in jax.tree.leaves(weights)}
        assert types == {jnp.dtype(jnp.bfloat16)}
