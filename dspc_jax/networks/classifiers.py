"""A convolutional classifier, whose features measure the similarity of images."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.networks.convolutions import Conv
from dspc_jax.networks.layers import check_counts, pyramid, scaled_images
from dspc_jax.types import Array, Key, PyTree


class Classifier(NamedTuple):
    """A classifier of images as pure functions.

    Attributes:
        init: ``key -> params``.
        features: ``(params, x) -> [B, K]``, the last hidden layer, ``>= 0``.
        logits: ``(params, x) -> [B, Y]``, without dropout.
        train_logits: ``(key, params, x) -> [B, Y]``, with dropout.
    """

    init: Callable[[Key], PyTree]
    features: Callable[[PyTree, Array], Array]
    logits: Callable[[PyTree, Array], Array]
    train_logits: Callable[[Key, PyTree, Array], Array]


def convolutional_classifier(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    num_classes: int,
    num_filters: int = 16,
    num_features: int = 128,
    dropout_rate: float = 0.5,
) -> Classifier:
    """Convolutions down to maps of at most 4x4, one hidden layer, one linear layer.

    A 3x3 convolution, then 3x3 convolutions with stride 2 that double the filters,
    with group normalization and ReLU after each; dropout before the linear layer.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.
        num_classes: Y, at least 2.
        num_filters: filters of the first convolution.
        num_features: K, units of the hidden layer.
        dropout_rate: in [0, 1), for ``train_logits``.

    Returns:
        A `Classifier` of gray values in [0, 1], ``[B, height * width, C]``, pixels in
        row-major order.

    Raises:
        ValueError: an argument out of its range, or, on use, images of another size.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_filters=num_filters,
        num_features=num_features,
    )
    num_classes = whole_number("num_classes", num_classes, least=2)
    if not 0 <= dropout_rate < 1:
        raise ValueError(
            f"dropout_rate must be at least 0 and less than 1, got {dropout_rate}"
        )
    module = _Classifier(
        len(pyramid(height, width)) - 1,
        num_filters,
        num_features,
        num_classes,
        dropout_rate,
    )
    example_shape = (height * width, num_channels)

    def outputs(
        params: PyTree, x: Array, rngs: dict[str, Array] | None = None
    ) -> tuple[Array, Array]:
        image_shape = (height, width, num_channels)
        images = scaled_images(x, example_shape, image_shape, (0.0, 1.0))
        out: Any = module.apply(params, images, train=rngs is not None, rngs=rngs)
        return out

    return Classifier(
        init=lambda key: module.init(key, jnp.zeros((1, height, width, num_channels))),
        features=lambda params, x: outputs(params, x)[0],
        logits=lambda params, x: outputs(params, x)[1],
        train_logits=lambda key, params, x: outputs(params, x, {"dropout": key})[1],
    )


class _Classifier(nn.Module):
    """``[B, H, W, C] -> [B, K], [B, Y]``."""

    num_halvings: int
    num_filters: int
    num_features: int
    num_classes: int
    dropout_rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        for i in range(self.num_halvings + 1):
            x = Conv(self.num_filters * 2**i, 3, stride=2 if i else 1)(x)
            x = nn.relu(nn.GroupNorm(num_groups=None, group_size=self.num_filters)(x))
        features = nn.relu(nn.Dense(self.num_features)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(features)
        return features, nn.Dense(self.num_classes)(x)
