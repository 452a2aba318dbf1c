"""Maximum mean discrepancy: ``python -m experiments.mmd --dataset=digits``.

A circuit is trained through its own differentiable samples until no kernel tells them
from the data: on pixels, or on the features of an adversarially trained auto-encoder.
"""

import dataclasses
import functools
from typing import Any, cast

from dspc_jax.objectives import Kernel, mmd_advantages, mmd_loss
from experiments import data, flags, mixture
from experiments.critic import Critic, CriticSettings
from experiments.device_loop import System
from experiments.errors import UserError
from experiments.flags import Settings
from experiments.generators import circuit_generator
from experiments.mixture import MixtureSettings, Term
from experiments.program import training_program


@dataclasses.dataclass(frozen=True)
class MmdSettings:
    """The flags of this program alone."""

    mmd_kernel: str = flags.flag(
        "pixel",
        "kernels between grey values (pixel), or between the features of an "
        "auto-encoder trained against the circuit (autoencoder)",
        flags.one_of("pixel", "autoencoder"),
    )
    mmd_estimator: str = flags.flag(
        "unbiased",
        "estimate of the squared MMD on pixels",
        flags.one_of("unbiased", "biased"),
    )
    mmd_power: int = flags.flag(
        2,
        "minimise the square of the MMD on pixels (2), or the MMD itself (1; with "
        "--mmd_estimator=biased only)",
        flags.one_of(1, 2),
    )


def pixel_term(kernel: Kernel, settings: MmdSettings) -> Term:
    """The MMD between grey values."""

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

    advantages = None
    if settings.mmd_estimator == "unbiased":
        advantages = functools.partial(mmd_advantages, kernel=kernel)
    return Term(
        "mmd", init=lambda key: (), train=None, loss=loss, advantages=advantages
    )


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
        critic_settings: those of the auto-encoder.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    if mmd_settings.mmd_power == 1 and mmd_settings.mmd_estimator != "biased":
        raise UserError(
            "--mmd_estimator must be biased with --mmd_power=1 (a negative estimate "
            f"has no root), got {mmd_settings.mmd_estimator!r}"
        )
    generator = circuit_generator(settings, dataset, mixture_settings.pretrain_steps)
    if mmd_settings.mmd_kernel == "autoencoder":
        term = Critic(critic_settings, dataset).term
    else:
        assert generator.circuit is not None
        term = pixel_term(generator.circuit.kernel, mmd_settings)
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
