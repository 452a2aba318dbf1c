"""Losses on the features of a fixed network, in the place of pixels.

The network is any differentiable function of examples; `mmd_loss` takes it as
``features``. Here is the kernel that fits its
features; `dspc_jax.networks.feature_discriminator` is the discriminator.

References:
    dos Santos et al., "Learning implicit generative models by matching perceptual
    features", ICCV 2019 (features of fixed networks, first and second moments).
    Sauer et al., "Projected GANs converge faster", NeurIPS 2021 (discriminators on
    features of fixed networks).
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from dspc_jax.objectives.kernels import Kernel, gaussian_kernel, median_bandwidths
from dspc_jax.ops.streaming import in_batches
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array

Features: TypeAlias = Callable[[Array], Array]
"""``x[B, V, C] -> [B, K]``, differentiable; each row depends on its example alone."""


def feature_kernel(features: Features, x: Array) -> Kernel:
    """Gaussian kernels scaled to the distances between the features of data.

    Args:
        features: of the fixed network.
        x: ``[N, V, C]`` data, not traced: the kernel's bandwidths are constants.

    Returns:
        A `Kernel` of features: ``mmd_loss(..., kernel=kernel, features=features)``.
    """
    of_data = in_batches(features, as_values("x", x))
    bandwidths = median_bandwidths(jnp.asarray(of_data))
    return gaussian_kernel(np.asarray(bandwidths).tolist())
