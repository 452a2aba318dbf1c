"""Adaptive density estimation: ``python -m experiments.ade --dataset=digits``.

A density over the features of an invertible network is trained by its likelihood and
through its samples at once: coverage and quality (Lucas et al. 2019). The density is a
circuit, with an exact likelihood, or what it is compared with.
"""

import dataclasses

from dspc_jax.objectives import SCORE_ESTIMATORS
from experiments import data
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.flag_fields import Condition
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.engine.uses import OF_CHOICES, OF_EM, PRETRAINED
from experiments.losses import mixture
from experiments.losses.adversary import AdversarySettings, adversarial_term
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, sample_term
from experiments.models.densities import make_density
from experiments.models.density import density_generator
from experiments.models.density_settings import DensitySettings
from experiments.models.preprocessing import preprocessing

# Where a circuit is trained, where its size counts, where one discriminates.
_CIRCUIT: Condition = {"density": ["circuit"]}
_SIZE: Condition = {**_CIRCUIT, "density_width": [None]}
_BY_CIRCUIT: Condition = {"adv_discriminator": ["circuit"]}
_NETWORKS: tuple[str, ...] = ("flow", "vae")  # among the parameters of a density


@dataclasses.dataclass(frozen=True)
class AdeSettings:
    """The flags of this program alone."""

    sample_loss: str = flags.flag(
        "adv",
        "loss on samples: adv (a discriminator, --adv_...) or mmd (--mmd_...)",
        flags.one_of("adv", "mmd"),
    )
    network_rate: float = flags.flag(
        0.2,
        "step size of the flow and of networks, as a share of that of all else",
        flags.above(0),
    )


def make_system(
    settings: Settings,
    mixture_settings: MixtureSettings,
    density_settings: DensitySettings,
    ade_settings: AdeSettings,
    adversary_settings: AdversarySettings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """Joint training as the training loop sees it.

    Args:
        settings: the shared flags.
        mixture_settings: how the likelihood takes part.
        density_settings: what is trained.
        ade_settings: by which loss on samples.
        adversary_settings: the flags of a discriminator.
        mmd_settings: the flags of the MMD.
        critic_settings: those of its learned kernels.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags do not fit one another or the images.
    """
    _check(settings)
    codec = preprocessing("normal", dataset.num_values)
    before = mixture_settings.pretrain_steps
    density = make_density(settings, density_settings, dataset, codec, before)
    generator = density_generator(density, dataset)
    if ade_settings.sample_loss == "adv":
        term = adversarial_term(settings, adversary_settings, dataset, generator)
    else:
        term = sample_term(
            settings, mmd_settings, critic_settings, dataset, generator.codec
        )
    rates = dict.fromkeys(_NETWORKS, ade_settings.network_rate)
    return mixture.make_system(settings, mixture_settings, generator, term, rates)


def _check(settings: Settings) -> None:
    """Refuses estimators that need the choices of all of a sample."""
    if settings.relaxation in (*SCORE_ESTIMATORS, "implicit"):
        raise UserError(
            "--relaxation must be a path through the flow (simple, straight_through, "
            f"gumbel_softmax, ...), got {settings.relaxation!r}"
        )


_OF_IMAGES = ("start", "labels", "leaf", "leaf_noise", "colors", "channels", "wavelets")
PROGRAM = training_program(
    "experiments.ade",
    "Trains a density over the features of a flow by likelihood and through samples.",
    make_system,
    Settings,
    MixtureSettings,
    DensitySettings,
    AdeSettings,
    AdversarySettings,
    MmdSettings,
    CriticSettings,
    defaults={
        "learning_rate": 5e-3,
        "sampler_learning_rate": 1e-3,
        "ll_weight": 1.0,
        "balance": "norm",
        "clip_norm": 1.0,
        "leaf_max_scale": 3.0,
    },
    without=(*OF_EM, *_OF_IMAGES),
    only=PRETRAINED
    | dict.fromkeys(("num_sums", "num_leaves", "num_classes", "mixing"), _SIZE)
    | dict.fromkeys(("tie_leaves", "tie_sums"), _SIZE)
    | dict.fromkeys(
        ("structure", "depth", "num_repetitions", "sum_layer"), _SIZE | _BY_CIRCUIT
    )
    | dict.fromkeys(OF_CHOICES, _CIRCUIT)
    | dict.fromkeys(("structure_seed", "leaf_max_scale"), _CIRCUIT | _BY_CIRCUIT)
    | {"leaf_min_scale": _CIRCUIT},
    example="--dataset=digits --flow=multi_scale --preprocess=logit",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
