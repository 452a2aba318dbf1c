"""What the shared flags belong to: for programs that lack it, or have it at times."""

from experiments.engine.flag_fields import Condition
from experiments.engine.flags import Settings, fields_of
from experiments.engine.requirements import above, at_least

OF_EM = (
    "optimizer",
    *(f.name for f in fields_of([Settings]) if f.name.startswith("em_")),
)
"""Flags of expectation-maximization."""
OF_LL = ("em_closing_steps", "channels")
"""Flags of `experiments.ll` alone: EM after the last step, which is not the last one
where other losses follow, and variables that losses on images do not know of."""
OF_LIKELIHOODS = (
    *OF_EM,
    "channels",
    *("start", "start_from", "keep_best", "patience", "sharpness"),
)
"""Flags of the circuit that is trained: nothing to a network."""
OF_CHOICES = (
    *("relaxation", "temperature", "temperature_schedule", "temperature_floor"),
    "temperature_decay_steps",
)
"""Flags of the choices in its differentiable samples."""
OF_SAMPLES = (*OF_CHOICES, "leaf_noise")
"""Flags of its differentiable samples."""
OF_SIZES = (
    *("structure", "depth", "num_repetitions", "num_sums", "num_leaves"),
    *("num_classes", "sum_layer", "leaf", "colors", "tie_leaves", "tie_sums"),
    *("mixing", "wavelets"),
)
"""Flags that decide how many numbers it learns."""
OF_DETAILS = ("structure_seed", "labels", "leaf_min_scale", "leaf_max_scale")
"""Flags that shape it as well."""
MATCHED: dict[str, Condition] = dict.fromkeys(OF_SIZES, {"match_params": ["circuit"]})
"""Conditions for a network, which only the size of a circuit matters to."""
PRETRAINED: dict[str, Condition] = {
    "learning_rate": {"pretrain_steps": at_least(1)},
    "balance": {"ll_weight": above(0)},
}
"""Conditions where a loss on samples follows, with a step size of its own."""
