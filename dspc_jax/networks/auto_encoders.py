"""Auto-encoders of images and of vectors, for the kernel of MMD-GAN."""

from collections.abc import Sequence
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from dspc_jax.interfaces import AutoEncoder
from dspc_jax.networks.convolutions import Conv
from dspc_jax.networks.layers import (
    ImageDecoder,
    Normalizer,
    check_counts,
    check_normalizer,
    check_sizes,
    initializer,
    normalize,
    pyramid,
)
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key


def image_auto_encoder(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    value_range: tuple[float, float] = (0.0, 255.0),
    num_features: int = 100,
    num_filters: int = 64,
    normalizer: str = "batch",
) -> AutoEncoder:
    r"""The convolutional auto-encoder of MMD-GAN, for images of any size.

    Encoder: convolutions 4x4 with stride 2, each halving both sides (rounded up) and
    doubling the filters, until no side exceeds 4; LeakyReLU(0.2); one full-size
    convolution to the features. Decoder: its mirror, with ReLU, cropped to the sizes of
    the encoder's maps, and a tanh. For sides 32 and 64 these are the layers of
    the source; other sides need no resizing (28: 14, 7, 4).

    ``normalizer="batch"`` is the source's: its batch normalization always runs on the
    statistics of the current batch (it is never switched to evaluation), so no running
    averages exist here and ``encode`` stays a pure function. Data and samples are
    normalized by their own batches, so the features of one example depend on its batch.
    ``"group"`` (group normalization, within one example) makes the kernel a function of
    two examples alone, as the theory of the MMD requires; ``"none"`` normalizes
    nothing: under weight clipping to 0.01 its features all but vanish.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        value_range: smallest and largest value of a pixel in the leaves' own units.
        num_features: K.
        num_filters: filters of the first convolution.
        normalizer: see above; the first convolution and the features have none.

    Returns:
        An `AutoEncoder` of images ``[B, height * width, C]``, pixels in row-major
        order.

    Raises:
        ValueError: an argument out of its range, or, on use, images of another size.

    References:
        Li et al., "MMD GAN", NeurIPS 2017, and its published code.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_features=num_features,
        num_filters=num_filters,
    )
    norm = check_normalizer(normalizer)
    sizes = pyramid(height, width)
    encoder = _ImageEncoder(len(sizes) - 1, num_filters, num_features, norm)
    decoder = ImageDecoder(sizes, num_channels, num_filters, norm)
    return _auto_encoder(
        encoder,
        decoder,
        image_shape=(height, width, num_channels),
        example_shape=(height * width, num_channels),
        num_features=num_features,
        value_range=value_range,
    )


def mlp_auto_encoder(
    num_variables: int,
    num_channels: int = 1,
    *,
    value_range: tuple[float, float] | None = None,
    num_features: int = 16,
    hidden_sizes: Sequence[int] = (128, 128),
    normalizer: str = "batch",
) -> AutoEncoder:
    """An auto-encoder of fully connected layers, for values that are not images.

    Args:
        num_variables: V.
        num_channels: C.
        value_range: smallest and largest value, scaled to [-1, 1], where the decoder
            ends in a tanh; or None for unbounded values, taken as they are, and a
            linear end.
        num_features: K.
        hidden_sizes: units of the encoder's hidden layers; reversed in the decoder.
        normalizer: as in `image_auto_encoder`; for every hidden layer but the first.

    Returns:
        An `AutoEncoder`.

    Raises:
        ValueError: an argument out of its range, or, on use, values of another shape.
    """
    check_counts(
        num_variables=num_variables,
        num_channels=num_channels,
        num_features=num_features,
    )
    norm = check_normalizer(normalizer)
    sizes = check_sizes("hidden_sizes", hidden_sizes)
    num_values = num_variables * num_channels
    encoder = _Mlp(sizes, num_features, norm, 0.2, False)
    decoder = _Mlp(sizes[::-1], num_values, norm, 0.0, value_range is not None)
    return _auto_encoder(
        encoder,
        decoder,
        image_shape=(num_values,),
        example_shape=(num_variables, num_channels),
        num_features=num_features,
        value_range=value_range,
    )


def _auto_encoder(
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    image_shape: tuple[int, ...],
    example_shape: tuple[int, int],
    num_features: int,
    value_range: tuple[float, float] | None,
) -> AutoEncoder:
    """Binds two modules to the shape of examples and their range of values."""
    if value_range is not None and not (
        value_range[0] < value_range[1] and all(map(math.isfinite, value_range))
    ):
        raise ValueError(f"value_range must be finite and increase, got {value_range}")

    def scale(x: Array) -> Array:
        x = as_values("x", x)
        if value_range is None:
            return x
        low, high = value_range
        return (x - low) * (2 / (high - low)) - 1

    def init(key: Key) -> dict[str, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, *image_shape))),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, num_features))),
        }

    def encode(params: dict[str, Any], x: Array) -> Array:
        x = as_values("x", x)
        if x.ndim != 3 or x.shape[1:] != example_shape:
            raise ValueError(
                f"x must hold examples of the shape {example_shape}, got {x.shape}"
            )
        images = scale(x).reshape(x.shape[0], *image_shape)
        features = encoder.apply(params["encoder"], images)
        assert isinstance(features, Array)
        return features

    def decode(params: dict[str, Any], features: Array) -> Array:
        values = decoder.apply(params["decoder"], features)
        assert isinstance(values, Array)
        return values.reshape(features.shape[0], *example_shape)

    return AutoEncoder(init, encode, decode, scale)


class _ImageEncoder(nn.Module):
    """``[B, H, W, C] -> [B, K]``: a pyramid of convolutions with stride 2."""

    num_halvings: int
    num_filters: int
    num_features: int
    normalizer: Normalizer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = initializer(self.normalizer)
        for i in range(self.num_halvings):
            filters = self.num_filters * 2**i
            x = Conv(filters, 4, 2, use_bias=False, kernel_init=init)(x)
            x = normalize(self.normalizer, x) if i else x
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.num_features, use_bias=False, kernel_init=init)(x)


class _Mlp(nn.Module):
    """``[B, N] -> [B, M]`` by fully connected layers with LeakyReLU."""

    hidden_sizes: tuple[int, ...]
    num_outputs: int
    normalizer: Normalizer
    negative_slope: float
    bounded: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, size in enumerate(self.hidden_sizes):
            x = nn.Dense(size)(x)
            x = normalize(self.normalizer, x) if i else x
            x = nn.leaky_relu(x, self.negative_slope)
        x = nn.Dense(self.num_outputs)(x)
        return jnp.tanh(x) if self.bounded else x
