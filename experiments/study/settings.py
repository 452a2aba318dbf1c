"""Settings that studies vary: sizes of everything, the paper's flags, and ours."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiments.study.plan import RunOf

Flags = dict[str, Any]


class Scale(NamedTuple):
    """Sizes of everything in a study.

    Attributes:
        units: sum units and leaves a region of our circuits.
        batch_size: images a step.
        judge_steps: of the classifier whose features measure.
        critic_steps: of the classifiers whose features a loss sees.
        first_steps: likelihood, large step size.
        start_steps: likelihood, small step size: the start of all variants.
        more_steps: of likelihood alone and of likelihood with a loss on samples.
        network_steps: of neural generators and variational auto-encoders.
        pae_steps: of probabilistic auto-encoding, a fifth of it likelihood alone.
        ladder_steps: of each run of ``paper``, ``corrected``, ``temperature``,
            ``grid``, ``data_efficiency`` and ``convergence``.
        num_samples: of each seed, to measure.
    """

    units: int
    batch_size: int
    judge_steps: int
    critic_steps: int
    first_steps: int
    start_steps: int
    more_steps: int
    network_steps: int
    pae_steps: int
    ladder_steps: int
    num_samples: int


SCALES = {
    "smoke": Scale(4, 32, 200, 100, 60, 20, 20, 50, 40, 20, 300),
    "digits": Scale(16, 64, 2000, 600, 400, 200, 200, 4000, 800, 600, 4000),
    "cpu": Scale(64, 64, 4000, 3000, 1500, 700, 500, 4000, 1000, 400, 10_000),
    "gpu": Scale(256, 256, 10_000, 5000, 10_000, 5000, 5000, 50_000, 10_000, 20_000,
                 10_000),
}  # fmt: skip


class Context(NamedTuple):
    """Data set, classifiers and sizes of a study.

    Attributes:
        data: the flags that name the images.
        judge: the classifier whose features measure: `RunOf` a job of the study, the
            folder of a run elsewhere, or None: there is none.
        critics: classifiers whose features a loss sees, likewise.
        num_seeds: trained together, of every run but the judge.
        scale: sizes of everything.
        height: rows of an image.
    """

    data: Mapping[str, Any]
    judge: RunOf | str | None
    critics: RunOf | str | None
    num_seeds: int
    scale: Scale
    height: int


# The circuit of the paper, as its scripts have it.
RAT: Flags = {
    "structure": "random_binary_trees",
    "depth": 4,
    "num_repetitions": 10,
    "num_sums": 20,
    "num_leaves": 20,
    "sum_layer": "tucker",
    "leaf": "binomial",
}
BALANCED: Flags = {"ll_weight": 1.0, "balance": "norm"}

# The paper's objectives, faults included: soft samples, the variance in the place of
# the deviation, no likelihood, fully connected discriminator, fixed bandwidths on the
# features of a clipped auto-encoder, hard-coded step sizes and constant temperatures.
_SOFT_SAMPLES: Flags = {"relaxation": "gumbel_softmax", "leaf_noise": "variance"}
_NO_LIKELIHOOD: Flags = {"pretrain_steps": 0, "ll_weight": 0.0}
PAPER_ADV: Flags = {
    **_SOFT_SAMPLES,
    **_NO_LIKELIHOOD,
    "temperature": 0.5,
    "sampler_learning_rate": 1e-4,
    "adv_discriminator": "mlp",
    "adv_learning_rate": 2e-4,
    "adv_r1_weight": 0.0,
}
PAPER_MMD: Flags = {
    **_SOFT_SAMPLES,
    **_NO_LIKELIHOOD,
    "temperature": 0.05,
    "sampler_learning_rate": 0.01,
    "mmd_kernel": "autoencoder",
}
PAPER_PAE: Flags = {
    **_SOFT_SAMPLES,
    **_NO_LIKELIHOOD,
    "temperature": 0.5,
    "sampler_learning_rate": 1e-4,
    "pae_encode": "sample",
    "pae_decode": "sample",
    "pae_latents": 20,
}


def circuit_flags(context: Context) -> Flags:
    """Our circuit: quad tree, one product a unit, discretized logistic leaves."""
    units = context.scale.units
    return {"leaf": "discretized_logistic", "num_sums": units, "num_leaves": units}


def mmd_flags(context: Context) -> Flags:
    """Our MMD: on classifiers' features, or on pixels where there are none."""
    if context.critics is None:
        return {"mmd_kernel": "pixel"}
    return {"mmd_kernel": "classifier", "mmd_classifier": context.critics}


def adv_flags(context: Context) -> Flags:
    """Our ADV: on classifiers' features, or by convolutions where there are none."""
    defaults: Flags = {"adv_learning_rate": None, "adv_r1_weight": None}
    if context.critics is None:
        return {"adv_discriminator": "conv", **defaults}
    return {
        "adv_discriminator": "classifier",
        "adv_classifier": context.critics,
        "adv_loss": "hinge",
        **defaults,
    }


def half_and_half(context: Context, rate: float = 0.03) -> Flags:
    """Likelihood for half of the steps, then beside a loss, with one step size."""
    steps = context.scale.ladder_steps
    rates = {"learning_rate": rate, "sampler_learning_rate": rate}
    return {"num_steps": steps, "pretrain_steps": steps // 2, **rates}


def hybrid(context: Context) -> Flags:
    """`half_and_half`, both gradients of one norm."""
    return {**half_and_half(context), **BALANCED}


def annealed(num_steps: int) -> Flags:
    """The paper's schedule: max(0.5, exp(-t)), t from 0 to 1 in steps with samples."""
    return {
        "temperature": 1.0,
        "temperature_schedule": "annealed",
        "temperature_decay_steps": num_steps,
    }


class Correction(NamedTuple):
    """One change of the paper's settings.

    Attributes:
        title: of the change.
        adv: flags that change in the paper's ADV.
        mmd: flags that change in the paper's MMD.
        is_used: whether it is part of ours; else it is shown alone only.
    """

    title: str
    adv: Flags
    mmd: Flags
    is_used: bool = True


def corrections(context: Context) -> list[Correction]:
    """All corrections.

    Each runs for `Scale.ladder_steps`, of which likelihood takes the first half.
    """

    def common(title: str, flags: Flags, is_used: bool = True) -> Correction:
        return Correction(title, flags, flags, is_used)

    leaves = {"leaf": "discretized_logistic", "leaf_noise": "deviation"}
    steps = context.scale.ladder_steps
    adv_rate = {"sampler_learning_rate": 0.003}
    mmd_rate = {"sampler_learning_rate": 0.001}
    likelihood = {**BALANCED, "pretrain_steps": steps // 2, **mmd_rate}
    return [
        common("deviation", {"leaf_noise": "deviation"}),
        common("annealing", annealed(steps), is_used=False),  # hard samples: no need
        common("hard samples", {"relaxation": "simple", "temperature": 1.0}),
        common("locality", {"structure": "quad_tree", "sum_layer": "cp_t"}),
        common("leaves", leaves),
        Correction("step size", adv_rate, mmd_rate),
        Correction("critic", adv_flags(context), mmd_flags(context)),
        common("likelihood", likelihood),
    ]


def union(corrections: Iterable[Correction]) -> tuple[Flags, Flags]:
    """Corrections together: flags of ADV, and of MMD; later ones win."""
    adv: Flags = {}
    mmd: Flags = {}
    for correction in corrections:
        adv |= correction.adv
        mmd |= correction.mmd
    return adv, mmd
