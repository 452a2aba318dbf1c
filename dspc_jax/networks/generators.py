"""Networks that generate samples from Gaussian noise."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from dspc_jax.networks.layers import (
    ImageDecoder,
    check_counts,
    check_normalizer,
    count_params,
    pyramid,
)
from dspc_jax.types import Array, PyTree


class NetworkGenerator(NamedTuple):
    """Pure functions of a generator network.

    Attributes:
        init: ``init(key) -> params``.
        generate: ``generate(params, noise[B, num_latents]) -> [B, V, C]`` in (0, 1).
        num_latents: length of the noise.
    """

    init: Callable[[Array], PyTree]
    generate: Callable[[PyTree, Array], Array]
    num_latents: int

    def sample(self, keys: Array, params: PyTree) -> Array:
        """``(keys[B], params) -> [B, V, C]``: one image a key, noise from N(0, I)."""
        noise = jax.vmap(lambda key: jax.random.normal(key, (self.num_latents,)))(keys)
        return self.generate(params, noise)

    def num_params(self) -> int:
        """The number of parameters of the network."""
        return count_params(self.init)


def mlp_generator(
    num_variables: int,
    num_channels: int = 1,
    *,
    width: int = 128,
    num_latents: int = 100,
) -> NetworkGenerator:
    """The paper's generator: hidden layers of w, 2w, 4w and 8w units, LeakyReLU(0.2).

    Args:
        num_variables: V.
        num_channels: C.
        width: w; the paper's is 128.
        num_latents: length of the noise.

    Returns:
        A `NetworkGenerator`.

    Raises:
        ValueError: an argument below 1.
    """
    check_counts(
        num_variables=num_variables,
        num_channels=num_channels,
        width=width,
        num_latents=num_latents,
    )
    sizes = tuple(width * 2**i for i in range(4))
    module = _MlpImage(sizes, num_variables * num_channels)
    return _generator(module, (num_variables, num_channels), num_latents)


def convolutional_generator(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    num_filters: int = 64,
    num_latents: int = 100,
    normalizer: str = "group",
) -> NetworkGenerator:
    """Transposed convolutions from maps of at most 4x4 up to the image, as in DCGAN.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        num_filters: filters before the last transposed convolution; doubled at each
            smaller size.
        num_latents: length of the noise.
        normalizer: with ``"group"`` or ``"none"`` an image depends on its own noise
            alone; ``"batch"`` is DCGAN's.

    Returns:
        A `NetworkGenerator`.

    Raises:
        ValueError: an argument out of its range.

    References:
        Radford, Metz and Chintala, "Unsupervised representation learning with deep
        convolutional generative adversarial networks", ICLR 2016.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_filters=num_filters,
        num_latents=num_latents,
    )
    norm = check_normalizer(normalizer)
    module = ImageDecoder(pyramid(height, width), num_channels, num_filters, norm)
    return _generator(module, (height * width, num_channels), num_latents)


def _generator(
    module: nn.Module, example_shape: tuple[int, int], num_latents: int
) -> NetworkGenerator:
    def init(key: Array) -> PyTree:
        return module.init(key, jnp.zeros((1, num_latents)))

    def generate(params: PyTree, noise: Array) -> Array:
        images = module.apply(params, noise)
        assert isinstance(images, Array)
        return 0.5 + 0.5 * images.reshape(noise.shape[0], *example_shape)

    return NetworkGenerator(init, generate, num_latents)


class _MlpImage(nn.Module):
    """``[B, L] -> [B, N]`` in (-1, 1)."""

    hidden_sizes: tuple[int, ...]
    num_outputs: int

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        x = noise
        for size in self.hidden_sizes:
            x = nn.leaky_relu(nn.Dense(size)(x), 0.2)
        return jnp.tanh(nn.Dense(self.num_outputs)(x))
