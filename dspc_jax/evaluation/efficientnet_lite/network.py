"""EfficientNet-Lite0, 1 and 2, as pure functions of their weights.

The networks of the EfficientNet paper without squeeze-and-excitation, with ReLU6 in the
place of the swish, and with a stem and a head of the same width in all of them. Batch
normalization with fixed statistics is an affine map; it is part of the kernels and
biases here (see `weights`).

References:
    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks", ICML 2019; the Lite variants are those of TensorFlow's TPU models, 2020.
"""

import math
from typing import Literal, NamedTuple

from flax import linen as nn
import jax
from jax.lax import Precision
import jax.numpy as jnp

from dspc_jax.evaluation.efficientnet_lite.depthwise import depthwise_convolution
from dspc_jax.types import Array, PyTree

Variant = Literal["lite0", "lite1", "lite2"]
NUM_FEATURES = 1280
NUM_CLASSES = 1000
_STEM_FEATURES = 32
_DIVISOR = 8  # numbers of channels are multiples of it


class Scale(NamedTuple):
    """How a network differs from Lite0.

    Attributes:
        size: rows and columns of the images that it was trained on.
        width: factor of the numbers of channels.
        depth: factor of the numbers of blocks.
    """

    size: int
    width: float
    depth: float


SCALES: dict[str, Scale] = {
    "lite0": Scale(224, 1.0, 1.0),
    "lite1": Scale(240, 1.0, 1.1),
    "lite2": Scale(260, 1.1, 1.2),
}


class BlockShape(NamedTuple):
    """An inverted bottleneck.

    Attributes:
        features: channels of its output.
        kernel: side of its depthwise convolution.
        stride: of the depthwise convolution.
        expansion: hidden channels for each one of the input.
    """

    features: int
    kernel: int
    stride: int
    expansion: int


# Blocks, and the shape of the first; the others of a stage have a stride of 1.
_STAGES = (
    (1, BlockShape(16, 3, 1, 1)),
    (2, BlockShape(24, 3, 2, 6)),
    (2, BlockShape(40, 5, 2, 6)),
    (3, BlockShape(80, 3, 2, 6)),
    (3, BlockShape(112, 5, 1, 6)),
    (4, BlockShape(192, 5, 2, 6)),
    (1, BlockShape(320, 3, 1, 6)),
)


class EfficientNetLiteOutput(NamedTuple):
    """The network's outputs for a batch of images.

    Attributes:
        features: ``[B, 1280]``, the averages of the last map, which the classifier
            sees.
        logits: ``[B, 1000]`` of the classes of ImageNet, in the usual order.
        maps: four maps ``[B, H / s, W / s, K]``, rounded up, for s = 4, 8, 16, 32: the
            outputs of the last block of each resolution, before the head.
    """

    features: Array
    logits: Array
    maps: tuple[Array, ...]


def efficientnet_lite_outputs(
    params: PyTree, images: Array, *, variant: Variant
) -> EfficientNetLiteOutput:
    """Features, logits and maps of images of any size.

    Images are resized to the network's own size by the triangle filter, which is
    stretched where they get smaller (antialiasing), as Pillow's bilinear one. It never
    overshoots, so nothing is clipped, and gradients reach every pixel.

    Args:
        params: from `weights.params_from_tensors`, of the same variant.
        images: ``[B, H, W, C]`` gray levels from 0 to 255, of any dtype; C = 1 is
            repeated to 3.
        variant: ``"lite0"`` (224 x 224), ``"lite1"`` (240 x 240) or ``"lite2"`` (260 x
            260).

    Returns:
        An `EfficientNetLiteOutput`, computed in full float32 on every device. Inside of
        `jax.jit`, what is not used is not computed.

    Raises:
        ValueError: the shape is another, or the variant is unknown.
    """
    scale = scale_of(variant)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be of shape [B, H, W, 1] or [B, H, W, 3], got {images.shape}"
        )
    shape = (len(images), scale.size, scale.size, images.shape[-1])
    x = jax.image.resize(images.astype(jnp.float32), shape, "linear", antialias=True)
    x = jnp.broadcast_to((x - 127) / 128, (*shape[:3], 3))
    network = EfficientNetLite(variant)
    return network.apply({"params": params}, x)  # type: ignore[return-value]


def scale_of(variant: str) -> Scale:
    """Size, width and depth of a variant; raises `ValueError` for an unknown one."""
    if variant not in SCALES:
        raise ValueError(f"variant must be one of {', '.join(SCALES)}, got {variant!r}")
    return SCALES[variant]


def block_shapes(variant: str) -> list[BlockShape]:
    """The blocks of a variant, in order."""
    _, width, depth = scale_of(variant)
    shapes = []
    for place, (num_blocks, first) in enumerate(_STAGES):
        if 0 < place < len(_STAGES) - 1:  # the first and the last stay single
            num_blocks = math.ceil(depth * num_blocks)
        first = first._replace(features=_rounded(width * first.features))
        shapes += [first, *[first._replace(stride=1)] * (num_blocks - 1)]
    return shapes


def _rounded(features: float) -> int:
    """The nearest multiple of the divisor, but not less than 90 %."""
    nearest = int(features + _DIVISOR / 2) // _DIVISOR * _DIVISOR
    return nearest if nearest >= 0.9 * features else nearest + _DIVISOR


class EfficientNetLite(nn.Module):
    """The network on images ``[B, H, W, 3]``, scaled to about [-1, 1]."""

    variant: str

    @nn.compact
    def __call__(self, x: Array) -> EfficientNetLiteOutput:  # noqa: D102
        x = _relu6(_conv(x, _STEM_FEATURES, 3, "stem", stride=2))
        maps: list[Array] = []
        shapes = block_shapes(self.variant)
        for number, shape in enumerate(shapes):
            if shape.stride > 1 and number > 1:
                maps.append(x)
            x = Block(shape, name=f"block_{number}")(x)
        maps.append(x)
        x = _relu6(_conv(x, NUM_FEATURES, 1, "head"))
        features = jnp.mean(x, (1, 2))
        logits = nn.Dense(NUM_CLASSES, precision=Precision.HIGHEST, name="classifier")(
            features
        )
        return EfficientNetLiteOutput(features, logits, tuple(maps))


class Block(nn.Module):
    """An inverted bottleneck: expanded, convolved channel by channel, projected."""

    shape: BlockShape

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        shape, num_inputs = self.shape, x.shape[-1]
        hidden = x
        if shape.expansion != 1:
            hidden = _relu6(_conv(x, shape.expansion * num_inputs, 1, "expand"))
        hidden = Depthwise(shape.kernel, shape.stride, name="depthwise")(hidden)
        y = _conv(_relu6(hidden), shape.features, 1, "project")
        return x + y if shape.stride == 1 and num_inputs == shape.features else y


class Depthwise(nn.Module):
    """A convolution of every channel by itself, with bias."""

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        shape = self.kernel, self.kernel, 1, x.shape[-1]  # as XLA's with groups
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        y = depthwise_convolution(x, kernel[:, :, 0], stride=self.stride)
        return y + bias[None, None, None]


def _conv(x: Array, features: int, kernel: int, name: str, *, stride: int = 1) -> Array:
    """A convolution with bias, inside a compact module."""
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        "SAME",
        precision=Precision.HIGHEST,
        name=name,
    )(x)


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)
