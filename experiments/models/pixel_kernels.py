"""Kernels between images that measure the MMD, and the images that scale them."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation import Codec
from dspc_jax.objectives import (
    Kernel,
    gaussian_kernel,
    median_bandwidths,
    rational_quadratic_kernel,
)
from experiments.data import Dataset

_NUM_REFERENCES = 1000  # training images that scale the first leaves and the kernel


def references(dataset: Dataset) -> np.ndarray:
    """Evenly spaced training images, ``[n, V, C]`` uint8."""
    num = min(_NUM_REFERENCES, len(dataset.train))
    rows = np.linspace(0, len(dataset.train) - 1, num)
    return dataset.train[rows.astype(np.int64)]


def pixel_bandwidths(codec: Codec, images: np.ndarray) -> list[float]:
    """Bandwidths of Gaussian kernels between gray values: multiples of the median."""
    return np.asarray(median_bandwidths(_gray(codec, images))).tolist()


def pixel_kernel(codec: Codec, images: np.ndarray, family: str = "gaussian") -> Kernel:
    """A sum of kernels between gray values, scaled to the images' distances.

    Args:
        codec: the units of the images.
        images: ``[n, V, C]`` uint8.
        family: ``gaussian`` of several bandwidths about the median distance, or
            ``rational_quadratic`` of several exponents at the median distance.

    Returns:
        The kernel.
    """
    if family == "rational_quadratic":
        (median,) = np.asarray(median_bandwidths(_gray(codec, images), (1.0,))).tolist()
        return rational_quadratic_kernel(bandwidth=median)
    return gaussian_kernel(pixel_bandwidths(codec, images))


def _gray(codec: Codec, levels: np.ndarray) -> jax.Array:
    """Images as gray values, for fixed noise: bandwidths need no more."""
    return codec.to_unit(codec.encode(jax.random.key(0), jnp.asarray(levels)))
