"""Probabilistic auto-encoding: ``python -m experiments.pae --dataset=digits``.

One circuit over images and Gaussian latents is encoder and decoder at once: it is
trained until images survive the way through their latents.
"""

from experiments import data
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.engine.uses import OF_CHOICES, OF_LL, PRETRAINED
from experiments.losses import mixture
from experiments.losses.auto_encoding import auto_encoding_term
from experiments.losses.mixture import MixtureSettings
from experiments.models.auto_encoder import AutoEncoder, PaeSettings


def make_system(
    settings: Settings,
    mixture_settings: MixtureSettings,
    pae_settings: PaeSettings,
    dataset: data.Dataset,
) -> System:
    """Auto-encoding as the training loop sees it.

    Args:
        settings: the shared flags.
        mixture_settings: how the likelihood takes part.
        pae_settings: this program's flags.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    pae = AutoEncoder(settings, pae_settings, dataset)
    generator = pae.generator(mixture_settings.pretrain_steps)
    term = auto_encoding_term(pae, dataset)
    return mixture.make_system(settings, mixture_settings, generator, term)


PROGRAM = training_program(
    "experiments.pae",
    "Trains a probabilistic circuit over images and latents as an auto-encoder.",
    make_system,
    Settings,
    MixtureSettings,
    PaeSettings,
    defaults={
        "num_sums": 32,
        "pretrain_steps": 0,
        "ll_weight": 0.05,
        "sampler_learning_rate": 0.01,
    },
    without=("start", "labels", "wavelets", *OF_LL),
    only=PRETRAINED
    | dict.fromkeys(
        OF_CHOICES, {"pae_encode": ["sample"], "pae_decode": ["leaf_mean", "sample"]}
    )
    | {"leaf_noise": {"pae_decode": ["sample"]}},
    example="--dataset=digits --pae_latents=16 --workdir=out/pae-digits",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
