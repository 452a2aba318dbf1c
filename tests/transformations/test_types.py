"""Every function in every type of parameters: float32, float64, bfloat16.

Float64 is held against enumeration by NumPy and against slopes, at the digits that
float64 has; the others against what they round.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases, oracles
from tests.transformations import functions

# Likelihoods are below, against enumeration.
FAST = (
    "normal/sample_differentiable, gumbel_softmax, given",
    "discrete/sample, given",
)
# Their derivative is the slope of their value, leaves and choices included.
SMOOTH = (
    *(
        f"{circuit}/{name}"
        for circuit in ("normal", "discrete")
        for name in functions.SMOOTH
    ),
    *(
        f"normal/sample_differentiable, {relaxation}{evidence}"
        for relaxation in ("gumbel_softmax", "dense")
        for evidence in ("", ", given")
    ),
)


def rows(fast=FAST, names=tuple(functions.CASES)):
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def params_of(circuit, dtype):
    """The same random numbers, rounded to the type."""
    numbers = functions.params_of(circuit, seed=1)
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(dtype)), numbers)


def value_and_gradients(name, dtype):
    """The row's value, and the gradients in parameters and values."""
    circuit, _ = functions.case(name)
    x = np.asarray(functions.example(circuit).x)
    return function_of(name), params_of(circuit, dtype), jnp.asarray(x.astype(dtype))


@functools.cache
def function_of(name):
    circuit, row = functions.case(name)
    one = functions.example(circuit)

    def total(params, x):
        out = row(params, one._replace(x=x))
        weight = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return jnp.sum(out * weight), out

    return cases.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def types(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("name", rows(FAST[:1]))
def test_float64_is_float64_throughout(name):
    """The same draws as in float32, and slopes to 1e-7."""
    function, params, x = value_and_gradients(name, jnp.float32)
    (_, near), _ = function(params, x)
    with jax.enable_x64(True):
        function, params, x = value_and_gradients(name, jnp.float64)
        (_, value), gradients = function(params, x)
        assert types((value, gradients)) == {"float64"}
        np.testing.assert_allclose(value, near, rtol=1e-4, atol=1e-5)
        if name in SMOOTH:
            count = 2 if name.startswith("normal") else 1  # other values are numbers
            moving = ((params, x)[:count], gradients[:count])
            assert_slopes(lambda p, x=x: function(p, x), *moving)


def assert_slopes(function, arguments, gradients):
    """Along one direction, from both sides; the error of a slope is of order h**4."""
    arguments = jax.tree.map(np.asarray, arguments)
    tangents = jax.tree.map(
        lambda a: np.cos(np.arange(a.size, dtype=a.dtype)).reshape(a.shape), arguments
    )
    h = 1e-4

    def at(step):
        moved = jax.tree.map(lambda a, t: a + step * h * t, arguments, tangents)
        return function(*moved)[0][0]

    slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
    terms = jax.tree.map(lambda g, t: np.sum(g * t), tuple(gradients), tangents)
    along = sum(jax.tree.leaves(terms))
    assert along != 0
    np.testing.assert_allclose(along, slope, rtol=1e-7)


def chain(length):
    """A tree as deep as it has variables: its levels are computed in steps."""
    builder = pc.RegionGraphBuilder(length)
    region = builder.add_region([length - 1])
    for first in range(length - 2, -1, -1):
        whole = builder.add_region(range(first, length)) if first else 0
        builder.add_partition(whole, builder.add_region([first]), region)
        region = whole
    circuit = pc.build(pc.CircuitConfig(builder.build(), pc.Normal(), 1, 2, 2, 2))
    levels = circuit.layout.graph.levels
    assert any(fold.steps is not None for level in levels for fold in level.folds)
    return circuit


def joined():
    """Leaves of one family, differently configured, in one block each."""
    leaves = (
        *(pc.Categorical(3), pc.Categorical(4), pc.Binomial(2), pc.Binomial(3)),
        *(pc.DiscretizedLogistic(3), pc.DiscretizedLogistic(4)),
        *(pc.Normal(), pc.Normal(0.1, 8.0)),
    )
    structure = pc.RandomBinaryTrees(len(leaves), 1, 2)
    circuit = pc.build(pc.CircuitConfig(structure, leaves, 1, 2, 2, 2))
    assert len(circuit.layout.blocks) < len(leaves)
    return circuit


STRUCTURES = {"steps": lambda: chain(12), "joined": joined}


@pytest.mark.parametrize(
    "name",
    rows(
        (),
        tuple(
            f"{structure}/{row}"
            for structure in STRUCTURES
            for row in (
                *("class_log_probs", "sample", "sample, given", "mpe", "mean"),
                "sample_differentiable, gumbel_softmax, given",
            )
        ),
    ),
)
def test_other_structures_have_types_as_well(name):
    """Also where x64 comes after they have been used without it."""
    structure, row = name.split("/")
    circuit = STRUCTURES[structure]()
    one = functions.example(circuit)

    def total(params, x):
        return jnp.sum(functions.ROWS[row](circuit, params, one._replace(x=x)))

    function = cases.jit(jax.value_and_grad(total, (0, 1)))
    near = function(params_of(circuit, "float32"), one.x)
    with jax.enable_x64(True):
        again = function(params_of(circuit, "float32"), one.x)
        jax.tree.map(close, again, near)
        x = np.asarray(one.x, np.float64)
        values = function(params_of(circuit, "float64"), x)
        assert types((again, values)) == {"float32", "float64"}
        assert types(values) == {"float64"}
        jax.tree.map(lambda a, b: close(a, b, 1e-3), values, near)


@pytest.mark.parametrize("name", ["normal", "discrete"])
def test_float64_against_enumeration(name):
    circuit = functions.circuits()[name]
    one = functions.example(circuit)
    x, observed = np.asarray(one.x, np.float64), np.asarray(one.observed)
    x = x + (1 / 3 if name == "normal" else 0)  # no float32 number
    with jax.enable_x64(True):
        params = params_of(circuit, np.float64)
        oracle = oracles.Oracle(circuit, params)
        for mask in (np.ones_like(observed), observed):
            law = oracle.log_prob(x[None], mask)[0]
            classes = oracle.class_log_probs(x[None], mask)[:, 0]
            posterior = oracle.class_posterior(x[None], mask)[:, 0]
            values = cases.jit(
                lambda p, x, m: (
                    circuit.log_prob(p, x, m),
                    circuit.class_log_probs(p, x, m),
                    circuit.class_posterior(p, x, m),
                )
            )(params, x, mask)
            for got, wanted in zip(values, (law, classes, posterior), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-10)
        if name == "discrete":
            table = oracles.tabulate(circuit, params)
            share = table.conditional(x, observed)
            mean = np.tensordot(share, table.values, 1)
            got = cases.jit(circuit.mean)(params, x, observed)
            np.testing.assert_allclose(got, mean, rtol=1e-10)


@pytest.mark.parametrize("name", rows(FAST[:1]))
def test_float32_is_the_same_with_x64_and_without(name):
    function, params, x = value_and_gradients(name, jnp.float32)
    wanted = function(params, x)
    with jax.enable_x64(True):
        function, params, x = value_and_gradients(name, jnp.float32)
        got = function(params, x)
        assert types(got) == {"float32"}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", rows(FAST[:1]))
def test_bfloat16_is_computed_in_float32(name):
    function, params, x = value_and_gradients(name, jnp.bfloat16)
    (_, value), (gradient, _) = function(params, x)
    assert types(value) == {"float32"}
    assert types(gradient) == {"bfloat16"}
    rounded = jax.tree.map(lambda a: np.asarray(a).astype(np.float32), params)
    (_, wanted), (slope, _) = function(rounded, x)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    several = functions.CASES[name][1] in functions.OBJECTIVES  # sums of rounded ones
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
        atol = 2**-6 * np.abs(b).max() if several else 1e-6
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-8, atol=atol)


