"""How well images survive an auto-encoder: the same numbers and pictures for all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.objectives import bernoulli_cross_entropy, squared_error
from experiments.data import Dataset

Reconstruct = Callable[[Any, jax.Array, jax.Array, jax.Array | None], jax.Array]
"""``(params, key, levels [B, V, C], observed [B, V] | None) -> [B, V, C]``: the means
of the decoder as gray values."""

_EPSILON = 1e-3  # decoder means are clipped into (epsilon, 1 - epsilon), for all models


def evaluate(
    reconstruct: Reconstruct,
    dataset: Dataset,
    params: Any,
    key: jax.Array,
    levels: jax.Array,
    complete: Reconstruct | None = None,
) -> dict[str, jax.Array]:
    """Errors of reconstructed images, per example, summed over pixels and channels.

    Args:
        reconstruct: the auto-encoder.
        dataset: the images' size and levels.
        params: of the auto-encoder.
        key: for what it draws.
        levels: ``[B, V, C]`` uint8.
        complete: what fills in hidden pixels without a code; None where there is none.

    Returns:
        ``[B]`` each: ``reconstruction_bce`` (nats; binary cross-entropy of gray values
        against the decoder's mean, no rounding), ``reconstruction_mse`` (squared error
        of gray values), ``half_missing_bce``: the cross-entropy of the whole image
        where the encoder has seen the upper half of its rows only,
        ``hidden_half_bce``: of that the hidden pixels' part, and
        ``hidden_half_direct_bce``: the same of what ``complete`` fills in.
    """
    key, half_key, complete_key = jax.random.split(key, 3)
    hidden = ~upper_half(dataset)
    target = unit(dataset, levels)
    mean = reconstruct(params, key, levels, None)
    visible = jnp.broadcast_to(upper_half(dataset), levels.shape[:2])
    from_half = reconstruct(params, half_key, levels, visible)

    def hidden_half(image):
        return bernoulli_cross_entropy(
            target[:, hidden], image[:, hidden], epsilon=_EPSILON
        )

    metrics = {
        "reconstruction_bce": bernoulli_cross_entropy(target, mean, epsilon=_EPSILON),
        "reconstruction_mse": squared_error(target, mean),
        "half_missing_bce": bernoulli_cross_entropy(
            target, from_half, epsilon=_EPSILON
        ),
        "hidden_half_bce": hidden_half(from_half),
    }
    if complete is not None:
        filled = complete(params, complete_key, levels, visible)
        metrics["hidden_half_direct_bce"] = hidden_half(filled)
    return metrics


def pictures(
    reconstruct: Reconstruct,
    dataset: Dataset,
    params: Any,
    key: jax.Array,
    num: int,
    complete: Reconstruct | None = None,
) -> dict[str, jax.Array]:
    """The first validation images, which the loop shows as real, reconstructed.

    Args:
        reconstruct: the auto-encoder.
        dataset: the images.
        params: of the auto-encoder.
        key: for what it draws.
        num: how many.
        complete: what fills in hidden pixels without a code; None where there is none.

    Returns:
        Title to levels, ``[num, V, C]`` uint8: reconstructions, images without their
        lower half, and what becomes of those.
    """
    key, half_key, complete_key = jax.random.split(key, 3)
    levels = jnp.asarray(dataset.valid[:num])
    half = upper_half(dataset)
    visible = jnp.broadcast_to(half, levels.shape[:2])
    shown = {
        "reconstructed": to_levels(dataset, reconstruct(params, key, levels, None)),
        "lower half hidden": jnp.where(half[None, :, None], levels, jnp.uint8(0)),
        "reconstructed from the rest": to_levels(
            dataset, reconstruct(params, half_key, levels, visible)
        ),
    }
    if complete is not None:
        filled = complete(params, complete_key, levels, visible)
        shown["mean given the rest"] = to_levels(dataset, filled)
    return shown


def upper_half(dataset: Dataset) -> np.ndarray:
    """Bool ``[V]``: the pixels in the upper half of the rows."""
    return np.arange(dataset.height * dataset.width) < (
        dataset.height // 2 * dataset.width
    )


def unit(dataset: Dataset, levels: jax.Array) -> jax.Array:
    """Levels as gray values in [0, 1]."""
    return levels.astype(jnp.float32) / (dataset.num_values - 1)


def to_levels(dataset: Dataset, gray: jax.Array) -> jax.Array:
    """Gray values to the nearest levels, uint8."""
    top = dataset.num_values - 1
    return jnp.clip(jnp.round(gray * top), 0, top).astype(jnp.uint8)
