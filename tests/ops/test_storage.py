"""Storing is not computing: values and gradients pass unchanged."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.ops import storage
from tests import cases

X = np.arange(1.0, 25.0, dtype=np.float32).reshape(2, 3, 4)


def test_stored_is_the_identity():
    @cases.jit
    def several(x):
        value, pull = jax.vjp(storage.stored, x)
        transposed = storage.stored(jnp.swapaxes(x, 0, 2))
        return value, pull(2 * x)[0], transposed, jax.vmap(storage.stored)(x)

    expected = X, 2 * X, np.swapaxes(X, 0, 2), X
    for value, right in zip(several(X), expected, strict=True):
        np.testing.assert_array_equal(value, right)


def test_computed_once_is_the_function():
    """One branch also where examples are batched, and with another shape."""

    def function(x, y):
        return jnp.sum(x * jnp.exp(-y), axis=0), jnp.argmax(x, axis=0)

    def once(x, y):
        return storage.computed_once(function, x, y)

    expected = cases.jit(function)(X[0], X[1])
    nested = jax.vmap(jax.vmap(once, (None, 0)), (0, None))
    for what, places, arguments in (
        (once, (), (X[0], X[1])),
        (jax.vmap(once, (0, None)), (0,), (X, X[1])),
        (jax.vmap(once, (None, 0)), (1,), (X[0], X)),
        (nested, (0, 1), (X, X)),
    ):
        compiled = cases.user_jit(what).lower(*arguments).compile()
        for out, right in zip(compiled(*arguments), expected, strict=True):
            np.testing.assert_allclose(out[places], right, rtol=1e-6)
        if jax.default_backend() == "cpu":
            assert str(compiled.as_text()).count(" conditional(") == 1


def test_computed_once_changes_no_number():
    odd = np.asarray([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
    once = cases.jit(lambda x: storage.computed_once(lambda x: jnp.maximum(x, 0.5), x))
    for roll in range(5):
        x = np.roll(odd, roll)
        np.testing.assert_array_equal(once(x), np.maximum(x, np.float32(0.5)))
