"""Every shared flag, defined once, and read once into a frozen dataclass.

A group of flags is a frozen dataclass whose fields are made by `flag`; a program adds
groups of its own, named with a prefix (``--mmd_kernel``), to the shared `Settings`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, TypeVar

from experiments import data
from experiments.console.errors import UserError
from experiments.console.paths import local_path
from experiments.engine.circuit_flags import CircuitSettings
from experiments.engine.flag_fields import flag
from experiments.engine.requirements import above, at_least, from_to, one_of, within

Group = TypeVar("Group")
"""A frozen dataclass whose fields are made by `flag`."""


TEMPERED = {
    "relaxation": [
        *("gumbel_softmax", "straight_through", "gumbel_rao", "reinmax", "dense"),
        "rebar",
    ]
}
"""The condition of what a temperature means something to."""
_EM = {"optimizer": ["em"]}


@dataclasses.dataclass(frozen=True)
class Settings(CircuitSettings):
    """The flags that every program understands."""

    dataset: str = flag("digits", "data set", one_of(*data.NAMES), shapes=True)
    data_dir: str | None = flag(
        None,
        "folder with the files of a data set that has files, or of images for folder, "
        "or an archive of debd; "
        "tensorflow-datasets' own by default",
        free=True,
        kind=local_path,
        only={"dataset": data.WITH_FILES},
    )
    data_source: str = flag(
        "auto",
        "files: official archives in --data_dir; tfds: tensorflow-datasets, downloaded "
        "on first use; auto: the archives if they are there, else tfds",
        one_of("auto", "files", "tfds"),
        only={"dataset": data.WITH_ARCHIVES},
    )
    cache_dir: str | None = flag(
        None,
        "folder of prepared images; beside the data by default",
        free=True,
        kind=local_path,
        only={"dataset": data.PREPARED, "data_source": ["auto", "tfds"]},
    )
    debd_name: str = flag(
        "nltcs",
        "the table of debd, e.g. plants or accidents",
        shapes=True,
        only={"dataset": ["debd"]},
    )
    image_size: int = flag(
        0,
        "rows and columns of an image; 0: the set's own, 64 for celeba",
        at_least(0),
        shapes=True,
    )
    image_mode: str = flag(
        "auto",
        "gray, rgb, or auto: the set's own",
        one_of("auto", "gray", "rgb"),
        shapes=True,
    )
    image_resize: str = flag(
        "crop",
        "crop: a square from the center; squash: the whole image (the paper's celeba)",
        one_of("crop", "squash"),
        shapes=True,
    )
    train_fraction: float = flag(
        1.0, "share of the training images that is used, evenly spaced", within(0, 1)
    )
    flip: str = flag(
        "none",
        "horizontal: every training image is mirrored with probability 1/2, anew at "
        "every step",
        one_of("none", "horizontal"),
    )
    workdir: str | None = flag(
        None,
        "folder for checkpoints, metrics and pictures; the same command with the same "
        "folder continues a run (default: out/PROGRAM-DATASET)",
        free=True,
        kind=local_path,
    )
    start_from: str | None = flag(
        None,
        "folder of a run of the same circuit whose newest checkpoint the circuit "
        "starts from (with the same seeds); set --pretrain_steps=0 to go on at once",
        kind=local_path,
    )
    seed: int = flag(0, "seed of initialization, batches and noise", at_least(0))
    num_seeds: int = flag(
        1, "train the seeds seed, seed+1, ... together as one program", at_least(1)
    )
    num_steps: int = flag(
        1000, "training steps; may be raised to continue a run", at_least(1), free=True
    )
    batch_size: int = flag(
        128, "examples a step, over all devices together", at_least(1)
    )
    learning_rate: float = flag(
        0.03, "step size of Adam", above(0), only={"optimizer": ["adam"]}
    )
    optimizer: str = flag(
        "adam", "adam, or em (expectation maximization)", one_of("adam", "em")
    )
    em_step_size: float = flag(
        0.1,
        "weight of the newest batch in EM's running statistics, at the first step "
        "where it changes",
        within(0, 1),
        only=_EM,
    )
    em_last_step_size: float = flag(
        0.01, "weight after --em_decay_steps", within(0, 1), only=_EM
    )
    em_decay_steps: int = flag(
        0,
        "steps in which EM's step size falls exponentially from the first to the last, "
        "where it stays; 0: it does not change",
        at_least(0),
        only=_EM,
    )
    em_pseudocount: float = flag(
        0.0, "examples that are added to each sum in EM", at_least(0), only=_EM
    )
    em_leaf_pseudocount: float = flag(
        0.0, "the same for each leaf", at_least(0), only=_EM
    )
    em_smooth_towards: str = flag(
        "current",
        "what these are like: current (the sum as it is: the rarer, the shorter its "
        "steps), marginal (all units of its region together) or uniform",
        one_of("current", "marginal", "uniform"),
        only={"em_pseudocount": above(0), "em_leaf_pseudocount": above(0)},
    )
    em_leaf_spread: float = flag(
        0.0,
        "deviation by which the values that a categorical leaf counts also count for "
        "their neighbors, in levels",
        at_least(0),
        only=(_EM, {"leaf": ["categorical"]}),
    )
    em_momentum: float = flag(
        0.0,
        "decay of EM's moving average of counts; 0: those of the newest batch",
        from_to(0, 1),
        only=_EM,
    )
    em_rescale: bool = flag(
        False,
        "shorter EM steps for sums and leaves that a batch visits less often than "
        "samples would (anemone)",
        only=_EM,
    )
    em_approximate: bool = flag(
        False,
        "EM also fits discretized logistic leaves, approximately: by moments",
        only=(_EM, {"leaf": ["discretized_logistic"]}),
    )
    em_closing_steps: int = flag(
        0,
        "full-batch EM steps of size 1 after the last step (--num_steps is then fixed)",
        at_least(0),
        only=_EM,
    )
    start: str = flag(
        "examples",
        "circuit before the first step: random with leaves at examples, or distill: "
        "frequencies under clusters of the training images, much better",
        one_of("examples", "distill"),
    )
    checkpoint_every: int = flag(
        500, "steps between checkpoints", at_least(1), free=True
    )
    checkpoint_minutes: float = flag(
        10.0,
        "minutes after which a checkpoint is written in any case; 0: never",
        at_least(0),
        free=True,
    )
    eval_every: int = flag(
        500,
        "steps between evaluations on the validation images and sample grids",
        at_least(1),
        free=True,
    )
    keep_best: bool = flag(
        False,
        "end with the state of the best bits per dimension on the validation images, "
        "seed by seed, in place of the last (--num_steps and --eval_every are then "
        "fixed)",
    )
    patience: int = flag(
        0,
        "evaluations without improvement of any seed after which the run ends (implies "
        "--keep_best); 0: it never ends early",
        at_least(0),
    )
    log_every: int = flag(
        50, "steps of one training line in metrics.jsonl", at_least(1), free=True
    )
    sharpness: float = flag(
        1.0,
        "not 1: pictures of samples show also those of the circuit with all weights to "
        "this power (above 1: more typical ones); nothing is trained by it",
        at_least(0),
        free=True,
        only={"density": ["circuit"]},
    )
    relaxation: str = flag(
        "simple",
        "gradient through the choices of a sampled circuit; straight_through has a "
        "heavy tail in deep circuits, gumbel_softmax trains soft samples; "
        "score_function and, with normal leaves, score_pathwise, rebar and implicit "
        "(few variables) are unbiased: docs/estimators.md",
        one_of(
            *("gumbel_softmax", "straight_through", "simple", "gumbel_rao", "reinmax"),
            *("dense", "implicit", "score_function", "score_pathwise"),
            "rebar",
        ),
    )
    temperature: float = flag(
        1.0,
        "temperature of the relaxation, at the first step where it changes",
        above(0),
        only=TEMPERED,
    )
    temperature_schedule: str = flag(
        "constant",
        "constant, annealed (falls exponentially to --temperature_floor) or learned",
        one_of("constant", "annealed", "learned"),
        only=TEMPERED,
    )
    temperature_floor: float = flag(
        0.5,
        "least temperature of the annealed schedule",
        above(0),
        only={"temperature_schedule": ["annealed"]},
    )
    temperature_decay_steps: int = flag(
        1000,
        "steps in which an annealed temperature falls by a factor e",
        at_least(1),
        only={"temperature_schedule": ["annealed"]},
    )

    def __post_init__(self):
        if self.patience:
            object.__setattr__(self, "keep_best", True)  # the one implies the other
        if self.seed + self.num_seeds > 2**32:
            raise UserError(
                "--seed must be less than 2**32, with --num_seeds - 1 added, got "
                f"{self.seed} and {self.num_seeds} seeds"
            )

    @property
    def seeds(self) -> list[int]:
        """The seeds that are trained together."""
        return list(range(self.seed, self.seed + self.num_seeds))

    @property
    def all_steps(self) -> int:
        """The steps of a whole run, those that close it included."""
        return self.num_steps + self.em_closing_steps

    def data_options(self) -> data.Options:
        """The part of the flags that `experiments.data.load` takes."""
        return data.Options(
            source=self.data_source,
            cache_dir=self.cache_dir,
            image_size=self.image_size,
            image_mode=self.image_mode,
            image_resize=self.image_resize,
            train_fraction=self.train_fraction,
            debd_name=self.debd_name,
        )


def fields_of(groups: Sequence[Any]) -> list[dataclasses.Field[Any]]:
    """The flags of groups, instances or classes, in order."""
    return [field for group in groups for field in dataclasses.fields(group)]


def by_name(groups: Sequence[Any]) -> dict[str, Any]:
    """The values of all flags by name, as ``config.json`` has them."""
    return {
        name: v for group in groups for name, v in dataclasses.asdict(group).items()
    }


def from_values(group: type[Group], values: Mapping[str, Any]) -> Group:
    """A group of flags from the values of a run.

    Args:
        group: a dataclass whose fields are made by `flag`.
        values: by name, those of other groups too; a flag that the run did not know has
            its default.

    Returns:
        The instance.
    """
    names = [field.name for field in fields_of([group])]
    return group(**{name: values[name] for name in names if name in values})


def defaults_of(
    groups: Sequence[Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The default of every flag.

    Args:
        groups: instances or classes made of `flag` fields.
        defaults: the program's own, by name.

    Returns:
        The defaults by name.
    """
    values = {field.name: field.default for field in fields_of(groups)}
    return values | dict(defaults or {})


def free_flags(groups: Sequence[Any]) -> set[str]:
    """The flags that may differ when a run is continued.

    Args:
        groups: instances or classes made of `flag` fields.

    Returns:
        Their names.
    """
    return {field.name for field in fields_of(groups) if field.metadata["free"]}
