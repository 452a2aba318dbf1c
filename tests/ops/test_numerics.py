"""Log-space primitives: values and gradients where logarithms end."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest
from scipy import special

from dspc_jax.ops import numerics
from tests import cases

INF = jnp.inf
ROWS = jnp.array(
    [
        [0.0, 1.0, 2.0],
        [-INF, 1.0, -INF],
        [-INF, -INF, -INF],
        [-1e5, -1e5 - 1, -2e5],
        [500.0, -500.0, 0.0],
    ]
)


def test_logsumexp():
    out = numerics.logsumexp(ROWS, axis=1)
    expected = np.asarray(special.logsumexp(np.asarray(ROWS), axis=1))
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(finite(numerics.logsumexp(x, 1))))(ROWS)
    expected = special.softmax(np.where(ROWS == -INF, -1e9, ROWS), axis=1)
    expected[2] = 0  # nothing is possible: no direction is better than another
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def finite(x):
    return jnp.where(x > -INF, x, 0.0)


def test_log_softmax():
    possible = ROWS[jnp.array([0, 1, 4])]
    out = numerics.log_softmax(possible, 1)
    expected = special.log_softmax(np.asarray(possible), axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    gradient = jax.grad(lambda x: numerics.log_softmax(x, 1)[1, 1])(ROWS)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(ROWS))
    assert not np.isnan(numerics.log_softmax(ROWS, 1)).any()


def test_exp_shifted_shifts_by_the_greatest():
    e, m = numerics.exp_shifted(ROWS, axis=1)
    np.testing.assert_array_equal(m[:, 0], [2, 1, 0, -1e5, 500])
    np.testing.assert_allclose(e[3], np.exp([0, -1, -1e5]), rtol=1e-6)
    np.testing.assert_array_equal(e[2], 0)


def test_safe_log_and_safe_divide():
    value, gradient = jax.vmap(jax.value_and_grad(numerics.safe_log))(
        jnp.array([0.0, 1e-30, 2.0])
    )
    np.testing.assert_allclose(value, [-INF, np.log(1e-30), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 1e30, 0.5], rtol=1e-6)
    value, gradient = jax.vmap(jax.value_and_grad(numerics.safe_divide, (0, 1)))(
        jnp.array([3.0, 0.0, 3.0]), jnp.array([2.0, 0.0, 0.0])
    )
    np.testing.assert_allclose(value, [1.5, 0, 0])
    np.testing.assert_allclose(gradient[0], [0.5, 0, 0])
    np.testing.assert_allclose(gradient[1], [-0.75, 0, 0])


@pytest.mark.parametrize("b", [1e-10, 1e-20, 1e-30, 1e-37])
def test_small_divisors(b):
    """A divisor whose square is no float32 any more: finite, as far as it can be."""
    d_a, d_b = jax.grad(numerics.safe_divide, (0, 1))(0.5 * b, b)
    np.testing.assert_allclose(d_a, 1 / b, rtol=1e-5)
    np.testing.assert_allclose(d_b, -0.5 / b, rtol=1e-5)
    assert jax.grad(numerics.safe_divide, 1)(0.0, b) == 0


def test_finite_or_zero():
    x = jnp.array([1.0, -INF, INF, jnp.nan])
    value, gradient = jax.vmap(jax.value_and_grad(numerics.finite_or_zero))(x)
    np.testing.assert_array_equal(value, [1, 0, 0, 0])
    np.testing.assert_array_equal(gradient, [1, 0, 0, 0])


def test_softplus():
    x = jnp.append(jnp.linspace(-200, 200, 4001), 0.0)
    np.testing.assert_allclose(
        numerics.softplus(x),
        np.logaddexp(0, np.asarray(x, np.float64)),
        atol=1e-6,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        jax.vmap(jax.grad(numerics.softplus))(x), special.expit(x), atol=1e-6
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_are_reductions(axis):
    x = jax.random.normal(jax.random.key(0), (3, 4, 5))
    np.testing.assert_allclose(numerics.sum_slices(x, axis), x.sum(axis), rtol=1e-5)
    np.testing.assert_array_equal(numerics.max_slices(x, axis), x.max(axis))


def test_second_derivatives(x64):
    """Forward over reverse and reverse over reverse, in 64 bits."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    for function in (numerics.logsumexp, numerics.log_softmax):
        check_grads(jax.jit(lambda x, f=function: f(x, 1)), (x,), order=2)
    check_grads(jax.jit(numerics.softplus), (x,), order=2)


def test_the_compiler_adds_up():
    """The first thing to check when numbers are wrong for no reason.

    XLA of jaxlib 0.10.2 silently loses digits of large sums of products on the CPU
    (jax-ml/jax issue 39103, whose example this is); 0.10.1 is right.
    """
    i = np.arange(32769, dtype=np.float32)
    x = np.stack((i, 0 * i, 0 * i), axis=1)

    def squares(x):
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x)

    found = cases.user_jit(squares)(x)
    np.testing.assert_allclose(found, i.astype(np.float64) ** 2, rtol=1e-6)
