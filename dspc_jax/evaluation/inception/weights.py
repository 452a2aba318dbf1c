"""Parameters of the FID's Inception network from its published weights file."""

from collections.abc import Mapping
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation.inception.network import NUM_CLASSES, Inception
from dspc_jax.safe_files import read_tensors
from dspc_jax.types import PyTree

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256_PREFIX = "6726825d"
"""First digits of the published file's sha256; by convention part of its name."""
_EPSILON = 1e-3
"""Added to the variances of the batch normalization, as in the source."""


def read_inception_params(data: bytes, *, sha256_prefix: str = SHA256_PREFIX) -> PyTree:
    """The parameters of `inception_outputs` from the contents of the weights file.

    Args:
        data: the file ``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid.
        sha256_prefix: first digits of the contents' sha256, in hexadecimal; they are
            compared before anything is parsed.

    Returns:
        The parameters.

    Raises:
        ValueError: another hash, a file that holds anything but tensors, or tensors of
            other names, shapes or types.
    """
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256_prefix):
        raise ValueError(
            f"the sha256 of {FILE_NAME} must begin with {sha256_prefix}, got "
            f"{digest[:16]}... of {len(data)} bytes: another or a damaged file"
        )
    return params_from_tensors(read_tensors(data))


def expected_tensors() -> dict[str, tuple[int, ...]]:
    """Names and shapes that the weights file must hold for our layers."""
    expected: dict[str, tuple[int, ...]] = {}
    for path, kernel in _layers().items():
        if path == "fc":
            expected["fc.weight"] = kernel[::-1]
            expected["fc.bias"] = (NUM_CLASSES,)
            continue
        height, width, inputs, outputs = kernel
        expected[f"{path}.conv.weight"] = (outputs, inputs, height, width)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{path}.bn.{name}"] = (outputs,)
        expected[f"{path}.bn.num_batches_tracked"] = ()
    return expected


def params_from_tensors(tensors: Mapping[str, np.ndarray]) -> PyTree:
    r"""The parameters of the network from the tensors of the weights file.

    A convolution without bias and the batch normalization behind it,
    :math:`\gamma (w * x - \mu) / \sqrt{\sigma^2 + 0.001} + \beta`, become one
    convolution with bias; the products are taken in float64.

    Args:
        tensors: named as in the file.

    Returns:
        The parameters of `Inception`, float32.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, or not finite.
    """
    expected = expected_tensors()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(
            f"tensors must hold {missing[0]!r}, got none of it ({len(missing)} missing)"
        )
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise ValueError(
            f"tensors must be those of Inception, got {unknown[0]!r} ({len(unknown)} "
            "unknown)"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {tensor.shape}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    params: dict = {}
    for path in _layers():
        *parents, layer = path.split(".")
        target = functools.reduce(lambda d, key: d.setdefault(key, {}), parents, params)
        if path == "fc":
            target[layer] = {"kernel": jnp.asarray(tensors["fc.weight"].T)}
            continue
        weight, bias, mean, variance = (
            np.asarray(tensors[f"{path}.bn.{name}"], np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        if variance.min() < 0:
            raise ValueError(
                f"{path}.bn.running_var must not be negative, got {variance.min()}"
            )
        scale = weight / np.sqrt(variance + _EPSILON)
        kernel = tensors[f"{path}.conv.weight"].transpose(2, 3, 1, 0)
        target[layer] = {
            "kernel": jnp.asarray(kernel * scale[None, None, None], jnp.float32),
            "bias": jnp.asarray(bias - mean * scale, jnp.float32),
        }
    return params


@functools.cache  # a constant, and tracing the network takes a second
def _layers() -> dict[str, tuple[int, ...]]:
    """The layers by their dotted names in the file, with the shapes of our kernels."""
    image = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
    params = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {
        ".".join(key.key for key in path[:-1]): leaf.shape
        for path, leaf in leaves
        if path[-1].key == "kernel"
    }
