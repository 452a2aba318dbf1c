"""The batched products against plain sums, with both derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops import products
from tests import cases

B, K, D, N = 3, 4, 7, 5


def array(seed, *shape):
    return cases.normal(seed, *shape)


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

    g = array(3, *jax.eval_shape(plain, MATRIX, operand).shape)

    def pulled(function, *arguments):
        out, pull = jax.vjp(function, *arguments)
        return out, *pull(g)

    pairs = cases.jit(lambda *a: (pulled(product, *a), pulled(plain, *a)))
    for a, b in zip(*pairs(MATRIX, operand), strict=True):
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

    pairs = cases.jit(lambda m: (squared(product)(m), squared(plain)(m)))
    np.testing.assert_allclose(*pairs(MATRIX), rtol=1e-3, atol=1e-2)
    matrices = array(4, 2, B, K, D)  # several circuits at once
    many = cases.jit(jax.vmap(product, (0, None)))(matrices, operand)
    one = cases.jit(product)(matrices[1], operand)
    np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=1e-6)
