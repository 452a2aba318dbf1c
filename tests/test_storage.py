"""Storing is not computing: values and gradients pass unchanged."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import storage

X = jnp.arange(1.0, 25.0).reshape(2, 3, 4)


def test_stored_is_the_identity():
    value, pull = jax.vjp(storage.stored, X)
    np.testing.assert_array_equal(value, X)
    np.testing.assert_array_equal(pull(2 * X)[0], 2 * X)
    transposed = jax.jit(lambda x: storage.stored(jnp.swapaxes(x, 0, 2)))(X)
    np.testing.assert_array_equal(transposed, np.swapaxes(X, 0, 2))
    np.testing.assert_array_equal(jax.vmap(storage.stored)(X), X)


def test_computed_once_is_the_function():
    """Also batched, where a branch becomes a selection, and with another shape."""

    def function(x, y):
        return jnp.sum(x * jnp.exp(-y), axis=0)

    once = jax.jit(lambda x, y: storage.computed_once(function, x, y))
    expected = function(X[0], X[1])
    np.testing.assert_allclose(once(X[0], X[1]), expected, rtol=1e-6)
    batched = jax.vmap(once, (0, None))(X, X[1])
    np.testing.assert_allclose(batched[0], expected, rtol=1e-6)
    assert "conditional" in str(once.lower(X[0], X[1]).compile().as_text())


def test_computed_once_passes_failure_on():
    broken = X.at[0, 0, 0].set(jnp.nan)
    assert np.isnan(storage.computed_once(lambda x: jnp.exp(x), broken)).all()
