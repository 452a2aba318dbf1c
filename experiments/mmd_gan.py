"""MMD-GAN with a neural generator: ``python -m experiments.mmd_gan``.

The counterpart of ``experiments.mmd --mmd_kernel=autoencoder``: the same auto-encoder,
losses and metrics, with a network in the place of the circuit.
"""

from experiments import data, mixture
from experiments.critic import Critic, CriticSettings
from experiments.device_loop import System
from experiments.flags import Settings
from experiments.gan import NETWORK_MIXTURE
from experiments.network_generators import NetworkSettings, network_generator
from experiments.program import training_program


def make_system(
    settings: Settings,
    network_settings: NetworkSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """MMD-GAN as the training loop sees it.

    Args:
        settings: the shared flags.
        network_settings: the flags of the generator.
        critic_settings: the flags of the auto-encoder.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the circuit to be matched does not fit the images.
    """
    generator = network_generator(settings, network_settings, dataset)
    term = Critic(critic_settings, dataset).term
    return mixture.make_system(settings, NETWORK_MIXTURE, generator, term)


PROGRAM = training_program(
    "experiments.mmd_gan",
    "Trains a neural generator by the MMD of adversarially learned features.",
    make_system,
    Settings,
    NetworkSettings,
    CriticSettings,
    defaults={"learning_rate": 2e-4},
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
