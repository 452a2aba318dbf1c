"""Log-einsum-exp against plain sums in float64, edges included."""

import functools

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dspc_jax.layers import sum_layer
from tests import cases, oracles

P, Y, K, N = 3, 2, 4, 5  # Y: output units


def random_layer(kind, sides, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    shape = (P, Y, K, K) if kind == "tucker" and sides == 2 else (P, Y, K)
    weights = np.exp(rng.normal(size=shape))
    weights /= weights.sum(axis=tuple(range(2, len(shape))), keepdims=True)
    children = [spread * rng.normal(size=(P, K, N)) for _ in range(sides)]
    return weights, children


def plain(kind, weights, children, reduce):
    """Terms written out, examples last."""
    log_w = np.log(weights, out=np.full_like(weights, -np.inf), where=weights > 0)
    if kind == "tucker" and len(children) == 2:
        pairs = children[0][:, None, :, None] + children[1][:, None, None]
        return reduce(log_w[..., None] + pairs, axis=(2, 3))
    return reduce(log_w[..., None] + np.sum(children, axis=0)[:, None], axis=2)


kinds = pytest.mark.parametrize(
    ("kind", "sides"), [("tucker", 2), ("hadamard", 2), ("tucker", 1), ("hadamard", 1)]
)


def float32(*trees):
    return jax.tree.map(np.float32, trees)


both = cases.jit(
    lambda kind, *arrays: [
        f(kind, *arrays) for f in (sum_layer.log_sum, sum_layer.log_max)
    ],
    static_argnums=0,
)


@functools.partial(cases.jit, static_argnums=0)
def with_gradients(kind, weights, children):
    """Sums, and the gradients of their total."""
    function = functools.partial(sum_layer.log_sum, kind)
    out, pull = jax.vjp(function, weights, children)
    return out, *pull(jnp.ones_like(out))


@kinds
@pytest.mark.parametrize("spread", [1.0, 30.0, 3e4])
def test_sums_and_maxima(kind, sides, spread):
    """Down to log-values of -1e5, where only the digits of float32 are lost."""
    weights, children = random_layer(kind, sides, spread=spread)
    result = both(kind, *float32(weights, children))
    for out, reduce in zip(result, (oracles.logsumexp, np.max), strict=True):
        exact = plain(kind, weights, children, reduce)
        np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "sides"),
    [
        *(("tucker", 2), ("hadamard", 2)),
        *(
            pytest.param(kind, 1, marks=pytest.mark.slow)
            for kind in ("tucker", "hadamard")
        ),
    ],
)
def test_gradients(kind, sides, x64):
    """The custom derivative against finite differences, and its own derivative."""
    weights, children = random_layer(kind, sides)
    weights, children = jnp.asarray(weights), [jnp.asarray(c) for c in children]

    @jax.jit
    def function(weights, children):
        return sum_layer.log_sum(kind, weights, children)

    check_grads(function, (weights, children), order=2, modes=["rev"])


@kinds
def test_zero_weights_and_impossible_children(kind, sides):
    weights, children = random_layer(kind, sides)
    weights[0, 0, 0] = 0
    weights[1, 1] = 0  # a sum without any weight
    for child in children:
        child[0, 1] = -np.inf
        child[2, :, 3] = -np.inf  # an impossible child
    out, d_weights, d_children = with_gradients(kind, *float32(weights, children))
    exact = plain(kind, weights, children, oracles.logsumexp)
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
    assert (out[2, :, 3] == -np.inf).all()
    assert (out[1, 1] == -np.inf).all()
    for gradient in (d_weights, *d_children):
        assert np.isfinite(gradient).all()
    for gradient in d_children:
        assert (gradient[2, :, 3] == 0).all()
        assert (gradient[0, 1] == 0).all()
    assert (d_weights[1, 1] == 0).all()


@kinds
def test_zero_weights_far_below_an_impossible_winner(kind, sides):
    """The best child has weight 0 and leads by 100 nats: the sum is not impossible."""
    weights, children = random_layer(kind, sides)
    for child in children:
        child[:, 0] += 100
    weights[:, :, 0] = 0
    if weights.ndim == 4:
        weights[:, :, :, 0] = 0
    weights /= weights.sum(axis=tuple(range(2, weights.ndim)), keepdims=True)
    arrays = float32(weights, children)
    exact = plain(kind, weights, children, oracles.logsumexp)
    out, d_weights, d_children = with_gradients(kind, *arrays)
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-4)
    # What a softmax's derivative makes of it: 0 times anything but infinity.
    assert not np.isnan(arrays[0] * d_weights).any()
    assert all(np.isfinite(gradient).all() for gradient in d_children)


@kinds
def test_no_gradient_passes_the_tops(kind, sides):
    """They cancel; that of a maximum is NaN where rounding hides its argument."""
    weights, children = float32(*random_layer(kind, sides))

    def tops(children):
        return sum_layer.shifted(weights, sum_layer.factors(kind, children))[1]

    @cases.jit
    def gradient_of(children):
        out, pull = jax.vjp(tops, children)
        return pull(out)

    (gradient,) = gradient_of(children)
    assert all((np.asarray(g) == 0).all() for g in gradient)


def test_weight_shapes():
    assert sum_layer.weight_shape("tucker", (2, 3)) == (2, 3)
    assert sum_layer.weight_shape("hadamard", (3, 3)) == (3,)
