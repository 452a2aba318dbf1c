"""One derivative, written in reverse, for every mode and order of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.derivatives import Differentiable
from tests import cases

X, Y = (
    np.asarray([0.5, -1.0, 2.0], np.float32),
    np.asarray([3.0, 1.0, -2.0], np.float32),
)


@Differentiable
def product(x, y):
    return x * y


# Not the true derivative, so that one sees that it is this one which is used.
product.defvjp(
    lambda x, y: (product(x, y), (x, y)), lambda xy, g: (7 * xy[1] * g, xy[0] * g)
)


def total(x, y=Y):
    return jnp.sum(product(x, y))


def test_forward_is_the_transpose_of_reverse():
    @cases.jit
    def modes(x, y):
        return (
            jax.grad(total)(x),
            jax.jvp(product, (x, y), (x, y))[1],
            jax.linearize(product, x, y)[1](x, y),
            jax.jacfwd(product)(x, y),
            jax.jacrev(product)(x, y),
        )

    along = 8 * X * Y
    expected = 7 * Y, along, along, np.diag(7 * Y), np.diag(7 * Y)
    for value, right in zip(modes(X, Y), expected, strict=True):
        np.testing.assert_allclose(value, right)


def test_orders_and_batches():
    def cube(x):
        return jnp.sum(product(product(x, x), x))  # 7 x (8 x) + x^2

    @cases.jit
    def seconds(x):
        twice = jax.jacrev(jax.jacrev(cube))
        return jax.hessian(cube)(x), twice(x), jax.jacfwd(jax.grad(cube))(x)

    hessian, reverse, forward = seconds(X)
    for second in (hessian, reverse):
        np.testing.assert_allclose(second.sum(0), forward.sum(0))
    np.testing.assert_allclose(np.diag(hessian), 120 * X)
    many = np.stack([X, Y])

    @cases.jit
    @jax.vmap
    def each(x):
        return jax.grad(cube)(x), jax.jvp(product, (x, Y), (x, Y))[1]

    slopes, along = each(many)
    np.testing.assert_allclose(slopes, 57 * many**2)
    np.testing.assert_allclose(along, 8 * many * Y[None])


@Differentiable
def inward(x):
    return x


inward.defvjp(
    lambda x: (inward(x), None), lambda _, g: (jnp.maximum(g, 0),), "it has a sign"
)


def test_what_is_impossible_forward_says_so():
    slope = cases.jit(jax.grad(lambda x: inward(x) @ Y))
    np.testing.assert_array_equal(slope(X), [3, 1, 0])
    for along in (jax.jvp, jax.jit(jax.jvp, static_argnums=0)):
        with pytest.raises(
            TypeError, match="^inward must not .* forward: it has a sign"
        ):
            along(inward, (X,), (X,))
    second = jax.jacrev(jax.grad(lambda x: jnp.sum(inward(x**2))))
    np.testing.assert_allclose(cases.jit(second)(X), 2 * np.eye(3))
