"""Tied parameters, against the circuit in which every copy has its own."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax import parameters
from dspc_jax.learning.counts import prior_counts
from tests import cases, oracles


def chain(length: int) -> pc.RegionGraph:
    """A hidden Markov chain: regions of 2t and 2t + 1 are suffix t and variable t."""
    builder = pc.RegionGraphBuilder(length)
    suffix = 0
    for t in range(length - 1):
        leaf = builder.add_region([t])
        rest = builder.add_region(range(t + 1, length))
        builder.add_partition(suffix, leaf, rest)
        suffix = rest
    last = builder.add_region([length - 1])
    builder.add_partition(suffix, last)
    return builder.build()


def markov(length: int) -> tuple[int, ...]:
    """Groups of `chain`: the root alone, all transitions, all variables."""
    return (0, *([2, 1] * (length - 1)), 2)


_base = pc.CircuitConfig(pc.QuadGraph(2, 2), pc.Bernoulli(), 1, 2, 2, 2)
TIED = {
    "levels": dataclasses.replace(
        _base, sum_layer="cp", tie_leaves="all", tie_sums="levels"
    ),
    "chain": dataclasses.replace(
        _base,
        structure=chain(5),
        sum_layer="cp_t",
        tie_leaves=(4, 4, 7, 4, 4),
        tie_sums=markov(5),
    ),
    "families": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 1, 2),
        (pc.Categorical(3), pc.Bernoulli(), pc.Bernoulli(), pc.Categorical(3)),
        *(1, 2, 3),
        sum_layer="tucker",
        tie_leaves="all",
    ),
    "mixed": dataclasses.replace(
        _base, structure=pc.PoonDomingos(2, 3, 1), tie_sums="levels"
    ),
    "pairs": dataclasses.replace(
        _base, structure=pc.QuadTree(2, 3), sum_layer="tucker", tie_sums="levels"
    ),
}
LONG = ("families", "pairs", "mixed")
some = pytest.mark.parametrize("name", cases.parameters(TIED, LONG))
chains = pytest.mark.parametrize("name", cases.parameters(TIED, (*LONG, "levels")))


def free(config: pc.CircuitConfig) -> pc.Circuit:
    """The circuit without ties."""
    return pc.build(dataclasses.replace(config, tie_leaves="none", tie_sums="none"))


def pairs(tied: pc.Circuit) -> list[tuple[Any, Any]]:
    """Places of arrays, free and tied, as paths of names and indices."""
    own, shared = map(pc.parameter_rows, (free(tied.config), tied))
    assert own.graph == shared.graph
    out = []
    for at in own.leaves:
        (i, row, place), (j, other, to) = own.leaves[at], shared.leaves[at]
        out.append((("leaves", i, row, place), ("leaves", j, other, to)))
    for a, b in zip(own.sums, shared.sums, strict=True):
        out.append((("sums", *a), ("sums", *b)))
    for a, b in zip(own.mixtures, shared.mixtures, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            out.append((("mixtures", *a), ("mixtures", *b)))
    return out


def at(tree: Any, place: tuple[Any, ...]) -> list[np.ndarray]:
    """Views of the arrays at a place."""
    kind, i, *rest = place
    if kind == "sums":
        return [tree.sums[i][rest[0]][rest[1]]]
    row, third = rest
    arrays = jax.tree.leaves(getattr(tree, kind)[i])
    return [a[row, :, third] for a in arrays]


def zeros(circuit: pc.Circuit) -> Any:
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    return jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)


def spread(tied: pc.Circuit, params: Any) -> Any:
    """Parameters of the free circuit, each copy with those of its group."""
    params = jax.tree.map(np.asarray, params)
    wide = zeros(free(tied.config))._replace(classes=params.classes)
    for own, shared in pairs(tied):
        for to, subject in zip(at(wide, own), at(params, shared), strict=True):
            to[...] = subject
    return wide


def added(tied: pc.Circuit, wide: Any) -> Any:
    """Sums over the copies of each group: of gradients or counts."""
    wide = jax.tree.map(np.asarray, wide)
    total = zeros(tied)
    for own, shared in pairs(tied):
        for to, subject in zip(at(total, shared), at(wide, own), strict=True):
            to[...] += subject
    return total._replace(classes=wide.classes)


@functools.cache
def model(name: str) -> tuple[pc.Circuit, Any, Any]:
    """A tied circuit, its parameters, and the same spread out."""
    circuit = pc.build(TIED[name])
    params = cases.random_params(circuit, seed=3)
    return circuit, params, spread(circuit, params)


def values(circuit: pc.Circuit) -> np.ndarray:
    return oracles.all_values(circuit).astype(np.float32)


def assert_close(a: Any, b: Any) -> None:
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=3e-4, atol=3e-5)


@some
def test_the_law_and_its_marginals_by_enumeration(name):
    circuit, params, wide = model(name)
    graph = pc.parameter_rows(circuit).graph
    kind = "tucker" if circuit.config.sum_layer == "tucker" else "cp_t"
    plain = dataclasses.replace(free(circuit.config).config, structure=graph)
    table = oracles.tabulate(pc.build(dataclasses.replace(plain, sum_layer=kind)), wide)
    x = values(circuit)
    masks = cases.masks(x.shape[1])
    rows = np.concatenate([x, x[: len(masks)]])
    visible = np.concatenate([np.ones(x.shape[:2], bool), masks])
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    result = np.exp(log_prob(params, rows, visible).astype(np.float64))
    wanted = [table.marginal(*pair) for pair in zip(rows, visible, strict=True)]
    np.testing.assert_allclose(result, wanted, rtol=1e-4)
    np.testing.assert_allclose(result[: len(x)].sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("name", cases.parameters(TIED, (*LONG, "chain", "levels")))
def test_queries_and_gradients_are_those_of_the_circuit_with_copies(name):
    """Draw for draw; the gradient of what is shared is the sum over its copies."""
    circuit, params, wide = model(name)
    x = values(circuit)[::3]
    observed = np.arange(x.shape[1]) % 2 == 0

    def queries(circuit, params, keys, x, observed):
        def one(key, x):
            soft = circuit.sample_differentiable(key, params, relaxation="simple")
            key = jax.random.clone(key)
            drawn = circuit.sample(key, params, x, observed, sharpness=1.5)
            mode = circuit.mpe(params, x, observed)
            posterior = circuit.class_posterior(params, x)
            mean = circuit.mean(params, x, observed)
            return posterior, mean, soft, drawn, mode

        return jax.vmap(one)(keys, x)

    def loss(circuit, params, x):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x)
        return jnp.sum(jnp.sin(log_p))

    @functools.partial(cases.jit, static_argnums=0)
    def of(circuit, params, x):
        keys = jax.random.split(jax.random.key(2), len(x))
        gradient = jax.grad(loss, 1)(circuit, params, x)
        return queries(circuit, params, keys, x, observed), gradient

    result, gradient = of(circuit, params, x)
    expected, copies = of(free(circuit.config), wide, x)
    assert_close(result, expected)
    assert_close(gradient, added(circuit, copies))


@chains
def test_counts_are_sums_over_copies_and_a_step_their_fractions(name):
    circuit, params, wide = model(name)
    x = values(circuit)[::2]
    plain = free(circuit.config)

    def both(circuit, params):
        weights = parameters.normalize(circuit.layout, params)
        prior = prior_counts(circuit.layout, weights)
        return pc.expected_counts(circuit, params, x), prior._replace(leaves=())

    count = functools.partial(cases.jit, static_argnums=0)(both)
    counts, prior = count(circuit, params)
    copies, prior_copies = count(plain, wide)
    for result, subject in ((counts, copies), (prior, prior_copies)):
        parts = added(circuit, subject._replace(leaves=zeros(plain).leaves))
        assert_close(result._replace(leaves=()), parts._replace(leaves=()))
    mass = [np.zeros_like(m) for _, m in counts.leaves]
    rows = pc.parameter_rows
    for leaf, (i, row, place) in rows(plain).leaves.items():
        j, to, _ = rows(circuit).leaves[leaf]
        mass[j][to, :, 0] += copies.leaves[i][1][row, :, place]
    assert_close([m for _, m in counts.leaves], mass)
    change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
    assert isinstance(change, type(params))
    new = jax.tree.map(np.add, params, change)
    for logits, own in zip(new.sums[0], counts.sums[0], strict=True):
        axes = tuple(range(2, own.ndim))
        share = own / own.sum(axes, keepdims=True)
        np.testing.assert_allclose(special.softmax(logits, axes), share, atol=1e-5)


@some
def test_the_likelihood_never_falls_in_em(name):
    circuit, params, _ = model(name)
    rng = np.random.default_rng(1)
    x = values(circuit)
    x = x[rng.choice(len(x), 40, p=rng.dirichlet(np.full(len(x), 0.3)))]
    em = pc.em(circuit)

    @cases.jit
    def step(params):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x)
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = em.update(counts, optax.EmptyState(), params)
        return jnp.sum(log_p), optax.apply_updates(params, change)

    totals = []
    for _ in range(8):
        total, params = step(params)
        totals.append(float(total))
    assert (np.diff(totals) > -1e-3).all()
    assert totals[-1] > totals[0] + 1


def test_momentum_and_rescaled_steps_take_tied_counts():
    circuit, params, _ = model("levels")
    em = pc.em(
        circuit,
        step_size=0.3,
        pseudocount=0.5,
        smooth_towards="marginal",
        momentum=0.5,
        rescale=True,
    )

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, values(circuit))
        change, _ = em.update(counts, em.init(params), params)
        return optax.apply_updates(params, change)

    new = step(params)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(new))


def test_rows_of_a_chain_and_of_an_image():
    """Every step of a hidden Markov chain has one transition, the last one too."""
    circuit = pc.build(TIED["chain"])
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    assert [a.shape for a in shapes.sums[0]] == [(2, 2, 2)]  # and the root's
    assert shapes.leaves[0].logits.shape == (2, 2, 1, 1)
    config = pc.CircuitConfig(
        pc.QuadTree(8, 8), pc.Categorical(4), 1, 3, 3, tie_sums="levels"
    )
    shapes = jax.eval_shape(pc.build(config).init, jax.random.key(0))
    # One for each of the levels below the root.
    assert sorted(a.shape for a in shapes.sums[0]) == [(1, 1, 3), (5, 3, 3)]


def test_mixtures_of_moved_regions_are_tied():
    """Of 2x3 pixels both rows: they enter one product, the two squares do not."""
    circuit = pc.build(TIED["mixed"])
    levels, own = circuit.layout.graph.levels, circuit.layout.mixtures
    pairs = [
        (len(level.mixture), len(mixture))
        for level, mixture in zip(levels, own, strict=True)
        if level.mixture is not None and mixture is not None
    ]
    assert pairs == [(4, 3), (1, 1)]


def test_groups_in_order_are_no_ties():
    """A group for each variable of a tree: the parameters of the circuit itself."""
    config = dataclasses.replace(TIED["pairs"], tie_sums="none", tie_leaves=range(6))
    tied, plain = pc.build(config), free(config)
    key = jax.random.key(0)
    assert_close(tied.init(key), plain.init(jax.random.clone(key)))


@pytest.mark.parametrize("name", TIED)
def test_a_file_comes_back_tied(name, tmp_path):
    circuit, params, _ = model(name)
    pc.save(tmp_path / "tied.npz", circuit.config, params)
    config, loaded = pc.load(tmp_path / "tied.npz")
    assert config == circuit.config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_file_of_version_4_is_not_tied(tmp_path):
    """Its configuration does not know of ties."""
    circuit = free(TIED["chain"])
    params = cases.random_params(circuit, seed=0)
    pc.save(tmp_path / "new.npz", circuit.config, params)
    with np.load(tmp_path / "new.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes()) | {"version": 4}
    assert {header["config"].pop(f"tie_{part}") for part in ("leaves", "sums")} == {
        "none"
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    config, loaded = pc.load(tmp_path / "old.npz")
    assert config == circuit.config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


MISTAKES = {
    "tie_leaves must be one of": {"tie_leaves": "some"},
    "tie_leaves must have 4 group numbers, got 3": {"tie_leaves": (0, 0, 1)},
    "tie_leaves must group variables of equal leaves": {
        "tie_leaves": [0, 0, 1, 1],
        "leaf": (pc.Bernoulli(), pc.Normal(), pc.Normal(), pc.Normal()),
    },
    "tie_sums must be one of": {"tie_sums": "all"},
    "tie_sums must have 8 group numbers, got 4": {"tie_sums": [0, 1, 2, 3]},
    "weights of one shape, got (1, 2) and (2, 2)": {"tie_sums": (0,) * 3 + (1,) * 4},
    "equally many partitions, got 1 of region 0 and 0": {"tie_sums": (0,) * 7},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_groups_that_do_not_fit(message):
    config = pc.CircuitConfig(chain(4), pc.Bernoulli(), 1, 2, 2)
    options: dict[str, Any] = dict(MISTAKES[message])
    if "weights" in message or "equally" in message:
        graph = pc.QuadTree(2, 2).region_graph()
        heights = np.argsort(-np.array(graph.heights), kind="stable")
        groups = np.zeros(7, int)
        groups[heights] = options["tie_sums"]
        options = {"tie_sums": groups, "structure": graph}
    with pytest.raises(ValueError, match=r".*") as error:
        pc.build(dataclasses.replace(config, **options))
    assert message in str(error.value)
