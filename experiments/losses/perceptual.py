"""Images as trained networks see them: see `dspc_jax.objectives.perceptual`."""

from typing import cast

import jax
import jax.numpy as jnp

from dspc_jax.evaluation.efficientnet_lite import Variant
from dspc_jax.objectives import Features
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.models import pixel_kernels
from experiments.models.features import (
    efficientnet_images,
    outputs_of,
    read_classifier,
)
from experiments.models.reconstruction import unit


def classifier_features(
    workdir: str | None, flags: tuple[str, str], dataset: Dataset, data_dir: str | None
) -> Features:
    """The hidden layers of classifiers that are not trained any more.

    A circuit learns to deceive a single network rather than to draw better; networks of
    several seeds are harder to deceive at once.

    Args:
        workdir: the folder of a run of `experiments.classifier`; all its seeds are
            asked, their features side by side.
        flags: the flag that names it and the one that asks for it, for errors.
        dataset: the images.
        data_dir: folder of the data set's files.

    Returns:
        Gray values to features.

    Raises:
        UserError: no classifier that can see these images is named.
    """
    flag, chosen_by = flags
    if workdir is None:
        raise UserError(f"--{flag} must be given with --{chosen_by}=classifier")
    networks = outputs_of(read_classifier(workdir, flag, dataset, data_dir), dataset)
    return lambda x: jnp.concatenate([outputs(x)[0] for outputs in networks], axis=-1)


def efficientnet_features(
    variant: str | None, flags: tuple[str, str], dataset: Dataset
) -> Features:
    """The features of an EfficientNet-Lite, which knows the classes of ImageNet.

    Args:
        variant: ``lite0``, ``lite1`` or ``lite2``.
        flags: the flag that names it and the one that asks for it, for errors.
        dataset: the images.

    Returns:
        Gray values to features.

    Raises:
        UserError: none is named, its package is not installed, or the examples are no
            images.
    """
    flag, chosen_by = flags
    if variant is None:
        raise UserError(f"--{flag} must be given with --{chosen_by}=efficientnet")
    outputs = efficientnet_images(cast(Variant, variant), flag, dataset)

    def features(x):
        return outputs(255 * x.reshape(len(x), dataset.height, dataset.width, -1))[0]

    return features


def references(dataset: Dataset) -> jax.Array:
    """Training images as gray values ``[n, V, C]``, which scale what sees features."""
    return unit(dataset, jnp.asarray(pixel_kernels.references(dataset)))
