"""The public functions: transformations, traces, initialisation and bad input."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import parameters
from tests import cases

_SIZES = {"num_leaves": 2, "num_sums": 2, "num_classes": 2}
CONFIG = pc.CircuitConfig(
    pc.RandomBinaryTrees(2, 1, 2), pc.UnitNormal(), **_SIZES, sum_layer="tucker"
)
CIRCUIT = pc.build(CONFIG)
PARAMS = cases.random_params(CIRCUIT, seed=1)
OTHER = cases.random_params(CIRCUIT, seed=2)
X = jnp.array([[[1.0], [0.3]], [[2.0], [-0.5]], [[0.0], [2.0]]])
OBSERVED = jnp.array([[True, False], [False, True], [True, True]])


def _soft(key, params, **options):
    return CIRCUIT.sample_differentiable(jax.random.clone(key), params, **options)


def _hard(key, params, *given):
    return CIRCUIT.sample(jax.random.clone(key), params, *given)


QUERIES = {
    "log_prob": lambda p, key, x, seen: CIRCUIT.log_prob(p, x),
    "class_log_probs": lambda p, key, x, seen: CIRCUIT.class_log_probs(p, x, seen),
    "class_posterior": lambda p, key, x, seen: CIRCUIT.class_posterior(p, x, seen),
    "sample": lambda p, key, x, seen: _hard(key, p),
    "conditional": lambda p, key, x, seen: _hard(key, p, x, seen),
    "mpe": lambda p, key, x, seen: CIRCUIT.mpe(p, x, seen),
    "soft": lambda p, key, x, seen: _soft(key, p, temperature=0.5),
    "soft conditional": lambda p, key, x, seen: _soft(
        key, p, x=x, observed=seen, relaxation="straight_through"
    ),
}
# All are folded by the same rules: some are enough where these are what is tested.
some_or_all = pytest.mark.parametrize(
    "names",
    [
        ("log_prob", "soft conditional"),
        pytest.param(tuple(QUERIES), marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)


def queries(params, key, x, observed, names=tuple(QUERIES)):
    """Public functions of one example, by name."""
    return {name: QUERIES[name](params, key, x, observed) for name in names}


def batch_of(names):
    return jax.vmap(functools.partial(queries, names=names), (None, 0, 0, 0))


@functools.cache
def loop_of(names):
    """One example after the other."""
    return looped(functools.partial(queries, names=names), PARAMS)


def total(params, key, x, observed):
    """A scalar to which every query contributes, each in its own measure."""
    hard = ("sample", "conditional", "mpe")  # no gradient passes these
    out = queries(params, key, x, observed)
    out = {name: values for name, values in out.items() if name not in hard}
    measures = np.random.default_rng(0).normal(size=len(out))
    return sum(
        m * jnp.sum(jnp.sin(q)) for m, q in zip(measures, out.values(), strict=True)
    )


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=3e-4, atol=3e-5), a, b
    )


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def first(tree):
    return jax.tree.map(lambda a: a[0], tree)


def keys():
    return jax.random.split(jax.random.key(5), 3)


def looped(function, params):
    """One example after the other."""
    single = cases.jit(function)
    rows = zip(keys(), X, OBSERVED, strict=True)
    return stack([single(params, *row) for row in rows])


# What has evidence has all that its like without evidence has.
GIVEN = ("log_prob", "class_posterior", "conditional", "mpe", "soft conditional")


@pytest.mark.parametrize(
    ("compiled", "names"),
    [
        (cases.jit, GIVEN),
        pytest.param(cases.jit, tuple(QUERIES), marks=pytest.mark.slow),
        pytest.param(lambda batch: batch, tuple(QUERIES), marks=pytest.mark.slow),
    ],
    ids=["given", "all", "eager"],
)
def test_batches_are_loops(compiled, names):
    function = compiled(batch_of(names))
    assert_same(function(PARAMS, keys(), X, OBSERVED), loop_of(names))


@some_or_all
def test_batches_of_batches_are_loops(names):
    nested = cases.jit(jax.vmap(batch_of(names), (None, 0, 0, 0)))
    rows = (a.reshape(3, 1, *a.shape[1:]) for a in (keys(), X, OBSERVED))
    flat = jax.tree.map(lambda a: a[:, 0], nested(PARAMS, *rows))
    assert_same(flat, loop_of(names))


@some_or_all
def test_one_circuit_for_each_seed(names):
    seeds = cases.jit(jax.vmap(batch_of(names), (0, None, None, None)))
    both = seeds(stack([OTHER, PARAMS]), keys(), X, OBSERVED)
    assert_same(jax.tree.map(lambda a: a[1], both), loop_of(names))
    assert not np.allclose(both["log_prob"][0], both["log_prob"][1])


@pytest.mark.slow
def test_gradients_of_batches():
    """Gradient of a mean, mean of gradients, gradients one by one, one per seed."""

    def mean(params, keys, x, observed):
        return jnp.mean(jax.vmap(total, (None, 0, 0, 0))(params, keys, x, observed))

    singles = looped(jax.grad(total), PARAMS)
    each = cases.jit(jax.vmap(jax.grad(total), (None, 0, 0, 0)))
    assert_same(each(PARAMS, keys(), X, OBSERVED), singles)
    average = jax.tree.map(lambda a: a.mean(axis=0), singles)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(average))
    assert_same(cases.jit(jax.grad(mean))(PARAMS, keys(), X, OBSERVED), average)
    seeds = cases.jit(jax.vmap(jax.grad(mean), (0, None, None, None)))
    both = seeds(stack([PARAMS, OTHER]), keys(), X, OBSERVED)
    assert_same(first(both), average)


def test_gradients_of_values():
    """With respect to the values, by central differences."""
    log_prob = cases.jit(CIRCUIT.log_prob)
    gradient = cases.jit(jax.grad(CIRCUIT.log_prob, argnums=1))(PARAMS, X[0])
    step = np.zeros((2, 1), np.float32)
    step[1] = 1e-2
    numeric = (log_prob(PARAMS, X[0] + step) - log_prob(PARAMS, X[0] - step)) / 2e-2
    np.testing.assert_allclose(gradient[1, 0], numeric, rtol=2e-2)


def test_mapped_temperatures():
    """A temperature per example is a temperature like any other."""

    def soft(key, temperature):
        return CIRCUIT.sample_differentiable(key, PARAMS, temperature=temperature)

    single = cases.jit(soft)
    many = cases.jit(jax.vmap(soft))(keys(), jnp.array([0.1, 0.5, 1.0]))
    for i, temperature in enumerate((0.1, 0.5, 1.0)):
        assert_same(many[i], single(keys()[i], jnp.float32(temperature)))


def test_one_trace_for_all_batches():
    """A step function is traced once, whatever the values of its arguments."""
    traces = []

    @cases.jit
    def step(params, key, x, observed):
        traces.append(None)

        def loss(params):
            log_p = jax.vmap(CIRCUIT.log_prob, (None, 0, 0))(params, x, observed)
            return -jnp.mean(log_p)

        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    params = PARAMS
    for seed in range(3):
        params = step(params, jax.random.key(seed), X + 0.0 * seed, OBSERVED)
    assert len(traces) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_equal_configurations_share_functions():
    """So that jit finds its cache again."""
    again = pc.CircuitConfig(**{f: getattr(CONFIG, f) for f in CONFIG.__annotations__})
    assert again is not CONFIG
    assert pc.build(again) is pc.build(CONFIG)
    assert hash(again) == hash(CONFIG)
    assert CONFIG.structure.region_graph() == CONFIG.structure.region_graph()


def test_initialisation():
    """Float32, finite but for padding, another one for another key."""
    init = cases.jit(CIRCUIT.init)
    first, second = (init(jax.random.key(seed)) for seed in (0, 1))
    again = init(jax.random.key(0))
    shapes = parameters.shapes(CIRCUIT.layout)
    for leaf, shape in zip(*map(jax.tree.leaves, (first, shapes)), strict=True):
        assert leaf.shape == shape.shape
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()
    assert_same(first, again)
    different = [
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    ]
    assert sum(different) == len(different) - 1  # the classes start alike
    nested = pc.build(cases.DISCRETE["nested"])
    padded = cases.jit(nested.init)(jax.random.key(0)).mixtures[1]
    mixture = nested.layout.graph.levels[1].mixture
    assert mixture is not None
    for unit in range(padded.shape[1]):
        np.testing.assert_array_equal(padded[:, unit] == 0, mixture < 0)


def test_initialisation_from_data():
    """Leaves start at examples: the data are far likelier than under random leaves."""
    config = pc.CircuitConfig(
        pc.QuadTree(3, 3), pc.UnitNormal(), num_leaves=4, num_sums=4
    )
    circuit = pc.build(config)
    data = np.random.default_rng(0).normal(size=(50, 9, 1)).astype(np.float32)
    data = 0.5 + 0.05 * data

    @cases.jit
    def log_prob(params):
        return jnp.mean(jax.vmap(circuit.log_prob, (None, 0))(params, data))

    init = cases.jit(circuit.init)
    started = log_prob(init(jax.random.key(0), data))
    assert started > log_prob(init(jax.random.key(0))) + 9
    with pytest.raises(ValueError, match=r"data .*\(N, 9, 1\).*got \(50, 8, 1\)"):
        circuit.init(jax.random.key(0), data[:, :8])


X0, MASK, KEY = X[0], OBSERVED[0], jax.random.key(0)
BAD_CALLS = {
    "values": (lambda: CIRCUIT.log_prob(PARAMS, X), r"x .*\(2, 1\).*got \(3, 2, 1\)"),
    "flat values": (
        lambda: CIRCUIT.class_log_probs(PARAMS, X0[:1, 0]),
        r"x must have shape \[V, C\] = \(2, 1\).*got \(1, 1\)",
    ),
    "mask of floats": (
        lambda: CIRCUIT.log_prob(PARAMS, X0, MASK.astype(jnp.float32)),
        r"observed must be bool of shape \[V\] = \(2,\), got float32 of shape \(2,\)",
    ),
    "mask per channel": (
        lambda: CIRCUIT.class_posterior(PARAMS, X0, MASK[:, None]),
        r"observed .*got bool of shape \(2, 1\)",
    ),
    "raw key": (
        lambda: CIRCUIT.sample(jax.random.PRNGKey(0), PARAMS),
        "key must be one typed key, as from jax.random.key",
    ),
    "many keys": (
        lambda: CIRCUIT.sample(jax.random.split(KEY, 2), PARAMS),
        "key must be one typed key.*batch with jax.vmap",
    ),
    "no key": (
        lambda: CIRCUIT.sample(0, PARAMS),
        "key must be one typed key.*got 0",
    ),
    "x alone": (
        lambda: CIRCUIT.sample(KEY, PARAMS, x=X0),
        "observed must be given with the other of x and observed",
    ),
    "observed alone": (
        lambda: CIRCUIT.mpe(PARAMS, observed=MASK),
        "x must be given with the other of x and observed",
    ),
    "observed alone, soft": (
        lambda: CIRCUIT.sample_differentiable(KEY, PARAMS, observed=MASK),
        "x must be given with the other of x and observed",
    ),
    "relaxation": (
        lambda: CIRCUIT.sample_differentiable(KEY, PARAMS, relaxation="soft"),
        "relaxation must be one of .*gumbel_softmax.*got 'soft'",
    ),
    "hard relaxation": (
        lambda: CIRCUIT.sample_differentiable(KEY, PARAMS, relaxation="hard"),
        "relaxation must be one of .*got 'hard'",
    ),
    "temperature": (
        lambda: CIRCUIT.sample_differentiable(KEY, PARAMS, temperature=0.0),
        "temperature must be positive, got 0.0",
    ),
    "temperatures": (
        lambda: CIRCUIT.sample_differentiable(KEY, PARAMS, temperature=jnp.ones(2)),
        r"temperature must be a scalar.*got shape \(2,\)",
    ),
    "leaf mode": (
        lambda: CIRCUIT.sample(KEY, PARAMS, leaf_mode="mode"),
        r"leaf_mode must be one of \('sample', 'mean'\), got 'mode'",
    ),
    "shape of parameters": (
        lambda: CIRCUIT.log_prob(PARAMS._replace(classes=jnp.zeros(3)), X0),
        r"params.*classes must have shape \(2,\), got \(3,\).*another circuit",
    ),
    "tree of parameters": (
        lambda: CIRCUIT.sample(KEY, PARAMS._replace(mixtures=())),
        "params must have the structure.*another circuit",
    ),
    "structure": (
        lambda: pc.CircuitConfig("quad", pc.Bernoulli()),
        "structure .*got 'quad'",
    ),
    "leaf": (
        lambda: pc.CircuitConfig(pc.QuadTree(2, 2), "normal"),
        "leaf .*got 'normal'",
    ),
    "leaves": (
        lambda: pc.CircuitConfig(pc.QuadTree(2, 2), (pc.Bernoulli(),) * 3),
        r"leaf .*a tuple of 4, .*got a tuple of 3",
    ),
    "number": (
        lambda: pc.CircuitConfig(pc.QuadTree(2, 2), pc.Bernoulli(), num_sums=0),
        "num_sums must be at least 1, got 0",
    ),
    "sum layer": (
        lambda: pc.CircuitConfig(pc.QuadTree(2, 2), pc.Bernoulli(), sum_layer="x"),
        "sum_layer must be one of .*got 'x'",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_named(name):
    """The message names the argument, what is required, and what was given."""
    call, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        call()


@pytest.mark.parametrize(
    "relaxations",
    [
        ("gumbel_softmax",),
        pytest.param(("simple", "dense"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_given_values_come_back_bit_for_bit(relaxations):
    """Also those that no leaf could have drawn, and however improbable.

    From 1 to 60 deviations the repetitions differ by a nat to thousands of nats about
    the evidence: the gradients stay finite all the way.
    """
    line = -np.geomspace(0.5, 30.0, 60, dtype=np.float32)
    x = np.stack([line, np.full_like(line, np.nan)], axis=1)[..., None]
    observed = np.array([True, False])

    @cases.jit
    def answers(x, keys):
        def soft(params, x, relaxation):
            def draw(key, x):
                return CIRCUIT.sample_differentiable(
                    key, params, relaxation=relaxation, x=x, observed=observed
                )

            out = jax.vmap(draw)(jax.random.clone(keys), x)
            return jnp.sum(out[:, 1]), out

        drawn = [
            jax.grad(soft, (0, 1), has_aux=True)(PARAMS, x, relaxation)
            for relaxation in relaxations
        ]
        gradients, values = zip(*drawn, strict=True)
        hard = jax.vmap(CIRCUIT.sample, (0, None, 0, None))(keys, PARAMS, x, observed)
        best = jax.vmap(CIRCUIT.mpe, (None, 0, None))(PARAMS, x, observed)
        return gradients, (hard, best, *values)

    gradients, values = answers(x, cases.fresh_keys(0, 60))
    for value in values:
        np.testing.assert_array_equal(value[:, 0], x[:, 0])
        assert np.isfinite(value[:, 1]).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
