"""The maximum mean discrepancy of samples, or in closed form, and its flags.

`experiments.losses.critic` and `experiments.losses.penalized_critic` learn the features
that its kernels may see.
"""

import dataclasses
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation import Codec
from dspc_jax.objectives import (
    Features,
    Kernel,
    exact_mmd_loss,
    expected_kernels,
    feature_kernel,
    mmd_advantages,
    mmd_loss,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.losses import perceptual
from experiments.losses.critic import CriticSettings
from experiments.losses.penalized_critic import LEARNED_KERNELS, learned_kernel_term
from experiments.losses.term import Term
from experiments.models.circuit import Model
from experiments.models.pixel_kernels import pixel_bandwidths, pixel_kernel, references

_FIXED_FEATURES = ("classifier", "efficientnet")


@dataclasses.dataclass(frozen=True)
class MmdSettings:
    """The flags of the discrepancy."""

    mmd_kernel: str = flags.flag(
        "pixel",
        "what the kernels see: gray values (pixel), the features of an autoencoder "
        "with clipped weights, or those of a critic with gradient_penalty (and a "
        "rational quadratic kernel), both trained against the circuit; or those of a "
        "trained classifier or an efficientnet, which stay as they are",
        flags.one_of("pixel", *LEARNED_KERNELS, *_FIXED_FEATURES),
        only={"sample_loss": ["mmd"]},
    )
    mmd_classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier, on this data set or one like it, "
        "for --mmd_kernel=classifier",
        kind=flags.local_path,
        only={"mmd_kernel": ["classifier"]},
    )
    mmd_efficientnet: str | None = flags.flag(
        None,
        "lite0, lite1 or lite2, with weights of ImageNet (from the extra 'features'), "
        "for --mmd_kernel=efficientnet; another one may judge the run",
        flags.one_of("lite0", "lite1", "lite2"),
        kind=str,
        only={"mmd_kernel": ["efficientnet"]},
    )
    mmd_pixel_kernel: str = flags.flag(
        "gaussian",
        "kernels between gray values: gaussian (bandwidths of 1/4 to 4 times the "
        "median distance) or rational_quadratic (exponents of 0.2 to 5, heavy tails)",
        flags.one_of("gaussian", "rational_quadratic"),
        only={"mmd_kernel": ["pixel"]},
    )
    mmd_estimator: str = flags.flag(
        "unbiased",
        "estimate of the squared MMD on pixels: unbiased or biased from samples, or "
        "exact, in closed form, without samples of the circuit (normal leaves, "
        "quad_tree or one repetition, gaussian kernels)",
        flags.one_of("unbiased", "biased", "exact"),
        only={"mmd_kernel": ["pixel", *_FIXED_FEATURES]},
    )
    mmd_patch: int | None = flags.flag(
        None,
        "exact: the kernel is the mean over square patches of this side, each with a "
        "kernel of its own (default: one kernel on the whole image)",
        flags.at_least(1),
        kind=int,
        only={"mmd_estimator": ["exact"]},
    )
    mmd_power: int = flags.flag(
        2,
        "minimize the square of the MMD on pixels (2), or the MMD itself (1; with "
        "--mmd_estimator=biased only)",
        flags.one_of(1, 2),
        only={"mmd_kernel": ["pixel", *_FIXED_FEATURES]},
    )


def kernel_term(
    kernel: Kernel, settings: MmdSettings, features: Features | None = None
) -> Term:
    """The MMD between gray values, or their features, from samples."""

    def loss(params, key, x, adversary, sample):
        del adversary
        return mmd_loss(
            params,
            key,
            x,
            sample=sample,
            kernel=kernel,
            estimator=cast(Any, settings.mmd_estimator),
            square_root=settings.mmd_power == 1,
            features=features,
        )

    def advantages(x, samples, adversary):
        del adversary
        if features is not None:
            x, samples = features(x), features(samples)
        return mmd_advantages(x, samples, kernel)

    unbiased = settings.mmd_estimator == "unbiased"
    unit = "squared MMD" if settings.mmd_power == 2 else "MMD"
    return Term("mmd", loss, advantages=advantages if unbiased else None, unit=unit)


