"""Masks of observed pixels for inpainting. Pixels are variables, row by row."""

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array, Key


def stripe_masks(height: int, width: int, *, num_stripes: int = 4) -> Array:
    """All images with one stripe missing: horizontal ones, then vertical ones.

    By default these are the masks of Lang et al. 2022: each quarter of the rows and
    each quarter of the columns. (Their error is a mean over all pixels, three quarters
    of which are observed, so it is a quarter of the mean over the missing ones.)

    Args:
        height: rows of the image, ``>= num_stripes``.
        width: columns of the image, ``>= num_stripes``.
        num_stripes: number of stripes along each axis; their sizes differ by one at
            most.

    Returns:
        ``observed``, bool ``[2 * num_stripes, height * width]``; False is missing.
        Every pixel is missing in one of the first half and in one of the second half.

    Raises:
        ValueError: no stripe, or more stripes than rows or columns.
    """
    num_stripes = whole_number("num_stripes", num_stripes, least=1)
    if min(height, width) < num_stripes:
        raise ValueError(
            f"num_stripes must be at most the rows and columns, got {num_stripes} "
            f"for {height}x{width}"
        )
    row, column = np.divmod(np.arange(height * width), width)
    masks = []
    for position, size in ((row, height), (column, width)):
        for i in range(num_stripes):
            start, stop = (size * j // num_stripes for j in (i, i + 1))
            masks.append((position < start) | (position >= stop))
    return jnp.asarray(np.stack(masks))


def random_masks(
    key: Key, num_masks: int, num_variables: int, *, missing: float
) -> Array:
    """Masks with the same number of pixels missing at random in each.

    Args:
        key: one typed key.
        num_masks: M.
        num_variables: V, the pixels of an image.
        missing: the share of missing pixels, from 0 to 1; ``round(missing * V)`` pixels
            are missing in each mask, every set of so many pixels being as likely.

    Returns:
        ``observed``, bool ``[M, V]``; False is missing.

    Raises:
        ValueError: a share outside of [0, 1], or a negative size.
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"missing must be between 0 and 1, got {missing}")
    num_masks = whole_number("num_masks", num_masks, least=0)
    num_variables = whole_number("num_variables", num_variables, least=1)
    num_missing = round(missing * num_variables)
    ranks = jax.vmap(lambda k: jax.random.permutation(k, num_variables))(
        jax.random.split(key, num_masks)
    )
    return ranks >= num_missing
