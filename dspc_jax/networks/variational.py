"""Variational auto-encoders."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from dspc_jax.networks.convolutions import Conv, ConvTranspose
from dspc_jax.networks.layers import check_counts, count_params, pyramid
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, PyTree


class VariationalAutoEncoder(NamedTuple):
    """Pure functions of a variational auto-encoder of images.

    Attributes:
        init: ``init(key) -> {"encoder": pytree, "decoder": pytree}``.
        encode: ``encode(params, x[B, V, C]) -> (mean, log_variance)``, both ``[B, L]``;
            gray values in [0, 1].
        decode: ``decode(params, z[B, L]) -> [B, V, C]``: logits of the image's means.
        num_latents: L.
    """

    init: Callable[[Array], PyTree]
    encode: Callable[[PyTree, Array], tuple[Array, Array]]
    decode: Callable[[PyTree, Array], Array]
    num_latents: int

    def num_params(self) -> int:
        """The number of parameters of both networks."""
        return count_params(self.init)


def mlp_variational_auto_encoder(
    num_variables: int,
    num_channels: int = 1,
    *,
    width: int = 500,
    num_latents: int = 20,
) -> VariationalAutoEncoder:
    """The paper's networks: one hidden layer of ReLUs on either side of the latents.

    Args:
        num_variables: V.
        num_channels: C.
        width: units of the hidden layers; the paper's are 500.
        num_latents: L; the paper's are 20.

    Returns:
        A `VariationalAutoEncoder`.

    Raises:
        ValueError: an argument below 1.

    References:
        Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.
        Lang et al. 2022, section 4.
    """
    check_counts(
        num_variables=num_variables,
        num_channels=num_channels,
        width=width,
        num_latents=num_latents,
    )
    num_values = num_variables * num_channels
    return _bind(
        _Mlp(width, 2 * num_latents),
        _Mlp(width, num_values),
        (num_values,),
        (num_variables, num_channels),
        num_latents,
    )


def convolutional_variational_auto_encoder(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    num_filters: int = 32,
    num_latents: int = 20,
) -> VariationalAutoEncoder:
    """Convolutions 4x4 with stride 2 down to at most 4x4 maps, and their mirror.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        num_filters: filters of the first convolution, doubled at each smaller size.
        num_latents: L.

    Returns:
        A `VariationalAutoEncoder`.

    Raises:
        ValueError: an argument below 1.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_filters=num_filters,
        num_latents=num_latents,
    )
    sizes = pyramid(height, width)
    return _bind(
        _Convolutions(len(sizes) - 1, num_filters, 2 * num_latents),
        _Transposed(sizes, num_channels, num_filters),
        (height, width, num_channels),
        (height * width, num_channels),
        num_latents,
    )


def _bind(
    encoder: nn.Module,
    decoder: nn.Module,
    image_shape: tuple[int, ...],
    example_shape: tuple[int, int],
    num_latents: int,
) -> VariationalAutoEncoder:
    def init(key: Array) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, *image_shape))),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, num_latents))),
        }

    def encode(params: PyTree, x: Array) -> tuple[Array, Array]:
        x = as_values("x", x)
        if x.ndim != 3 or x.shape[1:] != example_shape:
            raise ValueError(
                f"x must hold examples of the shape {example_shape}, got {x.shape}"
            )
        images = x.reshape(x.shape[0], *image_shape)
        both = encoder.apply(params["encoder"], images)
        assert isinstance(both, Array)
        return both[:, :num_latents], both[:, num_latents:]

    def decode(params: PyTree, z: Array) -> Array:
        logits = decoder.apply(params["decoder"], z)
        assert isinstance(logits, Array)
        return logits.reshape(z.shape[0], *example_shape)

    return VariationalAutoEncoder(init, encode, decode, num_latents)


class _Mlp(nn.Module):
    """One hidden layer."""

    width: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(self.width)(x)))


class _Convolutions(nn.Module):
    """``[B, H, W, C] -> [B, K]``."""

    num_halvings: int
    num_filters: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(self.num_halvings):
            x = nn.relu(Conv(self.num_filters * 2**i, 4, 2)(x))
        return nn.Dense(self.num_outputs)(x.reshape(x.shape[0], -1))


class _Transposed(nn.Module):
    """``[B, K] -> [B, H, W, C]``, cropped to the sizes of the encoder's maps."""

    sizes: tuple[tuple[int, int], ...]
    num_channels: int
    num_filters: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        num_doublings = len(self.sizes) - 1
        height, width = self.sizes[-1]
        filters = self.num_filters * 2 ** (num_doublings - 1)
        x = nn.Dense(height * width * filters)(z)
        x = x.reshape(x.shape[0], height, width, filters)
        for i in reversed(range(num_doublings)):
            filters = self.num_filters * 2 ** (i - 1) if i else self.num_channels
            x = ConvTranspose(filters, 4, 2)(nn.relu(x))
            x = x[:, : self.sizes[i][0], : self.sizes[i][1]]
        return x
