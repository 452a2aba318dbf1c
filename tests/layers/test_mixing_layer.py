"""Mixtures of partitions, with regions that own different numbers of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dspc_jax.layers import mixing_layer
from tests import cases

MIXTURE = np.array([[2, 0], [1, -1], [3, 4]])
PLAIN = np.arange(6).reshape(3, 2)
K, N = 2, 4


def random_mixture(mixture, seed=0):
    rng = np.random.default_rng(seed)
    weights = np.where(mixture[:, None] < 0, 0, np.exp(rng.normal(size=(3, K, 2))))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights, 5 * rng.normal(size=(mixture.max() + 1, K, N))


def plain(mixture, weights, log_probs, reduce):
    out = np.empty((len(mixture), K, N))
    for g, row in enumerate(mixture):
        members = [m for m in row if m >= 0]
        log_w = np.log(weights[g, :, : len(members)].T)[..., None]
        out[g] = reduce(log_w + log_probs[members], axis=0)
    return out


@pytest.mark.parametrize("mixture", [MIXTURE, PLAIN], ids=["padded", "plain"])
def test_mixtures(mixture):
    weights, log_probs = random_mixture(mixture)
    both = cases.jit(
        lambda *arrays: (
            mixing_layer.log_mix(mixture, *arrays),
            mixing_layer.log_mix_max(mixture, *arrays),
        )
    )
    result = both(np.float32(weights), np.float32(log_probs))
    for out, reduce in zip(result, (special.logsumexp, np.max), strict=True):
        np.testing.assert_allclose(
            out,
            plain(mixture, weights, log_probs, reduce),
            rtol=1e-5,
            atol=1e-5,
        )


def test_padding_and_impossible_members_get_no_gradient():
    weights, log_probs = random_mixture(MIXTURE)
    log_probs[1] = -np.inf  # all of region 1
    log_probs[3] = -np.inf  # a half of region 2

    @cases.jit
    def with_gradients(weights, log_probs):
        mix = functools.partial(mixing_layer.log_mix, MIXTURE)
        out, pull = jax.vjp(mix, weights, log_probs)
        return out, *pull(jnp.ones_like(out))

    out, d_weights, d_log_probs = with_gradients(
        np.float32(weights), np.float32(log_probs)
    )
    assert (out[1] == -np.inf).all()
    assert np.isfinite(np.delete(out, 1, axis=0)).all()
    assert np.isfinite(d_weights).all()
    assert np.isfinite(d_log_probs).all()
    assert (d_log_probs[[1, 3]] == 0).all()
    assert (d_weights[1] == 0).all()
    # Row 0 stands in for padding; only its true region may reach it.
    np.testing.assert_allclose(d_log_probs[0] + d_log_probs[2], 1, rtol=1e-5)
