"""Networks that distinguish data from samples."""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from dspc_jax.interfaces import Discriminator
from dspc_jax.networks.layers import (
    ImagePyramid,
    check_counts,
    check_range,
    check_sizes,
    pyramid,
    scaled_images,
)
from dspc_jax.networks.spectral import spectrally_normalized
from dspc_jax.ops.streaming import in_batches
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, PyTree

_MIN_DEVIATION = 0.01  # of a feature that is almost never active


def mlp_discriminator(
    num_variables: int,
    num_channels: int = 1,
    *,
    value_range: tuple[float, float] | None = (0.0, 1.0),
    hidden_sizes: Sequence[int] = (1024, 512, 256),
    dropout_rate: float = 0.3,
    spectral: bool = False,
) -> Discriminator:
    """The paper's discriminator: fully connected, LeakyReLU, dropout in training.

    The defaults are those of its source: slopes 0.2, 0.3, 0.2 (0.2 for layers beyond),
    dropout after all hidden layers but the last.

    Args:
        num_variables: V.
        num_channels: C.
        value_range: smallest and largest value, scaled to [-1, 1]; None for values that
            are taken as they are.
        hidden_sizes: units of the hidden layers.
        dropout_rate: in [0, 1), for ``train_logits``.
        spectral: whether every kernel is divided by its spectral norm.

    Returns:
        A `Discriminator`.

    Raises:
        ValueError: an argument out of its range, or, on use, values of another shape.
    """
    check_counts(num_variables=num_variables, num_channels=num_channels)
    sizes = check_sizes("hidden_sizes", hidden_sizes)
    if not 0 <= dropout_rate < 1:
        raise ValueError(
            f"dropout_rate must be at least 0 and less than 1, got {dropout_rate}"
        )
    return _discriminator(
        _MlpScore(sizes, dropout_rate),
        (num_variables, num_channels),
        (num_variables * num_channels,),
        value_range,
        spectral=spectral,
    )


def convolutional_discriminator(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    value_range: tuple[float, float] | None = (0.0, 1.0),
    num_filters: int = 64,
    spectral: bool = True,
) -> Discriminator:
    """A convolutional discriminator with spectral normalization, for any image size.

    A 3x3 convolution, then 4x4 convolutions with stride 2 that double the filters until
    no side exceeds 4, LeakyReLU(0.1) after each, and one linear score: the layers of
    Miyato et al.'s "standard CNN", with one convolution a size in place of two.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        value_range: as in `mlp_discriminator`.
        num_filters: filters of the first convolution.
        spectral: whether every kernel is divided by its spectral norm.

    Returns:
        A `Discriminator` of ``[B, height * width, C]``, pixels in row-major order.

    Raises:
        ValueError: an argument out of its range, or, on use, images of another size.

    References:
        Miyato et al., "Spectral normalization for generative adversarial networks",
        ICLR 2018, table 3.
    """
    check_counts(
        height=height, width=width, num_channels=num_channels, num_filters=num_filters
    )
    return _discriminator(
        _ImageScore(len(pyramid(height, width)) - 1, num_filters, 1, 0.1),
        (height * width, num_channels),
        (height, width, num_channels),
        value_range,
        spectral=spectral,
    )


def _discriminator(
    module: nn.Module,
    example_shape: tuple[int, int],
    image_shape: tuple[int, ...],
    value_range: tuple[float, float] | None,
    *,
    spectral: bool,
) -> Discriminator:
    """Binds a module to the shape of examples and their range of values."""
    check_range(value_range)

    def scores(params: PyTree, x: Array, rngs: dict[str, Array] | None) -> Array:
        images = scaled_images(x, example_shape, image_shape, value_range)
        if spectral:
            params = spectrally_normalized(params)
        out = module.apply(params, images, train=rngs is not None, rngs=rngs)
        assert isinstance(out, Array)
        return out[:, 0]

    def init(key: Array) -> PyTree:
        return module.init(key, jnp.zeros((1, *image_shape)))

    return Discriminator(
        init=init,
        logits=lambda params, x: scores(params, x, None),
        train_logits=lambda key, params, x: scores(params, x, {"dropout": key}),
    )


class _MlpScore(nn.Module):
    """``[B, N] -> [B, 1]``."""

    hidden_sizes: tuple[int, ...]
    dropout_rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        for i, size in enumerate(self.hidden_sizes):
            x = nn.leaky_relu(nn.Dense(size)(x), 0.3 if i == 1 else 0.2)
            if i < len(self.hidden_sizes) - 1:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(1)(x)


class _ImageScore(ImagePyramid):
    """``[B, H, W, C] -> [B, 1]``."""

    def __call__(self, x: Array, train: bool = False) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]: the last layer alone
        del train
        return super().__call__(x)[-1]


def feature_discriminator(
    features: Callable[[Array], Array],
    x: Array,
    *,
    hidden_sizes: tuple[int, ...] = (128, 128),
) -> Discriminator:
    """A small network on features: it need not learn to see, only to tell apart.

    Args:
        features: of the fixed network; each is centered and scaled to data first.
        x: ``[N, V, C]`` data, not traced: mean and deviation are constants.
        hidden_sizes: units of the hidden layers.

    Returns:
        A `Discriminator` of examples ``[B, V, C]``, with spectral normalization and
        without dropout.
    """
    of_data = in_batches(features, as_values("x", x))
    mean, deviation = of_data.mean(0), np.maximum(of_data.std(0), _MIN_DEVIATION)
    network = mlp_discriminator(
        of_data.shape[1],
        value_range=None,
        hidden_sizes=hidden_sizes,
        dropout_rate=0.0,
        spectral=True,
    )

    def scaled(x: Array) -> Array:
        return ((features(x) - mean[None]) / deviation[None])[..., None]

    def logits(params: PyTree, x: Array) -> Array:
        return network.logits(params, scaled(x))

    def train_logits(key: Array, params: PyTree, x: Array) -> Array:
        return network.train_logits(key, params, scaled(x))

    return Discriminator(network.init, logits, train_logits)
