"""The gamma distribution against SciPy, over shapes from 0.01 to a million."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dspc_jax.leaves import gamma_functions
from dspc_jax.leaves.positive import LEAST
from tests import cases

SHAPES = np.float32([0.01, 0.1, 0.7, 1, 3, 15.9, 16, 40, 1e3, 1e6])[:, None]
UNIFORM = np.float32([2.0**-24, 1e-5, 0.02, 0.3, 0.5, 0.7, 0.99, 1 - 2.0**-17])[None]
U, A = np.broadcast_arrays(UNIFORM, SHAPES)


@functools.cache
def quantiles():
    """Quantiles, what they move by with the shape, and logarithms of their tails."""

    @cases.jit
    def functions(shape):
        quantile = functools.partial(gamma_functions.gamma_quantile, U)
        x, slope = jax.jvp(quantile, (shape,), (jnp.ones_like(shape),))
        return x, slope, gamma_functions.log_tails(shape, x)

    return functions(jnp.asarray(A))


@pytest.mark.slow
def test_quantiles():
    exact = np.maximum(stats.gamma.ppf(U.astype(float), A.astype(float)), LEAST)
    x = quantiles()[0]
    rtol = np.where(A < 0.1, 1e-3, 1e-5)  # next to 1 a small shape's u has no digits
    assert (np.abs(x / exact - 1) < rtol).all()
    deviations = np.abs(x - exact) / np.sqrt(A)
    assert (deviations[A >= 0.1] < 3e-4).all()  # x itself is rounded


@pytest.mark.slow
def test_slopes():
    """A draw's derivative in the shape, with its uniform number held fixed."""
    u, a = U.astype(float), A.astype(float)
    h = 1e-4 * a
    slope = (stats.gamma.ppf(u, a + h) - stats.gamma.ppf(u, a - h)) / (2 * h)
    x = quantiles()[0]
    inside = x > LEAST
    np.testing.assert_allclose(
        quantiles()[1][inside], slope[inside], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(quantiles()[1][~inside], 0)


def test_tails():
    x = quantiles()[0].astype(float)
    below, above = quantiles()[2]
    atol = np.where(A < 0.1, 1e-3, 3e-4)
    a = A.astype(float)
    assert (np.abs(below - np.log(special.gammainc(a, x))) < atol).all()
    assert (np.abs(above - np.log(special.gammaincc(a, x))) < atol).all()


def test_tails_beyond_the_smallest_number():
    """Finite where the probability itself is 0 in float32, and its derivative too."""
    shape = np.float32([0.5, 4.0, 50.0])[:, None]
    x = np.concatenate([shape * 0 + 1e-36, shape + 95, shape + 300], axis=1)
    shape = np.broadcast_to(shape, x.shape)

    @cases.jit
    def tails(x):
        each = functools.partial(gamma_functions.log_tails, jnp.asarray(shape))
        return jax.jvp(each, (x,), (jnp.ones_like(x),))

    (below, above), slopes = tails(jnp.asarray(x))
    assert all(np.isfinite(values).all() for values in (below, above, *slopes))
    x, shape = x.astype(float), shape.astype(float)
    far = stats.gamma.logsf(x[:, 1:], shape[:, 1:])
    np.testing.assert_allclose(above[:, 1:], far, rtol=2e-2)
    near = shape * np.log(x) - special.gammaln(shape + 1)
    np.testing.assert_allclose(below[:, 0], near[:, 0], rtol=1e-2)
