"""What weights files of published convolutional networks have in common."""

from collections.abc import Mapping
import hashlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from dspc_jax.types import Array

_EPSILON = 1e-3
"""Added to the variances of the batch normalization, as in the sources."""
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def check_hash(name: str, data: bytes, sha256: str) -> None:
    """Refuses another file, before anything is parsed.

    Args:
        name: of the file, for the error.
        data: its contents.
        sha256: of the contents, in hexadecimal, or its first digits.

    Raises:
        ValueError: another hash.
    """
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256):
        raise ValueError(
            f"the sha256 of {name} must begin with {sha256[:16]}, got "
            f"{digest[:16]}... of {len(data)} bytes: another or a damaged file"
        )


def tensors_of_convolution(
    conv: str, norm: str, kernel: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a convolution's tensors and its batch normalization's.

    Args:
        conv: the name of the convolution in the file.
        norm: that of the batch normalization behind it.
        kernel: the shape of ours, ``[height, width, inputs, outputs]``.
    """
    height, width, inputs, outputs = kernel
    return {
        f"{conv}.weight": (outputs, inputs, height, width),
        **{f"{norm}.{name}": (outputs,) for name in _STATISTICS},
        f"{norm}.num_batches_tracked": (),
    }


def check_tensors(
    network: str,
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuses tensors of other names, shapes or values.

    Args:
        network: its name, for the error.
        tensors: by name, as in the file.
        expected: the shapes, by name.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, or not finite.
    """
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(
            f"tensors must hold {missing[0]!r}, got none of it ({len(missing)} missing)"
        )
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise ValueError(
            f"tensors must be those of {network}, got {unknown[0]!r} ({len(unknown)} "
            "unknown)"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {tensor.shape}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")


def convolution(
    tensors: Mapping[str, np.ndarray], conv: str, norm: str
) -> dict[str, Array | Any]:
    r"""One convolution with bias.

    It is that of one without and the batch normalization behind it,
    :math:`\gamma (w * x - \mu) / \sqrt{\sigma^2 + 0.001} + \beta`; the products are
    taken in float64.

    Args:
        tensors: by name, as in the file.
        conv: the name of the convolution.
        norm: that of the batch normalization.

    Returns:
        ``kernel`` ``[height, width, inputs, outputs]`` and ``bias`` ``[outputs]``,
        float32.

    Raises:
        ValueError: a variance is negative.
    """
    weight, bias, mean, variance = (
        np.asarray(tensors[f"{norm}.{name}"], np.float64) for name in _STATISTICS
    )
    if variance.min() < 0:
        raise ValueError(
            f"{norm}.running_var must not be negative, got {variance.min()}"
        )
    scale = weight / np.sqrt(variance + _EPSILON)
    kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
    return {
        "kernel": jnp.asarray(kernel * scale[None, None, None], jnp.float32),
        "bias": jnp.asarray(bias - mean * scale, jnp.float32),
    }
