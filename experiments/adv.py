"""Adversarial training: ``python -m experiments.adv --dataset=digits``.

A circuit is trained through its own differentiable samples until a discriminator,
trained against it, does not tell them from the data.
"""

from experiments import data
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.recipes import LIKELIHOOD, ON_SAMPLES
from experiments.engine.system import System
from experiments.engine.uses import OF_LL, PRETRAINED
from experiments.losses import mixture
from experiments.losses.adversary import AdversarySettings, adversarial_term
from experiments.losses.mixture import MixtureSettings
from experiments.models.generators import circuit_generator


def make_system(
    settings: Settings,
    mixture_settings: MixtureSettings,
    adversary_settings: AdversarySettings,
    dataset: data.Dataset,
) -> System:
    """Adversarial training as the training loop sees it.

    Args:
        settings: the shared flags.
        mixture_settings: how the likelihood takes part.
        adversary_settings: the flags of the discriminator.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    generator = circuit_generator(settings, dataset, mixture_settings.pretrain_steps)
    term = adversarial_term(settings, adversary_settings, dataset, generator)
    return mixture.make_system(settings, mixture_settings, generator, term)


PROGRAM = training_program(
    "experiments.adv",
    "Trains a probabilistic circuit through its differentiable samples, against a "
    "discriminator.",
    make_system,
    Settings,
    MixtureSettings,
    AdversarySettings,
    recipes=[LIKELIHOOD, ON_SAMPLES],
    # Tuned on digits: see docs/programs.md.
    defaults={"sampler_learning_rate": 1e-3, "ll_weight": 1.0, "balance": "norm"},
    without=OF_LL,
    only=PRETRAINED,
    example="--dataset=digits --ll_weight=1 --workdir=out/adv-digits",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
