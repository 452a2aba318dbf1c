"""MMD-GAN with a neural generator: ``python -m experiments.mmd_gan``.

The counterpart of ``experiments.mmd`` with ``--mmd_kernel=autoencoder`` or
``gradient_penalty``: the same critics, losses and metrics, with a network in the place
of the circuit.
"""

import dataclasses

from experiments import data
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.engine.uses import MATCHED, OF_DETAILS, OF_LIKELIHOODS, OF_SAMPLES
from experiments.losses import mixture
from experiments.losses.critic import CriticSettings
from experiments.losses.penalized_critic import LEARNED_KERNELS, learned_kernel_term
from experiments.models.networks import NetworkSettings, network_generator


@dataclasses.dataclass(frozen=True)
class KernelSettings:
    """The flag of this program alone."""

    mmd_kernel: str = flags.flag(
        "autoencoder",
        "features of the kernel: of an autoencoder with clipped weights, or of a "
        "critic with gradient_penalty and a rational quadratic kernel",
        flags.one_of(*LEARNED_KERNELS),
    )


def make_system(
    settings: Settings,
    network_settings: NetworkSettings,
    kernel_settings: KernelSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """MMD-GAN as the training loop sees it.

    Args:
        settings: the shared flags.
        network_settings: the flags of the generator.
        kernel_settings: which features.
        critic_settings: the flags of the network that learns them.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the circuit to be matched does not fit the images.
    """
    generator = network_generator(settings, network_settings, dataset)
    term = learned_kernel_term(kernel_settings.mmd_kernel, critic_settings, dataset)
    return mixture.make_system(settings, mixture.NO_LIKELIHOOD, generator, term)


PROGRAM = training_program(
    "experiments.mmd_gan",
    "Trains a neural generator by the MMD of adversarially learned features.",
    make_system,
    Settings,
    NetworkSettings,
    KernelSettings,
    CriticSettings,
    defaults={"learning_rate": 2e-4},
    without=(*OF_LIKELIHOODS, *OF_SAMPLES, *OF_DETAILS),
    only=MATCHED,
    example="--dataset=digits --mmd_kernel=gradient_penalty",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
