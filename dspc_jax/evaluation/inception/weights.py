"""Parameters of the FID's Inception network from its published weights file."""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation.inception.network import NUM_CLASSES, Inception
from dspc_jax.evaluation.published_weights import (
    check_hash,
    check_tensors,
    convolution,
    tensors_of_convolution,
)
from dspc_jax.safe_files import read_tensors
from dspc_jax.types import PyTree

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256_PREFIX = "6726825d"
"""First digits of the published file's sha256; by convention part of its name."""


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
    check_hash(FILE_NAME, data, sha256_prefix)
    return params_from_tensors(read_tensors(data))


def expected_tensors() -> dict[str, tuple[int, ...]]:
    """Names and shapes that the weights file must hold for our layers."""
    expected: dict[str, tuple[int, ...]] = {}
    for path, kernel in _layers().items():
        if path == "fc":
            expected["fc.weight"] = kernel[::-1]
            expected["fc.bias"] = (NUM_CLASSES,)
            continue
        names = f"{path}.conv", f"{path}.bn"
        expected |= tensors_of_convolution(*names, kernel)
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
    check_tensors("Inception", tensors, expected_tensors())
    params: dict = {}
    for path in _layers():
        *parents, layer = path.split(".")
        target = functools.reduce(lambda d, key: d.setdefault(key, {}), parents, params)
        if path == "fc":
            target[layer] = {"kernel": jnp.asarray(tensors["fc.weight"].T)}
            continue
        target[layer] = convolution(tensors, f"{path}.conv", f"{path}.bn")
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
