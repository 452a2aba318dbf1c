"""The Inception-v3 of the original FID code, as a pure function of its weights.

It differs from other networks of that name: average pooling does not count the padding,
the last block pools by the maximum, there are 1008 classes, and its weights are those
of the file ``inception-2015-12-05``. Batch normalization with fixed statistics is an
affine map; it is part of the kernels and biases here (see `weights`).

References:
    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture
    for Computer Vision", CVPR 2016; Heusel et al., "GANs Trained by a Two Time-Scale
    Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.
"""

from typing import NamedTuple

from flax import linen as nn
from jax.lax import Precision
import jax.numpy as jnp

from dspc_jax.evaluation.inception.resizing import Resizer, resize
from dspc_jax.types import Array, PyTree

SIZE = 299
"""Rows and columns of the images that the network was trained on."""
NUM_FEATURES = 2048
NUM_CLASSES = 1008


class InceptionOutput(NamedTuple):
    """The network's outputs for a batch of images.

    Attributes:
        features: ``[B, 2048]``, the averages of the last block: for the FID and the
            KID.
        logits: ``[B, 1008]``, without the bias of the last layer, as the published code
            of the Inception Score takes them.
    """

    features: Array
    logits: Array


def inception_outputs(
    params: PyTree, images: Array, *, method: Resizer = "bicubic"
) -> InceptionOutput:
    """Features and logits of images of any size.

    Args:
        params: from `weights.params_from_tensors`.
        images: ``[B, H, W, C]`` gray levels from 0 to 255, of any dtype; C = 1 is
            repeated to 3.
        method: resizing to 299x299: ``"bicubic"`` as in clean-fid, clipped to [0,
            255], or ``"bilinear"`` as in the original FID code. Values of the two are
            not comparable.

    Returns:
        An `InceptionOutput`, computed in full float32 on every device.

    Raises:
        ValueError: the shape is another, or the method is unknown.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be of shape [B, H, W, 1] or [B, H, W, 3], got {images.shape}"
        )
    x = resize(images.astype(jnp.float32), SIZE, SIZE, method=method)
    x = (jnp.clip(x, 0, 255) - 128) / 128
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    return Inception().apply({"params": params}, x)  # type: ignore[return-value]


class Inception(nn.Module):
    """The network on images ``[B, H, W, 3]`` in [-1, 1], at least 75 rows and columns.

    The names of the layers are those of the weights file.
    """

    @nn.compact
    def __call__(self, x: Array) -> InceptionOutput:  # noqa: D102
        x = _conv(x, 32, 3, "Conv2d_1a_3x3", strides=2, padding="VALID")
        x = _conv(x, 32, 3, "Conv2d_2a_3x3", padding="VALID")
        x = _conv(x, 64, 3, "Conv2d_2b_3x3")
        x = _halve(x)
        x = _conv(x, 80, 1, "Conv2d_3b_1x1")
        x = _conv(x, 192, 3, "Conv2d_4a_3x3", padding="VALID")
        x = _halve(x)
        x = BlockA(32, name="Mixed_5b")(x)
        x = BlockA(64, name="Mixed_5c")(x)
        x = BlockA(64, name="Mixed_5d")(x)
        x = BlockB(name="Mixed_6a")(x)
        x = BlockC(128, name="Mixed_6b")(x)
        x = BlockC(160, name="Mixed_6c")(x)
        x = BlockC(160, name="Mixed_6d")(x)
        x = BlockC(192, name="Mixed_6e")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE("average", name="Mixed_7b")(x)
        x = BlockE("maximum", name="Mixed_7c")(x)
        features = jnp.mean(x, (1, 2))
        logits = nn.Dense(
            NUM_CLASSES, use_bias=False, precision=Precision.HIGHEST, name="fc"
        )(features)
        return InceptionOutput(features, logits)


class BlockA(nn.Module):
    """Maps of 35x35: kernels of 1, 5, twice 3, and pooling."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        return _join(
            _conv(x, 64, 1, "branch1x1"),
            _chain(x, "branch5x5", (48, 1), (64, 5)),
            _chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3)),
            _conv(_average(x), self.pool_features, 1, "branch_pool"),
        )


class BlockB(nn.Module):
    """From 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        double = _conv(x, 64, 1, "branch3x3dbl_1")
        double = _conv(double, 96, 3, "branch3x3dbl_2")
        return _join(
            _conv(x, 384, 3, "branch3x3", strides=2, padding="VALID"),
            _conv(double, 96, 3, "branch3x3dbl_3", strides=2, padding="VALID"),
            _halve(x),
        )


class BlockC(nn.Module):
    """Maps of 17x17: kernels of 7 along one axis at a time."""

    inner_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        inner, row, column = self.inner_features, (1, 7), (7, 1)
        return _join(
            _conv(x, 192, 1, "branch1x1"),
            _chain(x, "branch7x7", (inner, 1), (inner, row), (192, column)),
            _chain(
                x,
                "branch7x7dbl",
                (inner, 1),
                (inner, column),
                (inner, row),
                (inner, column),
                (192, row),
            ),
            _conv(_average(x), 192, 1, "branch_pool"),
        )


class BlockD(nn.Module):
    """From 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        small = _conv(x, 192, 1, "branch3x3_1")
        large = _chain(x, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)))
        return _join(
            _conv(small, 320, 3, "branch3x3_2", strides=2, padding="VALID"),
            _conv(large, 192, 3, "branch7x7x3_4", strides=2, padding="VALID"),
            _halve(x),
        )


class BlockE(nn.Module):
    """Maps of 8x8: branches that end in a row and a column side by side."""

    pooling: str  # "average", or "maximum" as in the last block of the source

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        single = _conv(x, 384, 1, "branch3x3_1")
        double = _chain(x, "branch3x3dbl", (448, 1), (384, 3))
        pooled = (
            _average(x)
            if self.pooling == "average"
            else nn.max_pool(x, (3, 3), (1, 1), "SAME")
        )
        return _join(
            _conv(x, 320, 1, "branch1x1"),
            _conv(single, 384, (1, 3), "branch3x3_2a"),
            _conv(single, 384, (3, 1), "branch3x3_2b"),
            _conv(double, 384, (1, 3), "branch3x3dbl_3a"),
            _conv(double, 384, (3, 1), "branch3x3dbl_3b"),
            _conv(pooled, 192, 1, "branch_pool"),
        )


def _conv(
    x: Array,
    features: int,
    kernel: int | tuple[int, int],
    name: str,
    *,
    strides: int = 1,
    padding: str = "SAME",
) -> Array:
    """A convolution and the rectifier, inside a compact module."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    layer = nn.Conv(
        features,
        size,
        (strides, strides),
        padding,
        precision=Precision.HIGHEST,
        name=name,
    )
    return nn.relu(layer(x))


def _chain(x: Array, name: str, *layers: tuple[int, int | tuple[int, int]]) -> Array:
    """Convolutions ``name_1``, ``name_2`` ... of ``(features, kernel)``."""
    for number, (features, kernel) in enumerate(layers, 1):
        x = _conv(x, features, kernel, f"{name}_{number}")
    return x


def _average(x: Array) -> Array:
    """Means over 3x3 neighbors, those outside of the map left out."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _halve(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, -1)
