"""Maximum mean discrepancy: ``python -m experiments.mmd --dataset=digits``.

A circuit is trained through its own differentiable samples until no kernel tells them
from the data: on pixels, or on the features of a network that is trained to tell them
apart. Without samples, too, where the MMD has a closed form.
"""

import dataclasses
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from dspc_jax.objectives import (
    Kernel,
    exact_mmd_loss,
    expected_kernels,
    mmd_advantages,
    mmd_loss,
)
from experiments import data
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.device_loop import System
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.losses import mixture, perceptual
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings, Term
from experiments.losses.penalized_critic import LEARNED_KERNELS, learned_kernel_term
from experiments.models.circuit import Model, pixel_bandwidths, pixel_kernel, references
from experiments.models.generators import circuit_generator
from experiments.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class MmdSettings:
    """The flags of this program alone."""

    mmd_kernel: str = flags.flag(
        "pixel",
        "what the kernels see: grey values (pixel), the features of an autoencoder "
        "with clipped weights, or those of a critic with gradient_penalty (and a "
        "rational quadratic kernel), both trained against the circuit; or those of a "
        "trained classifier, which stay as they are",
        flags.one_of("pixel", *LEARNED_KERNELS, "classifier"),
    )
    mmd_classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier, on this data set or one like it, "
        "for --mmd_kernel=classifier",
    )
    mmd_pixel_kernel: str = flags.flag(
        "gaussian",
        "kernels between grey values: gaussian (bandwidths of 1/4 to 4 times the "
        "median distance) or rational_quadratic (exponents of 0.2 to 5, heavy tails)",
        flags.one_of("gaussian", "rational_quadratic"),
    )
    mmd_estimator: str = flags.flag(
        "unbiased",
        "estimate of the squared MMD on pixels: unbiased or biased from samples, or "
        "exact, in closed form, without samples of the circuit (normal leaves, "
        "quad_tree or one repetition, gaussian kernels)",
        flags.one_of("unbiased", "biased", "exact"),
    )
    mmd_patch: int | None = flags.flag(
        None,
        "exact: the kernel is the mean over square patches of this side, each with a "
        "kernel of its own (default: one kernel on the whole image)",
        flags.at_least(1),
        kind=int,
    )
    mmd_power: int = flags.flag(
        2,
        "minimise the square of the MMD on pixels (2), or the MMD itself (1; with "
        "--mmd_estimator=biased only)",
        flags.one_of(1, 2),
    )


def pixel_term(kernel: Kernel, settings: MmdSettings) -> Term:
    """The MMD between grey values, from samples."""

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
        )

    def advantages(x, samples, adversary):
        del adversary
        return mmd_advantages(x, samples, kernel)

    unbiased = settings.mmd_estimator == "unbiased"
    return Term(
        "mmd",
        init=lambda key: (),
        train=None,
        loss=loss,
        advantages=advantages if unbiased else None,
    )


def exact_term(circuit: Model, settings: MmdSettings, dataset: data.Dataset) -> Term:
    """The MMD between grey values in closed form, by expected kernels.

    Args:
        circuit: over one partition tree, with Normal leaves.
        settings: the flags of this program.
        dataset: the images.

    Returns:
        The term; its loss draws no samples.

    Raises:
        UserError: the MMD of this circuit, or with these kernels, has no closed form.
    """
    for name in ("mmd_kernel", "mmd_pixel_kernel"):
        given, needed = getattr(settings, name), getattr(MmdSettings, name)
        if given != needed:
            raise UserError(
                f"--{name} must be {needed} with --mmd_estimator=exact (no other has a "
                f"closed form), got {given!r}"
            )
    try:
        expected_kernels.check(circuit.circuit)
    except ValueError as error:
        raise UserError(f"--mmd_estimator must not be exact here: {error}") from error
    bandwidths = np.asarray(pixel_bandwidths(circuit.codec, circuit.references))
    patches = None
    if settings.mmd_patch is not None:
        patches = _tiles(dataset.height, dataset.width, settings.mmd_patch)
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

    return Term("mmd", init=lambda key: (), train=None, loss=loss)


def _tiles(height: int, width: int, side: int) -> np.ndarray:
    """Square tiles of an image, smaller at its far edges: bool ``[J, V]``."""
    row, column = (axis // side for axis in np.indices((height, width)))
    tile = (row * (width // side + 1) + column).ravel()
    return np.unique(tile)[:, None] == tile[None]


def sample_term(
    settings: Settings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
    codec: Preprocessing,
) -> Term:
    """The MMD of samples, on what the flags have the kernels see.

    Args:
        settings: the shared flags.
        mmd_settings: this program's flags; the estimator is not exact.
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
    if mmd_settings.mmd_kernel == "classifier":
        seen = perceptual.classifier_features(
            mmd_settings.mmd_classifier,
            ("mmd_classifier", "mmd_kernel"),
            dataset,
            settings.data_dir,
        )
        kernel = perceptual.feature_kernel(seen, dataset)
        return perceptual.through(seen, pixel_term(kernel, mmd_settings))
    family = mmd_settings.mmd_pixel_kernel
    kernel = pixel_kernel(codec, references(dataset), family)
    return pixel_term(kernel, mmd_settings)


def make_system(
    settings: Settings,
    mixture_settings: MixtureSettings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """Training by MMD as the training loop sees it.

    Args:
        settings: the shared flags.
        mixture_settings: how the likelihood takes part.
        mmd_settings: this program's flags.
        critic_settings: those of the learned kernels.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags describe no circuit on these images, or do not fit one
            another.
    """
    exact = mmd_settings.mmd_estimator == "exact"
    if mmd_settings.mmd_power == 1 and mmd_settings.mmd_estimator != "biased":
        raise UserError(
            "--mmd_estimator must be biased with --mmd_power=1 (a negative estimate "
            f"has no root), got {mmd_settings.mmd_estimator!r}"
        )
    if mmd_settings.mmd_patch is not None and not exact:
        raise UserError(
            "--mmd_estimator must be exact with --mmd_patch, "
            f"got {mmd_settings.mmd_estimator!r}"
        )
    generator = circuit_generator(settings, dataset, mixture_settings.pretrain_steps)
    circuit = generator.circuit
    assert circuit is not None
    if exact:
        term = exact_term(circuit, mmd_settings, dataset)
    else:
        term = sample_term(
            settings, mmd_settings, critic_settings, dataset, circuit.codec
        )
    return mixture.make_system(settings, mixture_settings, generator, term)


PROGRAM = training_program(
    "experiments.mmd",
    "Trains a probabilistic circuit through its differentiable samples, by MMD.",
    make_system,
    Settings,
    MixtureSettings,
    MmdSettings,
    CriticSettings,
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
