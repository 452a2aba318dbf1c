"""`foldable`: vmap becomes one call of the batched function, and no number changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.batching import foldable, for_all
from tests import cases

W, X = cases.normal(0, 3, 3), cases.normal(1, 2, 4, 3)


def counted():
    """A foldable function and the batch sizes that it was traced with."""
    sizes = []

    @foldable
    def function(params, x, shift):
        sizes.append(x.shape[0])
        y = jnp.tanh(x @ params["w"]) + shift[:, None]
        return {"y": y, "total": jnp.sum(y**2, axis=-1)}

    return function, sizes


def loop(function, params, x, shift):
    out = [[function(params, a, shift) for a in row] for row in x]
    return jax.tree.map(
        lambda *leaves: np.stack(leaves),
        *[jax.tree.map(lambda *leaves: np.stack(leaves), *row) for row in out],
    )


def assert_same(a, b):
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6), a, b
    )


@pytest.mark.parametrize("jit", [False, True])
def test_vmaps_fold_into_one_call(jit):
    function, sizes = counted()
    one = jax.vmap(jax.vmap(function, (None, 0, None)), (None, 0, None))
    one = cases.jit(one) if jit else one
    out = one({"w": W}, X, jnp.float32(2))
    assert sizes[-1] == 8  # both axes in one batch
    assert_same(out, loop(function, {"w": W}, X, jnp.float32(2)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_any_axis_may_be_mapped(axis):
    function, _ = counted()
    x = np.moveaxis(X[0], 0, axis)
    out = jax.vmap(function, (None, axis, None))({"w": W}, x, jnp.float32(0))
    assert_same(
        out, jax.vmap(function, (None, 0, None))({"w": W}, X[0], jnp.float32(0))
    )
    moved = jax.vmap(function, (None, 0, None), out_axes={"y": 1, "total": 0})(
        {"w": W}, X[0], jnp.float32(0)
    )
    assert_same(moved["y"].T, out["y"])


def test_mapped_parameters():
    """A circuit per seed: over parameters, over both, and one inside the other."""
    function, _ = counted()
    many = {"w": np.stack([W, -W])}
    shift = jnp.float32(1)
    inner, outer = (None, 0, None), (0, None, None)

    @cases.jit
    def each(many, x):
        return (
            jax.vmap(function, outer)(many, x[0, 0], shift),
            jax.vmap(function, (0, 0, None))(many, x[:, 0], shift),
            jax.vmap(jax.vmap(function, inner), outer)(many, x[0], shift),
            jax.vmap(jax.vmap(function, outer), inner)(many, x[0], shift),
        )

    alone, both, inside, outside = each(many, X)
    for i, w in enumerate((W, -W)):
        assert_same(pick(alone, i), function({"w": w}, X[0, 0], shift))
        assert_same(pick(both, i), function({"w": w}, X[i, 0], shift))
        rows = loop(function, {"w": w}, X[:1], shift)
        assert_same(pick(inside, i), pick(rows, 0))
        assert_same(jax.tree.map(lambda a, i=i: a[:, i], outside), pick(rows, 0))


def pick(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def test_derivatives_commute_with_vmap():
    function, _ = counted()
    params, shift = {"w": W}, jnp.float32(0.5)

    def total(params, x):
        return function(params, x, shift)["total"]

    def mean(params):
        return jnp.mean(jax.vmap(total, (None, 0))(params, X[0]))

    each = cases.jit(jax.vmap(jax.grad(total, (0, 1)), (None, 0)))(params, X[0])
    one, slope = cases.jit(jax.grad(total, (0, 1))), cases.jit(jax.grad(mean))
    plain = [one(params, x) for x in X[0]]
    assert_same(each, jax.tree.map(lambda *leaves: np.stack(leaves), *plain))
    assert_same(slope(params), jax.tree.map(lambda a: a.mean(0), each[0]))
    # Forward mode, and forward over reverse.
    tangent = {"w": np.ones_like(W)}
    _, along = cases.jit(lambda p, t: jax.jvp(mean, (p,), (t,)))(params, tangent)
    np.testing.assert_allclose(along, np.sum(slope(params)["w"]), rtol=1e-5)
    hessian = cases.jit(jax.hessian(lambda w: mean({"w": w})))(W)
    numeric = (
        slope({"w": np.float32(W + 1e-2)})["w"]
        - slope({"w": np.float32(W - 1e-2)})["w"]
    ) / 2e-2
    np.testing.assert_allclose(hessian.sum(axis=(2, 3)), numeric, rtol=2e-3, atol=1e-3)


def test_keys_and_booleans_are_examples_too():
    @foldable
    def noisy(scale, key, flag):
        noise = jax.vmap(lambda k: jax.random.normal(k, (2,)))(key)
        return jnp.where(flag[:, None], scale * noise, 0.0)

    flags = np.array([True, False, True])
    out = cases.jit(jax.vmap(noisy, (None, 0, 0)))(2.0, cases.fresh_keys(0, 3), flags)
    normal = cases.jit(jax.vmap(lambda key: jax.random.normal(key, (2,))))
    expected = 2 * normal(cases.fresh_keys(0, 3)) * flags[:, None]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    slope = cases.jit(jax.grad(lambda s, key: jnp.sum(noisy(s, key, flags[0]))))
    assert np.isfinite(slope(2.0, jax.random.key(1)))


def test_scan_and_remat():
    """The primitive lives in loops and under rematerialisation."""
    function, _ = counted()
    params, shift = {"w": W}, jnp.float32(0)

    def step(carry, x):
        return carry + jax.checkpoint(function)(params, x, shift)["total"], None

    total = cases.jit(lambda x: jax.lax.scan(step, 0.0, x)[0])(X[0])
    expected = sum(float(function(params, x, shift)["total"]) for x in X[0])
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_equal_calls_are_traced_once():
    function, sizes = counted()
    one = cases.jit(jax.vmap(function, (None, 0, None)))
    one({"w": W}, X[0], jnp.float32(0))
    traces = len(sizes)
    one({"w": 2 * W}, X[1], jnp.float32(1))
    assert len(sizes) == traces


def test_a_mapped_condition_stays_a_branch():
    """Under two `vmap`s and a gradient; it holds for all or for none."""

    def branch(condition, x):
        return jax.lax.cond(for_all(condition), lambda: 2 * x, lambda: x**3)

    slope = jax.vmap(jax.vmap(jax.grad(branch, argnums=1)))
    x = np.asarray([[1.0, 2.0], [3.0, 4.0]], np.float32)
    compiled = cases.jit(slope)
    for condition, expected in (
        (np.ones((2, 2), bool), np.full((2, 2), 2.0)),
        (np.asarray([[True, True], [True, False]]), 3 * x**2),
    ):
        np.testing.assert_allclose(compiled(condition, x), expected)
    text = str(jax.make_jaxpr(slope)(x > 0, x))
    assert "cond[" in text
    assert "select_n" not in text


def test_what_all_examples_share_is_not_repeated():
    sizes = []

    @functools.partial(foldable, repeats=True)
    def function(params, x, y):
        sizes.append(y.shape[0])
        return {"out": params * x + y}

    x, y = jnp.arange(6.0).reshape(2, 3), jnp.arange(2.0)
    shared = jax.vmap(function, (None, 0, None))(2.0, x[0], y[0])
    np.testing.assert_array_equal(shared["out"], 2 * x[0] + y[0])
    assert sizes[-1] == 1
    rows = jax.vmap(jax.vmap(function, (None, 0, None)), (None, 0, 0))
    np.testing.assert_array_equal(rows(2.0, x, y)["out"], 2 * x + y[:, None])
    columns = jax.vmap(jax.vmap(function, (None, 0, 0)), (None, 0, None))
    out = columns(2.0, x, jnp.arange(3.0))["out"]
    np.testing.assert_array_equal(out, 2 * np.asarray(x) + np.arange(3))
