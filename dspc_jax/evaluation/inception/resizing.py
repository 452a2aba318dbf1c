"""Separable resizing of images, in the two conventions in which FIDs are published."""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array

Resizer = Literal["bicubic", "bilinear"]


def resize(images: Array, height: int, width: int, *, method: Resizer) -> Array:
    """Images at another size, as Pillow or as TensorFlow 1 computes them.

    Args:
        images: ``[B, H, W, C]`` float.
        height: rows of the result.
        width: columns of the result.
        method: ``"bicubic"``, Pillow's, antialiased where the image gets smaller; or
            ``"bilinear"``, TensorFlow 1's without half-pixel centers and without
            antialiasing, which shifts every image up and to the left.

    Returns:
        ``[B, height, width, C]``. Bicubic values overshoot beside edges: clip them.

    Raises:
        ValueError: an unknown method, or a size below 1.

    References:
        Parmar, Zhang and Zhu, "On Aliased Resizing and Surprising Subtleties in GAN
        Evaluation", CVPR 2022.
    """
    if method not in ("bicubic", "bilinear"):
        raise ValueError(f"method must be 'bicubic' or 'bilinear', got {method!r}")
    height = whole_number("height", height, least=1)
    width = whole_number("width", width, least=1)
    weights = bicubic_weights if method == "bicubic" else bilinear_weights
    rows = jnp.asarray(weights(images.shape[1], height), images.dtype)
    columns = jnp.asarray(weights(images.shape[2], width), images.dtype)
    wide = jnp.einsum("bhwc,vw->bhvc", images, columns, precision="highest")
    return jnp.einsum("bhvc,uh->buvc", wide, rows, precision="highest")


def bicubic_weights(num_inputs: int, num_outputs: int) -> np.ndarray:
    """The weights ``[outputs, inputs]`` of Keys' cubic (a = -1/2), stretched to size.

    Every output is a weighted mean around its center, over four inputs, or over four
    outputs' width where the image gets smaller. Weights beyond the border are left out,
    and the rest sums to 1.
    """
    scale = num_inputs / num_outputs
    stretch = max(scale, 1.0)
    centers = (np.arange(num_outputs) + 0.5) * scale
    # Pillow's window of inputs, cut to whole ones before it weighs them.
    first = np.maximum((centers - 2 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centers + 2 * stretch + 0.5).astype(int), num_inputs)
    inputs = np.arange(num_inputs)
    distance = np.abs(inputs[None] + 0.5 - centers[:, None]) / stretch
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    inside = (inputs[None] >= first[:, None]) & (inputs[None] < last[:, None])
    weights = np.where(inside, weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def bilinear_weights(num_inputs: int, num_outputs: int) -> np.ndarray:
    """The weights ``[outputs, inputs]`` of TensorFlow 1: output i lies at i * scale."""
    position = np.arange(num_outputs) * (num_inputs / num_outputs)
    low = position.astype(int)
    high = np.minimum(low + 1, num_inputs - 1)
    part = position - low
    weights = np.zeros((num_outputs, num_inputs))
    rows = np.arange(num_outputs)
    np.add.at(weights, (rows, low), 1 - part)
    np.add.at(weights, (rows, high), part)
    return weights
