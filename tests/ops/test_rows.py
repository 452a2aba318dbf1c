"""Rows by static numbers: values and derivatives are those of indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.rows import repeated, take

INDICES = {
    "permutation": [3, 1, 0, 2],
    "repeated and left out": [0, 0, 3, 3, 3, 1],
    "none at some places": [[1, -1, 2], [-1, 0, 1]],
    "nothing": [-1, -1],
    "one row in most places": [2] * 40 + [0],
}


CASES = [(take, index) for index in INDICES.values()]
CASES += [(repeated, [[3, 0, 0], [3, 1, 3]]), (repeated, [0, 1, 2, 3])]


@pytest.mark.parametrize(("function", "index"), CASES)
def test_values_and_derivatives_are_those_of_indexing(function, index):
    index = np.array(index)
    rng = np.random.default_rng(0)
    array, tangent = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(*index.shape, 3)), jnp.float32)
    exists = jnp.asarray(index >= 0)[..., None]

    def ours(array):
        return jnp.sin(function(array, index)) * weight

    def theirs(array):
        rows = jnp.where(exists, array[np.maximum(index, 0)], 0.0)
        return jnp.sin(rows) * weight

    def derivatives(function):
        forward = jax.jvp(function, (array,), (tangent,))
        reverse = jax.grad(lambda a: function(a).sum())(array)
        second = jax.jvp(jax.grad(lambda a: function(a).sum()), (array,), (tangent,))
        return *forward, reverse, second

    got = jax.jit(lambda: derivatives(ours))()
    wanted = jax.jit(lambda: derivatives(theirs))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_one_row_for_all():
    index = np.zeros((2, 3), int)
    values, pull = jax.vjp(lambda a: repeated(a, index), jnp.arange(3.0)[None])
    np.testing.assert_array_equal(values, np.tile(np.arange(3.0), (2, 3, 1)))
    np.testing.assert_array_equal(pull(values)[0], [[0, 6, 12]])


def test_the_derivative_is_no_scatter():
    index = np.array([3, 1, 0, 2, 2])
    grad = jax.grad(lambda a: (take(a, index) ** 2).sum())
    text = jax.jit(grad).lower(jnp.ones((4, 3))).as_text()
    assert "scatter" not in text
