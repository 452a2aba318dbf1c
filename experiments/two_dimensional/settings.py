"""The flags of the two-dimensional study: how one mixture of Gaussians is trained."""

from collections.abc import Callable
import dataclasses
from typing import Any

from dspc_jax.objectives import ADVERSARIAL_LOSSES
from experiments.engine import flags
from experiments.engine.flag_fields import Condition
from experiments.engine.requirements import naming

_ADV: Condition = {"objectives": naming("adv")}
_MMD: Condition = {"objectives": naming("mmd")}
_KERNELS: Condition = {"objectives": naming("mmd", "exact_mmd")}
_SAMPLES: Condition = {"objectives": naming("mmd", "adv")}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How one model is trained; the same for all sets."""

    seed: int = flags.flag(0, "the first seed", flags.at_least(0))
    num_seeds: int = flags.flag(
        5, "seeds, trained together as one program", flags.at_least(1)
    )
    num_steps: int = flags.flag(1500, "training steps", flags.at_least(1))
    batch_size: int = flags.flag(512, "points a step", flags.at_least(2))
    learning_rate: float = flags.flag(
        0.05,
        "first step size of Adam (falls to 0 by a cosine)",
        flags.above(0),
        only={"objectives": naming("ll", "mmd", "exact_mmd")},
    )
    init: str = flags.flag(
        "data",
        "first means: at data points, or random in [-3, 3] as the paper's",
        flags.one_of("data", "random"),
    )
    init_spread: float = flags.flag(
        0.2,
        "first deviations, relative to the data's",
        flags.above(0),
        only={"init": ["data"]},
    )
    relaxation: str = flags.flag(
        "score_pathwise",
        "gradient through samples, for mmd and adv",
        flags.one_of(
            *(
                "score_pathwise",
                "implicit",
                "simple",
                "straight_through",
                "gumbel_softmax",
            ),
            *("gumbel_rao", "reinmax"),
        ),
        only=_SAMPLES,
    )
    temperature: float = flags.flag(
        1.0, "of the relaxation", flags.above(0), only=flags.TEMPERED
    )
    bandwidths: str = flags.flag(
        "0.05,0.1,0.2,0.5,1", "of the Gaussian kernels, with commas", only=_KERNELS
    )
    kernel_slope: float = flags.flag(
        1.0,
        "a kernel of bandwidth h has the weight h**-slope; 0 for equal weights",
        flags.at_least(0),
        only=_KERNELS,
    )
    mmd_power: int = flags.flag(
        2,
        "minimize the unbiased squared MMD (2), or the root of the biased one (1)",
        flags.one_of(1, 2),
        only=_MMD,
    )
    adv_loss: str = flags.flag(
        "vanilla",
        "adversarial loss",
        flags.one_of(*ADVERSARIAL_LOSSES),
        only=_ADV,
    )
    adv_discriminator: str = flags.flag(
        "circuit",
        "a circuit with two roots over shared Gaussians (circuit), or a network (mlp)",
        flags.one_of("circuit", "mlp"),
        only=_ADV,
    )
    adv_leaves: int = flags.flag(
        100,
        "Gaussians of the discriminating circuit",
        flags.at_least(1),
        only={"adv_discriminator": ["circuit"]},
    )
    adv_hidden: str = flags.flag(
        "128,128",
        "hidden units of the discriminating network, with commas",
        only={"adv_discriminator": ["mlp"]},
    )
    adv_sampler_learning_rate: float = flags.flag(
        0.02,
        "first step size of the circuit's Adam against it",
        flags.above(0),
        only=_ADV,
    )
    adv_steps: int = flags.flag(
        3,
        "discriminator steps before each step of the circuit",
        flags.at_least(1),
        only=_ADV,
    )
    adv_learning_rate: float = flags.flag(
        0.02,
        "first step size of the discriminator's Adam (falls to 0 by a cosine)",
        flags.above(0),
        only=_ADV,
    )
    adv_r1_weight: float = flags.flag(
        0.01, "weight of the R1 penalty", flags.at_least(0), only=_ADV
    )
    adv_average: float = flags.flag(
        0.998,
        "adv: the result is an average of the parameters that forgets at this rate a "
        "step; 0 for the last parameters",
        flags.at_least(0),
        only=_ADV,
    )


def numbers(text: str, kind: Callable[[str], Any] = float) -> tuple[Any, ...]:
    """``"1,2"`` as ``(1, 2)``."""
    return tuple(kind(word) for word in text.split(","))
