"""Losses on the features of a fixed network, in the place of pixels.

The network is any differentiable function of examples; `mmd_loss` takes it as
``features``. Here are the kernel and the discriminator that fit its features.

References:
    dos Santos et al., "Learning implicit generative models by matching perceptual
    features", ICCV 2019 (features of fixed networks, first and second moments).
    Sauer et al., "Projected GANs converge faster", NeurIPS 2021 (discriminators on
    features of fixed networks).
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np

from dspc_jax.networks.discriminators import Discriminator, mlp_discriminator
from dspc_jax.objectives.kernels import Kernel, gaussian_kernel, median_bandwidths
from dspc_jax.types import Array, PyTree

Features: TypeAlias = Callable[[Array], Array]
"""``x[B, V, C] -> [B, K]``, differentiable; each row depends on its example alone."""

_MIN_DEVIATION = 0.01  # of a feature that is almost never active


def feature_kernel(features: Features, x: Array) -> Kernel:
    """Gaussian kernels scaled to the distances between the features of data.

    Args:
        features: of the fixed network.
        x: ``[N, V, C]`` data, not traced: the kernel's bandwidths are constants.

    Returns:
        A `Kernel` of features: ``mmd_loss(..., kernel=kernel, features=features)``.
    """
    bandwidths = median_bandwidths(jax.jit(features)(x))
    return gaussian_kernel(np.asarray(bandwidths).tolist())


def feature_discriminator(
    features: Features, x: Array, *, hidden_sizes: tuple[int, ...] = (128, 128)
) -> Discriminator:
    """A small network on features: it need not learn to see, only to tell apart.

    Args:
        features: of the fixed network; each is centered and scaled to data first.
        x: ``[N, V, C]`` data, not traced: mean and deviation are constants.
        hidden_sizes: units of the hidden layers.

    Returns:
        A `Discriminator` of examples ``[B, V, C]``, with spectral normalization and
        without dropout.
    """
    of_data = np.asarray(jax.jit(features)(x))
    mean, deviation = of_data.mean(0), np.maximum(of_data.std(0), _MIN_DEVIATION)
    network = mlp_discriminator(
        of_data.shape[1],
        value_range=None,
        hidden_sizes=hidden_sizes,
        dropout_rate=0.0,
        spectral=True,
    )

    def scaled(x: Array) -> Array:
        return ((features(x) - mean[None]) / deviation[None])[..., None]

    def logits(params: PyTree, x: Array) -> Array:
        return network.logits(params, scaled(x))

    def train_logits(key: Array, params: PyTree, x: Array) -> Array:
        return network.train_logits(key, params, scaled(x))

    return Discriminator(network.init, logits, train_logits)
