"""Networks whose features make a learned kernel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from dspc_jax.networks.layers import (
    ImagePyramid,
    check_counts,
    check_range,
    pyramid,
    scaled_images,
)
from dspc_jax.types import Array, PyTree


class FeatureCritic(NamedTuple):
    """Features of examples for a learned kernel: pure functions of its parameters.

    The features of an example depend on that example alone (no batch normalization),
    so gradients with respect to single examples exist.

    Attributes:
        init: ``init(key) -> params``.
        features: ``features(params, x[B, V, C]) -> [B, K]``.
        activations: ``activations(params, x[B, V, C])``: the outputs of all layers,
            ``[B, ...]`` each; the features are the last.
    """

    init: Callable[[Array], PyTree]
    features: Callable[[PyTree, Array], Array]
    activations: Callable[[PyTree, Array], tuple[Array, ...]]


def convolutional_critic(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    value_range: tuple[float, float] | None = (0.0, 1.0),
    num_filters: int = 64,
    num_features: int = 16,
) -> FeatureCritic:
    """A convolutional critic for the kernel of an MMD-GAN with gradient penalty.

    A 3x3 convolution, then 4x4 convolutions with stride 2 that double the filters until
    no side exceeds 4, LeakyReLU(0.2) after each, and linear features: the source's
    DCGAN critic with one more convolution, for any image size. Nothing is normalized,
    as in the source wherever there is a gradient penalty.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        value_range: smallest and largest value, scaled to [-1, 1]; None for values that
            are taken as they are.
        num_filters: filters of the first convolution.
        num_features: K; 16 in the source.

    Returns:
        A `FeatureCritic` of ``[B, height * width, C]``, pixels in row-major order.

    Raises:
        ValueError: an argument out of its range, or, on use, images of another size.

    References:
        Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_filters=num_filters,
        num_features=num_features,
    )
    check_range(value_range)
    image_shape = (height, width, num_channels)
    halvings = len(pyramid(height, width)) - 1
    module = ImagePyramid(halvings, num_filters, num_features, 0.2)

    def activations(params: PyTree, x: Array) -> tuple[Array, ...]:
        example_shape = (height * width, num_channels)
        images = scaled_images(x, example_shape, image_shape, value_range)
        layers: Any = module.apply(params, images)
        return layers

    return FeatureCritic(
        init=lambda key: module.init(key, jnp.zeros((1, *image_shape))),
        features=lambda params, x: activations(params, x)[-1],
        activations=activations,
    )
