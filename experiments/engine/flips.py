"""Random mirror images: on the devices, a function of the key alone."""

import jax
import jax.numpy as jnp


def mirror(key: jax.Array, images: jax.Array, width: int) -> jax.Array:
    """Mirrors each image left to right with probability 1/2.

    Args:
        key: a key.
        images: ``[B, V, C]`` with V = height * width pixels in row-major order.
        width: columns of an image.

    Returns:
        ``[B, V, C]`` of the same type.
    """
    num, variables, channels = images.shape
    rows = images.reshape(num, variables // width, width, channels)
    chosen = jax.random.bernoulli(key, shape=(num, 1, 1))
    return jnp.where(chosen, rows[:, :, ::-1].reshape(images.shape), images)
