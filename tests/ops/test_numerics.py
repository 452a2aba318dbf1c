"""Log-space primitives: values and gradients where logarithms end."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest
from scipy import special

from dspc_jax.ops import numerics
from tests import cases

INF = np.inf
ROWS = np.array(
    [
        [0.0, 1.0, 2.0],
        [-INF, 1.0, -INF],
        [-INF, -INF, -INF],
        [-1e5, -1e5 - 1, -2e5],
        [500.0, -500.0, 0.0],
    ],
    np.float32,
)


def with_slopes(function, *arguments):
    """Values and derivatives in all arguments, element by element."""
    places = tuple(range(len(arguments)))
    both = cases.jit(jax.vmap(jax.value_and_grad(function, places)))
    return both(*map(np.float32, arguments))


def test_logsumexp():

    def total(x):
        out = numerics.logsumexp(x, axis=1)
        return jnp.sum(finite(out)), out

    gradient, out = cases.jit(jax.grad(total, has_aux=True))(ROWS)
    np.testing.assert_allclose(out, special.logsumexp(ROWS, axis=1), rtol=1e-6)
    expected = special.softmax(np.where(ROWS == -INF, -1e9, ROWS), axis=1)
    expected[2] = 0  # nothing is possible: no direction is better than another
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def finite(x):
    return jnp.where(x > -INF, x, 0.0)


def test_log_softmax():

    def total(x):
        out = numerics.log_softmax(x, 1)
        return out[1, 1], out

    gradient, out = cases.jit(jax.grad(total, has_aux=True))(ROWS)
    possible = [0, 1, 4]
    expected = special.log_softmax(ROWS[possible], axis=1)
    np.testing.assert_allclose(out[possible], expected, rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros_like(ROWS))
    assert not np.isnan(out).any()


def test_exp_shifted_shifts_by_the_greatest():
    e, m = cases.jit(lambda x: numerics.exp_shifted(x, axis=1))(ROWS)
    np.testing.assert_array_equal(m[:, 0], [2, 1, 0, -1e5, 500])
    np.testing.assert_allclose(e[3], np.exp([0, -1, -1e5]), rtol=1e-6)
    np.testing.assert_array_equal(e[2], 0)


def test_safe_log_and_safe_divide():
    value, (gradient,) = with_slopes(numerics.safe_log, [0.0, 1e-30, 2.0])
    np.testing.assert_allclose(value, [-INF, np.log(1e-30), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 1e30, 0.5], rtol=1e-6)
    value, gradient = with_slopes(
        numerics.safe_divide, [3.0, 0.0, 3.0], [2.0, 0.0, 0.0]
    )
    np.testing.assert_allclose(value, [1.5, 0, 0])
    np.testing.assert_allclose(gradient[0], [0.5, 0, 0])
    np.testing.assert_allclose(gradient[1], [-0.75, 0, 0])


def test_small_divisors():
    """A divisor whose square is no float32 any more: finite, as far as it can be."""
    b = np.array([1e-10, 1e-20, 1e-30, 1e-37])
    _, (d_a, d_b) = with_slopes(numerics.safe_divide, 0.5 * b, b)
    np.testing.assert_allclose(d_a, 1 / b, rtol=1e-5)
    np.testing.assert_allclose(d_b, -0.5 / b, rtol=1e-5)
    _, (_, d_b) = with_slopes(numerics.safe_divide, 0 * b, b)
    np.testing.assert_array_equal(d_b, 0)


def test_finite_or_zero():
    x = [1.0, -INF, INF, np.nan]
    value, (gradient,) = with_slopes(numerics.finite_or_zero, x)
    np.testing.assert_array_equal(value, [1, 0, 0, 0])
    np.testing.assert_array_equal(gradient, [1, 0, 0, 0])


def test_softplus():
    x = np.float32(np.append(np.linspace(-200, 200, 4001), 0.0))
    value, (gradient,) = with_slopes(numerics.softplus, x)
    expected = np.logaddexp(0, np.asarray(x, np.float64))
    np.testing.assert_allclose(value, expected, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(gradient, special.expit(x), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_are_reductions(axis):
    x = cases.normal(0, 3, 4, 5)
    sums, maxima = cases.jit(
        lambda x: (numerics.sum_slices(x, axis), numerics.max_slices(x, axis))
    )(x)
    np.testing.assert_allclose(sums, x.sum(axis), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(maxima, x.max(axis))


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

    values = cases.user_jit(squares)(x)
    np.testing.assert_allclose(values, i.astype(np.float64) ** 2, rtol=1e-6)
