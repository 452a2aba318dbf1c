"""Convolutions by patches against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.networks.convolutions import convolve, convolve_transposed
from tests import cases

SIZES = [(7, 5, 4, 2), (3, 3, 4, 1)]
MORE = [
    (2, 4, 3, 2),
    (7, 7, 3, 3),
    (8, 8, 3, 1),
    (5, 4, 3, 2),
    (6, 7, 5, 2),
    (4, 4, 2, 2),
]
MORE = [pytest.param(*size, marks=pytest.mark.slow) for size in MORE]
NUMBERS = ("NHWC", "HWIO", "NHWC")


def by_xla(x, kernel, stride):
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=NUMBERS
    )


def transposed_by_xla(x, kernel, stride):
    strides = (stride, stride)
    return jax.lax.conv_transpose(x, kernel, strides, "SAME", dimension_numbers=NUMBERS)


PAIRS = [(convolve, by_xla), (convolve_transposed, transposed_by_xla)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(("height", "width", "side", "stride"), SIZES + MORE)
def test_values_and_gradients(ours, theirs, height, width, side, stride):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    kernel = jax.random.normal(jax.random.key(1), (side, side, 3, 4))
    weights = jax.random.normal(
        jax.random.key(2), jax.eval_shape(lambda: theirs(x, kernel, stride)).shape
    )

    def value_and_grads(function):
        def weighted(x, kernel):
            out = function(x, kernel, stride)
            return jnp.sum(jnp.sin(out) * weights), out

        grads, out = cases.jit(jax.grad(weighted, (0, 1), has_aux=True))(x, kernel)
        return out, *grads

    for one, other in zip(value_and_grads(ours), value_and_grads(theirs), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_second_derivatives_inside_a_loop():
    """What R1 asks for: the gradient of a squared gradient, in a training loop."""
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 2, 3))

    def trained(function):
        def penalty(kernel):
            slope = jax.grad(lambda x: jnp.sum(jnp.tanh(function(x, kernel, 2))))(x)
            return jnp.mean(slope**2)

        def step(_, kernel):
            return kernel - 0.1 * jax.grad(penalty)(kernel)

        return cases.jit(lambda kernel: jax.lax.fori_loop(0, 3, step, kernel))(kernel)

    one, other = trained(convolve), trained(by_xla)
    assert np.abs(one - kernel).max() > 1e-3
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
