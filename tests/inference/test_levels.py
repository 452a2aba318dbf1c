"""Levels in steps: the same circuit as when every height has its own code."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import parameters, queries, serialization
from dspc_jax.circuit import make_layout, product_graph
from dspc_jax.structure import steps
from dspc_jax.structure.folding import fold
from tests import cases

LENGTH = 8


def comb(num_hairs: int, num_thick: int = 0) -> pc.RegionGraph:
    """A chain whose every third link may hang on a chain of its own.

    Then steps differ in width, and a region is asked for from several heights above.
    Of every other link so many join one more variable.
    """
    builder = pc.RegionGraphBuilder(LENGTH + 3 * num_hairs + num_thick)
    variables = iter(range(builder.num_variables))

    def chain(length: int, hairs: int, root: int | None = None) -> int:
        region = builder.add_region([next(variables)])
        for link in range(1, length):
            hair = link % 3 == 0 and hairs > link // 3 - 1
            other = chain(4, 0) if hair else builder.add_region([next(variables)])
            links = [region, other]
            if root is not None and link % 2 and link < 2 * num_thick:
                links.append(builder.add_region([next(variables)]))
            scope = sum((builder.scopes[part] for part in links), ())
            if root is not None and link == length - 1:
                whole = root
            else:
                whole = builder.add_region(scope)
            builder.add_partition(whole, *links[:: 1 if link % 2 else -1])
            region = whole
        return region

    chain(LENGTH, num_hairs, 0)
    return builder.build()


@functools.cache
def both(num_hairs: int, sum_layer: str, num_thick: int = 0):
    """Layouts with steps and without."""
    structure = comb(num_hairs, num_thick)
    config = pc.CircuitConfig(structure, pc.Normal(), 1, 2, 2, sum_layer=sum_layer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_LEAST_STEPS", 1000)
        plain = make_layout(config)
        if num_thick:  # every number of children has a table, as once
            plain = dataclasses.replace(plain, graph=fold(product_graph(config)))
        patch.setattr(steps, "_LEAST_STEPS", 2)
        patch.setattr(steps, "_MOST_PADDING", 4)
        stepped = make_layout(config)
    assert len(plain.graph.levels) >= LENGTH - 1
    assert len(stepped.graph.levels) <= 4
    return stepped, plain


def functions():
    """Every walk through the levels, of ``(layout, params, t, x, observed, key)``."""
    evidence = {
        "log_prob": lambda lay, p, t, x, o, key: queries.log_prob(lay, p, x, o),
        "mean": lambda lay, p, t, x, o, key: queries.mean(lay, p, x, o),
        "mpe": lambda lay, p, t, x, o, key: queries.mpe(lay, p, x, o),
        "sample": lambda lay, p, t, x, o, key: queries.sample(
            lay, jax.random.clone(key), p, x, o
        ),
    }
    for relaxation in ("gumbel_softmax", "straight_through", "dense"):
        evidence[relaxation] = functools.partial(
            lambda lay, p, t, x, o, key, r: queries.sample_differentiable(
                lay, jax.random.clone(key), p, x, o, relaxation=r, temperature=t
            ),
            r=relaxation,
        )
    return evidence


@pytest.mark.parametrize(
    ("num_hairs", "sum_layer", "num_thick", "names"),
    [
        (2, "cp_t", 3, ("log_prob", "gumbel_softmax", "sample")),
        pytest.param(2, "cp_t", 0, tuple(functions()), marks=pytest.mark.slow),
        pytest.param(0, "cp_t", 0, tuple(functions()), marks=pytest.mark.slow),
        pytest.param(2, "tucker", 0, tuple(functions()), marks=pytest.mark.slow),
        pytest.param(1, "cp_t", 2, tuple(functions()), marks=pytest.mark.slow),
    ],
    ids=["some", "even", "chain", "tucker", "thick"],
)
def test_steps_change_nothing(num_hairs, sum_layer, num_thick, names):
    """Values, draws and gradients of every walk are those without steps."""
    stepped, plain = both(num_hairs, sum_layer, num_thick)
    params = parameters.init(plain, jax.random.key(0), None, 0.5)
    keys = jax.random.split(jax.random.key(4), 3)
    num_variables = plain.graph.num_variables
    x = jax.random.normal(jax.random.key(2), (3, num_variables, 1))
    observed = jax.random.bernoulli(jax.random.key(3), 0.4, (3, num_variables))

    @functools.partial(cases.jit, static_argnums=0)
    def results(layout, params):
        def values(function):
            def loss(params, temperature):
                walk = functools.partial(function, layout, params, temperature)
                out = jax.vmap(walk)(x, observed, keys)
                return jnp.sum(jnp.cos(jnp.arange(out.size)) * out.ravel()), out

            slope = jax.value_and_grad(loss, (0, 1), has_aux=True)
            (_, out), slope = slope(params, jnp.float32(0.7))
            return out, slope

        return {name: values(functions()[name]) for name in names}

    expected = results(plain, params)
    result = results(stepped, parameters.in_levels(stepped, params))
    for name, (value, slope) in expected.items():
        np.testing.assert_allclose(
            result[name][0], value, rtol=1e-5, atol=1e-5, err_msg=name
        )
        jax.tree.map(
            lambda a, b, name=name: np.testing.assert_allclose(
                a, b, rtol=1e-4, atol=5e-5, err_msg=name
            ),
            result[name][1],
            (parameters.in_levels(stepped, slope[0]), slope[1]),
        )


def test_files_with_an_array_for_every_height(tmp_path, monkeypatch):
    config = pc.CircuitConfig(comb(0), pc.Bernoulli(), num_leaves=3, num_sums=2)
    circuit = pc.build(config)
    assert len(circuit.layout.graph.levels) == 3
    graph = fold(product_graph(config), in_steps=False)
    plain = dataclasses.replace(circuit.layout, graph=graph)
    params = parameters.init(plain, jax.random.key(0), None, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(serialization, "VERSION", 1)
        pc.save(tmp_path / "old", config, params)
    _, loaded = pc.load(tmp_path / "old")
    x = jnp.arange(LENGTH, dtype=jnp.float32)[:, None] % 2
    np.testing.assert_allclose(
        circuit.log_prob(loaded, x), queries.log_prob(plain, params, x), rtol=1e-5
    )


@pytest.mark.slow
def test_second_derivatives_of_steps():
    """Forward over reverse, through a walk up and a walk down."""
    stepped, plain = both(2, "cp_t")
    params = parameters.init(plain, jax.random.key(0), None, 0.5)
    key = jax.random.key(1)
    x = jax.random.normal(jax.random.key(2), (plain.graph.num_variables, 1))
    tangent = jax.tree.map(
        lambda a: jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )

    def curvature(layout, params, tangent):
        def value(params):
            drawn = queries.sample_differentiable(layout, jax.random.clone(key), params)
            return queries.log_prob(layout, params, x) + jnp.sum(drawn**2)

        return jax.jvp(jax.grad(value), (params,), (tangent,))

    expected = cases.jit(functools.partial(curvature, plain))(params, tangent)
    result = cases.jit(functools.partial(curvature, stepped))(
        parameters.in_levels(stepped, params), parameters.in_levels(stepped, tangent)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        result,
        tuple(parameters.in_levels(stepped, part) for part in expected),
    )
