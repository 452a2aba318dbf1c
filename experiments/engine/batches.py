"""The examples that a run sees, and mirror images of them, chosen on the devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.system import Labelled, levels_and_labels


def examples_of(dataset: Dataset, split: str, labelled: bool) -> Any:
    """The images of a split, with their labels where they are asked for.

    Args:
        dataset: all splits.
        split: ``train``, ``valid`` or ``test``.
        labelled: whether labels are.

    Returns:
        Arrays as in a batch, with all the split's examples.

    Raises:
        UserError: there are no labels.
    """
    images = getattr(dataset, split)
    if not labelled:
        return images
    labels = getattr(dataset, f"{split}_labels")
    if labels is None:
        raise UserError(
            f"--dataset must have labels for this program, got {dataset.name!r}, which "
            "has none"
        )
    return Labelled(images, np.asarray(labels, np.int32))


def mirrored(
    keys: jax.Array, first_step: jax.Array, num_steps: int, batch_size: int
) -> jax.Array:
    """Which images of consecutive batches are mirrored: each with probability 1/2.

    Args:
        keys: ``[S]``, one a seed.
        first_step: the step of the first batch, from 0.
        num_steps: number of batches.
        batch_size: B.

    Returns:
        Bool ``[num_steps, S, B]``.
    """

    def of_batch(step, key):
        return jax.random.bernoulli(jax.random.fold_in(key, step), shape=(batch_size,))

    steps = first_step + jnp.arange(num_steps)
    return jax.vmap(jax.vmap(of_batch, (None, 0)), (0, None))(steps, keys)


def mirror(batch: Any, chosen: jax.Array, width: int) -> Any:
    """Mirrors the chosen images of a batch left to right.

    Args:
        batch: ``[B, V, C]`` with V = height * width pixels in row-major order, or
            `Labelled`.
        chosen: bool ``[B]``.
        width: columns of an image.

    Returns:
        The batch, with the same types.
    """
    levels, labels = levels_and_labels(batch)
    num, variables, channels = levels.shape
    rows = levels.reshape(num, variables // width, width, channels)
    reversed_rows = rows[:, :, ::-1].reshape(levels.shape)
    levels = jnp.where(chosen[:, None, None], reversed_rows, levels)
    return levels if labels is None else Labelled(levels, labels)
