"""One derivative, written in reverse, for every mode and order of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.derivatives import Differentiable

X, Y = jnp.array([0.5, -1.0, 2.0]), jnp.array([3.0, 1.0, -2.0])


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
    np.testing.assert_allclose(jax.grad(total)(X), 7 * Y)
    np.testing.assert_allclose(jax.jvp(product, (X, Y), (X, Y))[1], 8 * X * Y)
    np.testing.assert_allclose(jax.linearize(product, X, Y)[1](X, Y), 8 * X * Y)
    np.testing.assert_allclose(jax.jacfwd(product)(X, Y), jnp.diag(7 * Y))
    np.testing.assert_allclose(jax.jacrev(product)(X, Y), jnp.diag(7 * Y))


def test_orders_and_batches():
    def cube(x):
        return jnp.sum(product(product(x, x), x))  # 7 x (8 x) + x^2

    for second in (jax.hessian(cube), jax.jacrev(jax.jacrev(cube))):
        np.testing.assert_allclose(
            second(X).sum(0), jax.jacfwd(jax.grad(cube))(X).sum(0)
        )
    np.testing.assert_allclose(jax.grad(cube)(X), 57 * X**2)
    np.testing.assert_allclose(jnp.diag(jax.hessian(cube)(X)), 120 * X)
    many = jnp.stack([X, Y])
    one = jax.vmap(jax.grad(cube))(many)
    np.testing.assert_allclose(one, 57 * many**2)
    along = jax.vmap(lambda x: jax.jvp(product, (x, Y), (x, Y))[1])(many)
    np.testing.assert_allclose(along, 8 * many * Y[None])


@Differentiable
def inward(x):
    return x


inward.defvjp(
    lambda x: (inward(x), None), lambda _, g: (jnp.maximum(g, 0),), "it has a sign"
)


def test_what_is_impossible_forward_says_so():
    np.testing.assert_array_equal(jax.grad(lambda x: inward(x) @ Y)(X), [3, 1, 0])
    for along in (jax.jvp, jax.jit(jax.jvp, static_argnums=0)):
        with pytest.raises(
            TypeError, match="^inward must not .* forward: it has a sign"
        ):
            along(inward, (X,), (X,))
    second = jax.jacrev(jax.grad(lambda x: jnp.sum(inward(x**2))))(X)
    np.testing.assert_allclose(second, 2 * jnp.eye(3))