@pytest.mark.slow
def test_rounding_to_bfloat16_costs_as_much_as_stated():
    """On the digits; see `dspc_jax.ops.float_types`."""
    datasets = pytest.importorskip("sklearn.datasets")
    x = datasets.load_digits().data[..., None]
    structure = pc.QuadTree(8, 8)
    for leaf in (pc.Binomial(16), pc.Normal(0.5), pc.Categorical(17)):
        circuit = pc.build(pc.CircuitConfig(structure, leaf, 1, 16, 16))
        log_prob = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))
        params = circuit.init(jax.random.key(0), x)
        short = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
        change = log_prob(short, x) - log_prob(params, x)
        change = np.asarray(change) / np.log(2) / x[0].size
        assert 0 < np.abs(change.mean()) < 1e-3
        assert np.abs(change).max() < 0.02


def close(a, b, rtol=1e-5):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def small():
    return functions.circuits()["normal"]


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", "float8_e4m3fn"])
def test_other_types_are_refused_by_name(dtype):
    circuit = small()
    one = functions.example(circuit)
    params = jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a).astype(dtype)),
        params_of(circuit, "float32"),
    )
    message = rf"params\.leaves\[0\]\.mean must be of a type among .* got {dtype}"
    for name in functions.ROWS:
        with pytest.raises(ValueError, match=message):
            functions.ROWS[name](circuit, params, one)
    with pytest.raises(ValueError, match=message):
        pc.expected_counts(circuit, params, one.x[None])
    with pytest.raises(ValueError, match=f"dtype must be a type among .* got {dtype}"):
        circuit.init(one.key, dtype=dtype)


def test_parameters_of_two_types_are_refused(tmp_path):
    circuit = small()
    params = params_of(circuit, "float32")
    params = params._replace(classes=params.classes.astype(jnp.bfloat16))
    message = r"float32 in params\.leaves\[0\]\.mean and bfloat16 in params\.classes"
    with pytest.raises(ValueError, match=message):
        circuit.log_prob(params, functions.example(circuit).x)
    with pytest.raises(ValueError, match=message):
        pc.save(tmp_path / "file", circuit.config, params)
