"""The batched products against plain sums, with both derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops import products

B, K, D, N = 3, 4, 7, 5


def array(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


MATRIX = array(0, B, K, D)
CASES = {
    "expand": (products.expand, array(1, B, K, N), "bkd,bkn->bdn"),
    "contract": (products.contract, array(2, B, D, N), "bkd,bdn->bkn"),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name):
    product, operand, formula = CASES[name]

    def plain(matrix, operand):
        return jnp.einsum(formula, matrix, operand, precision="highest")

    out, pull = jax.vjp(product, MATRIX, operand)
    expected, plain_pull = jax.vjp(plain, MATRIX, operand)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    g = array(3, *out.shape)
    for a, b in zip(pull(g), plain_pull(g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_and_vmap(name):
    product, operand, formula = CASES[name]

    def squared(product):
        def norm(matrix):
            return jnp.sum(product(matrix, operand) ** 3)

        return jax.grad(lambda m: jnp.sum(jax.grad(norm)(m) ** 2))

    def plain(matrix, operand):
        return jnp.einsum(formula, matrix, operand, precision="highest")

    found, expected = squared(product)(MATRIX), squared(plain)(MATRIX)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
    matrices = array(4, 2, B, K, D)  # several circuits at once
    many = jax.vmap(product, (0, None))(matrices, operand)
    np.testing.assert_allclose(many[1], product(matrices[1], operand), rtol=1e-5)
