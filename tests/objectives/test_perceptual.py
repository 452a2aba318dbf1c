"""Kernel and discriminator on the features of a fixed network."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.networks import feature_discriminator
from dspc_jax.objectives import (
    feature_kernel,
    gaussian_kernel,
    median_bandwidths,
    mmd2_unbiased,
    mmd_loss,
)
from tests import cases

WEIGHTS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def features(x):
    """``[B, 6, 1] -> [B, 5]``; the last is never active."""
    return jax.nn.relu(x[..., 0] @ WEIGHTS) * jnp.asarray([[1.0, 2, 3, 4, 0]])


def points(seed, count=40):
    return cases.normal(seed, count, 6, 1)


def test_the_kernel_is_scaled_to_the_features():
    x, y = points(0), points(1)
    kernel = feature_kernel(features, x)
    of_x, of_y = cases.jit(lambda: (features(x), features(y)))()
    bandwidths = cases.jit(median_bandwidths)(of_x).tolist()
    estimate = cases.jit(mmd2_unbiased, static_argnums=2)
    expected = estimate(of_x, of_y, gaussian_kernel(bandwidths))

    @cases.jit
    def losses(key):
        loss, _ = mmd_loss(
            *((), key, x),
            sample=lambda keys, params: jnp.asarray(y),
            kernel=kernel,
            features=features,
        )
        return loss, mmd2_unbiased(x, y, kernel)

    loss, of_values = losses(jax.random.key(2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert abs(of_values - expected) > 1e-3


def test_the_discriminator_sees_features_alone_and_scaled():
    x = points(0)
    discriminator = feature_discriminator(features, x)
    params = cases.jit(discriminator.init)(jax.random.key(3))
    logits = np.asarray(cases.jit(discriminator.logits)(params, x))
    assert logits.shape == (40,)
    assert np.std(logits) > 0
    # With spectral norms of 1 no logit moves more than the scaled features do.
    visible = cases.jit(features)(x)
    scaled = visible / np.maximum(visible.std(0), 0.01)
    moved = np.linalg.norm(np.diff(scaled, axis=0), axis=1)
    assert (np.abs(np.diff(logits)) <= 1.01 * moved).all()
    trained = cases.jit(discriminator.train_logits)(jax.random.key(4), params, x)
    np.testing.assert_allclose(trained, logits, rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda x: discriminator.logits(params, x).sum())
    slopes = np.asarray(cases.jit(slope)(x))
    assert np.isfinite(slopes).all()
    assert np.abs(slopes).max() > 0
