"""Maximum mean discrepancy: ``python -m experiments.mmd --dataset=digits``.

A circuit is trained through its own differentiable samples until no kernel tells them
from the data: on pixels, or on the features of a network that is trained to tell them
apart. Without samples, too, where the MMD has a closed form.
"""

from experiments import data
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.recipes import LIKELIHOOD, ON_SAMPLES
from experiments.engine.system import System
from experiments.engine.uses import OF_LL, OF_SAMPLES, PRETRAINED
from experiments.losses import mixture
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, exact_term, sample_term
from experiments.losses.penalized_critic import LEARNED_KERNELS
from experiments.models.generators import circuit_generator


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
        mmd_settings: the flags of the discrepancy.
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
    recipes=[LIKELIHOOD, ON_SAMPLES],
    without=OF_LL,
    only=PRETRAINED
    | dict.fromkeys(
        OF_SAMPLES,
        {"mmd_estimator": ["unbiased", "biased"], "mmd_kernel": LEARNED_KERNELS},
    ),
    example="--dataset=digits --ll_weight=1 --workdir=out/mmd-digits",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
