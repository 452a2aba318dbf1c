"""Every function inside ``scan`` and under ``checkpoint`` is what it is outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import cases
from tests.transformations import functions

FAST = ("normal/sample_differentiable, simple", "normal/negative_log_likelihood")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in functions.CASES
    ],
)
def test_scan_and_checkpoint(name):
    """Values, and gradients in parameters and example: taken in a scan, through one.

    Both of two examples, with keys of their own; the same of a checkpointed function.
    In float64: sums in another order are no reason for a difference.
    """
    circuit, row = functions.case(name)
    wide = functools.partial(jnp.asarray, dtype=jnp.float64)
    params = jax.tree.map(wide, functions.params_of(circuit, 0))
    one = functions.example(circuit)
    x = wide(jnp.stack([one.x, one.x[::-1]]))
    keys = jax.random.split(one.key, 2)

    def total(params, x, key):
        out = row(params, functions.Example(x, one.observed, key))
        weight = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return jnp.sum(out * weight)

    gradients = jax.value_and_grad(total, (0, 1))
    outside = cases.jit(gradients)

    def sum_of_scan(params, x, keys):
        def add(value, case):
            return value + jax.checkpoint(total)(params, *case), None

        return jax.lax.scan(add, jnp.zeros(()), (x, keys))[0]

    @cases.jit
    def loops(params, x, keys):
        def body(carry, case):
            return carry, gradients(params, *case)

        inside = jax.lax.scan(body, None, (x, keys))[1]
        through = jax.value_and_grad(sum_of_scan, (0, 1))
        return inside, through(params, x, jax.random.clone(keys))

    each = [outside(params, x[i], keys[i]) for i in range(2)]
    inside, (value, (slopes, slopes_x)) = loops(params, x, jax.random.clone(keys))
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    jax.tree.map(close, inside, both)
    wanted, (wanted_slopes, wanted_slopes_x) = both
    close(value, wanted.sum())
    jax.tree.map(close, slopes, jax.tree.map(lambda g: g.sum(0), wanted_slopes))
    close(slopes_x, wanted_slopes_x)
    assert any(np.any(slope) for slope in jax.tree.leaves((slopes, slopes_x, value)))


def close(a, b):
    size = np.max(np.abs(b), initial=1.0)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * size)
