"""Variational auto-encoder: ``python -m experiments.vae --dataset=digits``.

The neural counterpart of `experiments.pae`: the paper's network by default, with the
same metrics.
"""

from experiments import data
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.engine.uses import MATCHED, OF_DETAILS, OF_LIKELIHOODS, OF_SAMPLES
from experiments.losses import mixture
from experiments.losses.auto_encoding import variational_term
from experiments.models.auto_encoder import OF_CODES, OF_TRAINING, PaeSettings
from experiments.models.variational import (
    VaeSettings,
    chosen_network,
    variational_generator,
)


def make_system(
    settings: Settings,
    vae: VaeSettings,
    pae_settings: PaeSettings,
    dataset: data.Dataset,
) -> System:
    """The auto-encoder as the training loop sees it.

    Args:
        settings: the shared flags; of a circuit they matter for matching only.
        vae: this program's flags.
        pae_settings: those of the circuit whose size is matched.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.
    """
    network, target = chosen_network(settings, vae, pae_settings, dataset)
    generator = variational_generator(network, target, dataset)
    term = variational_term(network, vae.vae_kl_weight)
    return mixture.make_system(settings, mixture.NO_LIKELIHOOD, generator, term)


PROGRAM = training_program(
    "experiments.vae",
    "Trains a variational auto-encoder, the neural counterpart of experiments.pae.",
    make_system,
    Settings,
    VaeSettings,
    PaeSettings,
    defaults={"learning_rate": 0.001, "num_sums": 32},
    without=(*OF_LIKELIHOODS, *OF_SAMPLES, *OF_DETAILS, *OF_TRAINING),
    only=MATCHED | dict.fromkeys(OF_CODES, {"match_params": ["circuit"]}),
    example="--dataset=digits --match_params=circuit",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
