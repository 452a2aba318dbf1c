"""A neural generator, trained as the circuit is: ``python -m experiments.gan``.

The counterpart of ``experiments.adv``: the same loop, discriminators, losses and
metrics, with a network in the place of the circuit.
"""

from experiments import data
from experiments.engine.flag_fields import Condition
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.engine.uses import MATCHED, OF_LIKELIHOODS, OF_SAMPLES
from experiments.losses import mixture
from experiments.losses.adversary import AdversarySettings, adversarial_term
from experiments.models.networks import NetworkSettings, network_generator

_BY_CIRCUIT: Condition = {"adv_discriminator": ["circuit"]}


def make_system(
    settings: Settings,
    network_settings: NetworkSettings,
    adversary_settings: AdversarySettings,
    dataset: data.Dataset,
) -> System:
    """Adversarial training of a network as the training loop sees it.

    Args:
        settings: the shared flags.
        network_settings: the flags of the generator.
        adversary_settings: the flags of the discriminator.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the discriminator or the circuit to be matched does not fit.
    """
    generator = network_generator(settings, network_settings, dataset)
    term = adversarial_term(settings, adversary_settings, dataset, generator)
    return mixture.make_system(settings, mixture.NO_LIKELIHOOD, generator, term)


PROGRAM = training_program(
    "experiments.gan",
    "Trains a neural generator against a discriminator.",
    make_system,
    Settings,
    NetworkSettings,
    AdversarySettings,
    # The paper's pair; conv's own defaults are for a circuit that is trained already.
    defaults={"learning_rate": 2e-4, "adv_discriminator": "mlp"},
    without=(*OF_LIKELIHOODS, *OF_SAMPLES, "leaf_min_scale"),
    only=MATCHED
    | {"labels": {"match_params": ["circuit"]}}
    | dict.fromkeys(("structure_seed", "leaf_max_scale"), _BY_CIRCUIT)
    | dict.fromkeys(
        ("structure", "depth", "num_repetitions", "sum_layer"),
        {"match_params": ["circuit"], **_BY_CIRCUIT},
    ),
    example="--dataset=digits --match_params=circuit",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