def exact_term(circuit: Model, settings: MmdSettings, dataset: Dataset) -> Term:
    """The MMD between gray values in closed form, by expected kernels.

    Args:
        circuit: over one partition tree, with Normal leaves.
        settings: the flags of the discrepancy.
        dataset: the images.

    Returns:
        The term; its loss draws no samples.

    Raises:
        UserError: the MMD of this circuit, or with these kernels, has no closed form.
    """
    for name in ("mmd_kernel", "mmd_pixel_kernel"):
        value, needed = getattr(settings, name), getattr(MmdSettings, name)
        if value != needed:
            raise UserError(
                f"--{name} must be {needed} with --mmd_estimator=exact (no other has a "
                f"closed form), got {value!r}"
            )
    try:
        expected_kernels.check(circuit.circuit)
    except ValueError as error:
        raise UserError(f"--mmd_estimator must not be exact here: {error}") from error
    bandwidths = np.asarray(pixel_bandwidths(circuit.codec, circuit.references))
    patches = None
    if settings.mmd_patch is not None:
        patches = square_tiles(dataset.height, dataset.width, settings.mmd_patch)
        # As if all pixels were alike: squared distances grow with their number.
        bandwidths = bandwidths * np.sqrt(patches.sum(1).max() / patches.shape[1])

    def loss(params, key, x, adversary, sample):
        del adversary, sample
        return exact_mmd_loss(
            params["circuit"],
            key,
            x,
            circuit=circuit.circuit,
            bandwidths=bandwidths.tolist(),
            patches=None if patches is None else jnp.asarray(patches),
        )

    return Term("mmd", loss, draws=False, unit="squared MMD")


def square_tiles(height: int, width: int, side: int) -> np.ndarray:
    """Square tiles of an image, smaller at its far edges: bool ``[J, V]``."""
    row, column = (axis // side for axis in np.indices((height, width)))
    tile = (row * (width // side + 1) + column).ravel()
    return np.unique(tile)[:, None] == tile[None]


def sample_term(
    settings: Settings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: Dataset,
    codec: Codec,
) -> Term:
    """The MMD of samples, on what the flags have the kernels see.

    Args:
        settings: the shared flags.
        mmd_settings: those of the discrepancy; the estimator is not exact.
        critic_settings: those of the learned kernels.
        dataset: the images.
        codec: the units of what is trained.

    Returns:
        The term.

    Raises:
        UserError: the flags do not fit the images.
    """
    if mmd_settings.mmd_kernel in LEARNED_KERNELS:
        return learned_kernel_term(mmd_settings.mmd_kernel, critic_settings, dataset)
    if mmd_settings.mmd_kernel in _FIXED_FEATURES:
        features = _fixed_features(settings, mmd_settings, dataset)
        kernel = feature_kernel(features, perceptual.references(dataset))
        return kernel_term(kernel, mmd_settings, features)
    family = mmd_settings.mmd_pixel_kernel
    kernel = pixel_kernel(codec, references(dataset), family)
    return kernel_term(kernel, mmd_settings)


def _fixed_features(
    settings: Settings, mmd_settings: MmdSettings, dataset: Dataset
) -> Features:
    """Those of networks that are not trained any more."""
    if mmd_settings.mmd_kernel == "classifier":
        return perceptual.classifier_features(
            mmd_settings.mmd_classifier,
            ("mmd_classifier", "mmd_kernel"),
            dataset,
            settings.data_dir,
        )
    return perceptual.efficientnet_features(
        mmd_settings.mmd_efficientnet, ("mmd_efficientnet", "mmd_kernel"), dataset
    )
