"""Differentiable augmentation of images, for discriminators with little data.

Data and samples are augmented alike before they reach the discriminator, and the
sampler's gradient passes the augmentation. Then the discriminator cannot memorize its
few data, and the sampler does not learn to generate augmented images, since its
augmented samples must look like augmented data.

References:
    Zhao, Liu, Lin, Zhu and Han, "Differentiable augmentation for data-efficient GAN
    training", NeurIPS 2020.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key

AUGMENTATIONS = ("color", "translation", "cutout")


def augment_images(
    key: Key,
    images: Array,
    *,
    height: int,
    width: int,
    policy: Sequence[str] = AUGMENTATIONS,
    fill: float = 0.0,
) -> Array:
    """Augments every image by chance, differentiably in its values.

    - color: changes brightness by at most a quarter of the range of values, the
      distance of every value from its image's mean by a factor between 1/2 and 3/2,
      and, with more than one channel, its distance from its pixel's mean by a factor
      between 0 and 2.
    - translation: moves the image by at most an eighth of each side (at least one
      pixel).
    - cutout: replaces a rectangle of half of each side, at a random place (it may cross
      the border).

    The magnitudes are those of the source. Its images have values in [-1, 1], ours in
    [0, 1], so brightness changes by half of its numbers.

    Args:
        key: one typed key.
        images: ``[B, height * width, C]``, pixels in row-major order.
        height: rows.
        width: columns.
        policy: names among `AUGMENTATIONS`, applied in this order.
        fill: the value of pixels that move in or are cut out: the background.

    Returns:
        Images in the same shape; values may leave [0, 1].

    Raises:
        ValueError: an unknown augmentation, or images of another size.
    """
    for name in policy:
        if name not in AUGMENTATIONS:
            raise ValueError(
                f"policy must name some of {', '.join(AUGMENTATIONS)}, got {name!r}"
            )
    images = as_values("images", images)
    if images.ndim != 3 or images.shape[1] != height * width:
        raise ValueError(
            f"images must have the shape [B, {height * width}, C], got {images.shape}"
        )

    def augment(key: Array, image: Array) -> Array:
        keys = jax.random.split(key, len(policy)) if policy else ()
        for step_key, name in zip(keys, policy, strict=True):
            if name == "color":
                image = _color(step_key, image)
            elif name == "translation":
                image = _translate(step_key, image, fill)
            else:
                image = _cut_out(step_key, image, fill)
        return image

    grid = images.reshape(images.shape[0], height, width, images.shape[2])
    keys = jax.random.split(key, images.shape[0])
    return jax.vmap(augment)(keys, grid).reshape(images.shape)


def _color(key: Array, image: Array) -> Array:
    """Brightness, saturation and contrast of one image ``[H, W, C]``."""
    shift, saturation, contrast = jax.random.uniform(key, (3,), jnp.float32).astype(
        image.dtype
    )
    image = image + 0.5 * (shift - 0.5)
    if image.shape[-1] > 1:
        gray = jnp.mean(image, axis=-1, keepdims=True)
        image = gray + 2 * saturation * (image - gray)
    mean = jnp.mean(image)
    return mean + (0.5 + contrast) * (image - mean)


def _translate(key: Array, image: Array, fill: float) -> Array:
    """One image, moved by whole pixels."""
    reach = [max(1, round(side / 8)) for side in image.shape[:2]]
    padding = [(far, far) for far in reach] + [(0, 0)]
    padded = jnp.pad(image, padding, constant_values=fill)
    row_key, column_key = jax.random.split(key)
    row = _whole(row_key, 2 * reach[0] + 1)
    column = _whole(column_key, 2 * reach[1] + 1)
    first = (row, column, jnp.zeros_like(row))
    return jax.lax.dynamic_slice(padded, first, image.shape)


def _cut_out(key: Array, image: Array, fill: float) -> Array:
    """One image, with a rectangle of half its sides set to the background."""
    inside = []
    for side_key, side in zip(jax.random.split(key), image.shape[:2], strict=True):
        size = max(1, side // 2)
        first = _whole(side_key, side + 1 - size % 2) - size // 2
        place = jnp.arange(side, dtype=jnp.int32)
        inside.append((place >= first) & (place < first + size))
    cut = (inside[0][:, None] & inside[1][None, :])[..., None]
    return jnp.where(cut, fill, image)


def _whole(key: Array, end: int) -> Array:
    """A whole number below ``end``, the same with 64-bit types and without."""
    return jax.random.randint(key, (), 0, end, jnp.int32)
