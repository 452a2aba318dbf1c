"""Layers and checks that several networks share."""

from collections.abc import Callable, Sequence
import math
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number, whole_numbers
from dspc_jax.networks.convolutions import Conv, ConvTranspose
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, PyTree

Normalizer = Literal["batch", "group", "none"]


def pyramid(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Sizes of an image's maps: halved (rounded up) until no side exceeds 4.

    Args:
        height: rows, at least 1.
        width: columns, at least 1.

    Returns:
        ``((height, width), ...)``, at least two sizes.
    """
    sizes = [(height, width)]
    while len(sizes) == 1 or max(sizes[-1]) > 4:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return tuple(sizes)


class BatchStatisticsNorm(nn.Module):
    """Batch normalization by the statistics of the current batch, without averages."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        axes = tuple(range(x.ndim - 1))
        centered = x - jnp.mean(x, axes, keepdims=True)
        variance = jnp.mean(centered**2, axes, keepdims=True)
        scale, bias = (jnp.expand_dims(p, axes) for p in (scale, bias))
        return centered * jax.lax.rsqrt(variance + 1e-5) * scale + bias  # source's 1e-5


def normalize(kind: Normalizer, x: Array) -> Array:
    """Adds a normalization layer inside a compact module."""
    if kind == "batch":
        return BatchStatisticsNorm()(x)
    if kind == "group":
        return nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1]))(x)
    return x


def initializer(kind: Normalizer) -> Callable[..., Array]:
    """The source's N(0, 0.02), or variance preserving where no layer normalizes."""
    return (
        nn.initializers.he_normal() if kind == "none" else nn.initializers.normal(0.02)
    )


class ImagePyramid(nn.Module):
    """``[B, H, W, C]`` to the outputs of all layers, the last ``[B, num_outputs]``.

    A 3x3 convolution, then 4x4 convolutions with stride 2 that double the filters,
    LeakyReLU after each, and one linear layer. Nothing is normalized.
    """

    num_halvings: int
    num_filters: int
    num_outputs: int
    negative_slope: float

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:  # noqa: D102
        init = nn.initializers.he_normal()
        layers = []
        for i in range(self.num_halvings + 1):
            side, stride = (4, 2) if i else (3, 1)
            x = Conv(self.num_filters * 2**i, side, stride, kernel_init=init)(x)
            x = nn.leaky_relu(x, self.negative_slope)
            layers.append(x)
        return (*layers, nn.Dense(self.num_outputs)(x.reshape(x.shape[0], -1)))


class ImageDecoder(nn.Module):
    """``[B, K] -> [B, H, W, C]`` in (-1, 1): transposed convolutions, cropped."""

    sizes: tuple[tuple[int, int], ...]
    num_channels: int
    num_filters: int
    normalizer: Normalizer

    @nn.compact
    def __call__(self, features: Array) -> Array:  # noqa: D102
        init = initializer(self.normalizer)
        num_doublings = len(self.sizes) - 1
        height, width = self.sizes[-1]
        filters = self.num_filters * 2 ** (num_doublings - 1)
        x = nn.Dense(height * width * filters, use_bias=False, kernel_init=init)(
            features
        )
        x = x.reshape(x.shape[0], height, width, filters)
        for i in reversed(range(num_doublings)):
            x = nn.relu(normalize(self.normalizer, x))
            filters = self.num_filters * 2 ** (i - 1) if i else self.num_channels
            x = ConvTranspose(filters, 4, 2, use_bias=False, kernel_init=init)(x)
            x = x[:, : self.sizes[i][0], : self.sizes[i][1]]
        return jnp.tanh(x)


def scaled_images(
    x: Array,
    example_shape: tuple[int, int],
    image_shape: tuple[int, ...],
    value_range: tuple[float, float] | None,
) -> Array:
    """Examples as a network's input: reshaped, and their range scaled to [-1, 1].

    Args:
        x: ``[B, V, C]``.
        example_shape: ``(V, C)``.
        image_shape: the network's shape of one example.
        value_range: smallest and largest value; None leaves values as they are.

    Returns:
        ``[B, *image_shape]``.

    Raises:
        ValueError: examples of another shape.
    """
    x = as_values("x", x)
    if x.ndim != 3 or x.shape[1:] != example_shape:
        raise ValueError(
            f"x must hold examples of the shape {example_shape}, got {x.shape}"
        )
    if value_range is not None:
        low, high = value_range
        x = (x - low) * (2 / (high - low)) - 1
    return x.reshape(x.shape[0], *image_shape)


def check_range(value_range: tuple[float, float] | None) -> None:
    """Raises ValueError unless the range is None or increases."""
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"value_range must increase, got {value_range}")


def check_counts(**numbers: int) -> None:
    """Raises ValueError naming the first that is no integer, or below 1."""
    for name, number in numbers.items():
        whole_number(name, number, least=1)


def check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of layers as a tuple.

    Args:
        name: the argument's name, for the error.
        sizes: any sequence of numbers, at least 1 each.

    Returns:
        The same numbers.

    Raises:
        ValueError: not a sequence, or a number below 1.
    """
    numbers = whole_numbers(name, sizes)
    check_counts(**{f"{name}[{i}]": size for i, size in enumerate(numbers)})
    return numbers


def count_params(init: Callable[[Array], PyTree]) -> int:
    """The number of values that ``init(key)`` makes, without computing them."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def check_normalizer(normalizer: str) -> Normalizer:
    """The same name; raises ValueError unless it is a `Normalizer`."""
    if normalizer in ("batch", "group", "none"):
        return normalizer
    raise ValueError(
        f"normalizer must be 'batch', 'group' or 'none', got {normalizer!r}"
    )
