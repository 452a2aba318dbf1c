"""The evidence lower bound and the networks that it trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dspc_jax.networks import (
    convolutional_variational_auto_encoder,
    mlp_variational_auto_encoder,
)
from dspc_jax.objectives import gaussian_kl, variational_loss
from tests import cases


def test_the_divergence_against_quadrature():
    mean, log_variance = np.array([0.4, -1.0]), np.array([0.3, -0.7])
    grid = np.linspace(-12, 12, 20001)
    expected = 0.0
    for m, v in zip(mean, log_variance, strict=True):
        distribution = stats.norm.logpdf(grid, m, np.exp(v / 2))
        terms = np.exp(distribution) * (distribution - stats.norm.logpdf(grid))
        expected += terms.sum() * (grid[1] - grid[0])
    got = cases.jit(gaussian_kl)(
        np.asarray([mean], np.float32), np.asarray([log_variance], np.float32)
    )
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


def test_the_loss_against_scipy():
    """An encoder without noise and a linear decoder, by hand."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(5, 4, 1)).astype(np.float32)
    weights = rng.normal(size=(2, 4)).astype(np.float32)

    def encode(params, x):
        codes = x[:, :2, 0]
        return codes, jnp.full_like(codes, -60.0)

    loss_of = functools.partial(
        variational_loss,
        encode=encode,
        decode=lambda params, z: (z @ params)[..., None],
        kl_weight=0.5,
    )
    loss, metrics = cases.jit(loss_of)(weights, jax.random.key(0), x)
    z = x[:, :2, 0].astype(np.float64)
    p = special.expit(z @ weights)[..., None]
    entropy = -(special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(axis=(1, 2))
    kl = 0.5 * (z**2 - 1 + 60).sum(axis=1)
    np.testing.assert_allclose(metrics["reconstruction"], entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, entropy.mean() + 0.5 * kl.mean(), rtol=1e-5)


def test_the_noise_has_the_encoder_s_deviation():
    """The reconstruction of a linear decoder sees z ~ N(mean, variance)."""
    x = np.full((20000, 1, 1), 0.5, np.float32)

    def encode(params, x):
        return jnp.full((len(x), 1), 0.3), jnp.full((len(x), 1), 2 * np.log(0.7))

    @cases.jit
    def codes(key):
        visible = []

        def decode(params, z):
            visible.append(z)
            return z[..., None]

        variational_loss({}, key, x, encode=encode, decode=decode)
        return visible[0]

    z = codes(jax.random.key(1))
    np.testing.assert_allclose(z.mean(), 0.3, atol=0.02)
    np.testing.assert_allclose(z.std(), 0.7, atol=0.02)


@pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.slow)])
def test_gradients_reach_all_weights(kind):
    network = (
        mlp_variational_auto_encoder(30, width=8, num_latents=3)
        if kind == "mlp"
        else convolutional_variational_auto_encoder(6, 5, num_filters=2, num_latents=3)
    )
    params = cases.jit(network.init)(jax.random.key(0))
    x = np.random.default_rng(1).random((4, 30, 1), np.float32)
    gradient = jax.grad(
        lambda p: variational_loss(
            p, jax.random.key(2), x, encode=network.encode, decode=network.decode
        )[0]
    )
    grads = cases.jit(gradient)(params)
    assert min(float(np.abs(g).max()) for g in jax.tree.leaves(grads)) > 0
    decoded = jax.eval_shape(network.decode, params, jnp.zeros((2, 3)))
    assert decoded.shape == (2, 30, 1)
    assert network.num_params() == sum(p.size for p in jax.tree.leaves(params))


def test_the_paper_s_network_on_mnist():
    """FC 500, 20 latents: 784 x 500 x 2 weights, 500 x 40 + 20 x 500, biases."""
    network = mlp_variational_auto_encoder(784)
    expected = 784 * 500 + 500 + 500 * 40 + 40 + 20 * 500 + 500 + 500 * 784 + 784
    assert network.num_params() == expected
    with pytest.raises(ValueError, match="num_latents must be at least 1"):
        mlp_variational_auto_encoder(784, num_latents=0)
    params = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match="examples of the shape"):
        network.encode(params, jnp.zeros((2, 5, 1)))
