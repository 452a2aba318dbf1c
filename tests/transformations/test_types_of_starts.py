"""The type of parameters where they begin and change: starts, EM, flows, objectives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import objectives
from dspc_jax.flows import ladder
from tests import cases
from tests.transformations import functions
from tests.transformations.test_types import (
    assert_slopes,
    close,
    params_of,
    rows,
    small,
    types,
)


@pytest.mark.slow
def test_new_parameters_have_the_type_that_is_asked_for():
    circuit = small()
    key, x = jax.random.key(0), np.random.default_rng(0).normal(size=(9, 2, 1))
    with pytest.raises(ValueError, match="without jax_enable_x64, got float64"):
        circuit.init(jax.random.clone(key), dtype="float64")
    for data in (None, x):
        wanted = circuit.init(jax.random.clone(key), data)
        assert types(wanted) == {"float32"}
        short = circuit.init(jax.random.clone(key), data, dtype=jnp.bfloat16)
        rounded = jax.tree.map(lambda a: np.asarray(a).astype(jnp.bfloat16), wanted)
        jax.tree.map(np.testing.assert_array_equal, short, rounded)
        with jax.enable_x64(True):
            start = circuit.init(jax.random.clone(key), data, dtype="float32")
            jax.tree.map(np.testing.assert_array_equal, start, wanted)
            start = circuit.init(jax.random.clone(key), data)
            assert types(start) == {"float64"}
            jax.tree.map(close, start, wanted)
            if data is not None:  # in all their digits
                assert np.isin(start.leaves[0].mean, data).all()


@pytest.mark.slow
def test_one_class_has_the_type_of_all():
    circuit = small()
    x = functions.example(circuit).x
    with jax.enable_x64(True):
        both = cases.jit(
            lambda p: (circuit.log_prob(p, x), circuit.class_log_probs(p, x)[0])
        )
        for dtype in ("float32", "float64", "bfloat16"):
            one = pc.given_class(params_of(circuit, dtype), 0)
            assert types(one) == {dtype}
            np.testing.assert_allclose(*both(one), rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_em_counts_in_the_type_that_is_computed_in(dtype):
    """In float64 a step never loses a digit of likelihood."""
    circuit = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(3, 1, 2),
            (pc.Categorical(3), pc.Binomial(2), pc.Normal()),
            num_leaves=2,
            num_sums=2,
            num_classes=2,
        )
    )
    x = np.random.default_rng(0).integers(0, 3, (40, 3, 1)).astype(np.float64)
    with jax.enable_x64(dtype == "float64"):
        params = circuit.init(jax.random.key(0), x, dtype=dtype)
        optimizer = pc.em(circuit)

        @cases.jit
        def step(params):
            counts: Any = pc.expected_counts(circuit, params, x)
            change, _ = optimizer.update(counts, optimizer.init(params), params)
            log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x).sum()
            return counts, change, log_p

        wide = "float64" if dtype == "float64" else "float32"
        digits, rounding = (1e-13, 1e-12) if dtype == "float64" else (1e-6, 0.5)
        before = -np.inf
        for _ in range(4):
            counts, change, log_p = step(params)
            assert types((counts, change, log_p)) == {wide}
            np.testing.assert_allclose(counts.classes.sum(), len(x), rtol=digits)
            assert log_p > before - rounding
            before = log_p
            params = jax.tree.map(
                lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, change
            )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_circuit_behind_a_flow(dtype, tmp_path):
    flow = ladder.after_logit(ladder.patch_flow(2, 2, patch=2, num_filters=3))
    config = pc.CircuitConfig(pc.RandomBinaryTrees(4, 1, 2), pc.Normal(), 1, 2, 2)
    circuit = pc.transform(pc.build(config), flow)
    x = np.random.default_rng(0).uniform(0.1, 0.9, (9, 4, 1))
    with jax.enable_x64(dtype == "float64"):
        params = circuit.init(jax.random.key(0), x, dtype=dtype)
        assert types(params) == {dtype}
        one = jnp.asarray(x[0])

        def function(params, x):
            return circuit.log_prob(params, x), 0.0

        gradients = cases.jit(jax.value_and_grad(function, (0, 1), has_aux=True))
        (value, _), (gradient, _) = gradients(params, one)
        assert types(gradient) == {dtype}
        draw = cases.jit(circuit.sample)(jax.random.key(1), params)
        wide = "float64" if dtype == "float64" else "float32"
        assert types((value, draw)) == {wide}
        pc.save(tmp_path / "file", circuit.config, params)
        _, stored = pc.load(tmp_path / "file", dtype=dtype)
        jax.tree.map(np.testing.assert_array_equal, stored, params)
        if dtype == "float64":
            assert_slopes(gradients, (params, one), gradients(params, one)[1])
            there_and_back = cases.jit(
                lambda params, x: flow.inverse(params, flow.forward(params, x)[0])
            )
            again = there_and_back(params["flow"], x)
            np.testing.assert_allclose(again, x, rtol=1e-12)


TREE = pc.build(
    pc.CircuitConfig(pc.RandomBinaryTrees(2, 1), pc.Normal(), num_leaves=2, num_sums=2)
)
LOSSES = {
    "mmd_loss": functools.partial(
        objectives.mmd_loss,
        sample=lambda keys, params: jax.vmap(TREE.sample_differentiable, (0, None))(
            keys, params
        ),
        kernel=objectives.gaussian_kernel([0.5, 1.0]),
    ),
    "exact_mmd_loss": functools.partial(
        objectives.exact_mmd_loss, circuit=TREE, bandwidths=[0.5, 1.0]
    ),
    "likelihood": functools.partial(
        objectives.negative_log_likelihood, log_prob=TREE.log_prob
    ),
}


@pytest.mark.parametrize("name", rows(("mmd_loss",), tuple(LOSSES)))
def test_objectives_have_the_type_of_the_parameters(name):
    """Whatever that of the data."""
    batch = np.random.default_rng(0).normal(size=(5, 2, 1))

    @cases.jit
    def function(params, batch):
        loss = functools.partial(LOSSES[name], key=jax.random.key(0), batch=batch)
        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.enable_x64(True):
        (value, metrics), gradient = function(params_of(TREE, "float32"), batch)
        assert types((value, metrics, gradient)) == {"float32"}
        params = params_of(TREE, "float64")
        (value, metrics), gradient = function(params, batch)
        assert types((value, metrics, gradient)) == {"float64"}
        assert_slopes(lambda p: function(p, batch), (params,), (gradient,))
