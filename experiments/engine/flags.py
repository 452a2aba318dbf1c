"""Every shared flag, defined once, and read once into a frozen dataclass.

A group of flags is a frozen dataclass whose fields are made by `flag`; a program adds
groups of its own, named with a prefix (``--mmd_kernel``), to the shared `Settings`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

from absl import flags as absl_flags

from experiments import data
from experiments.console import summary
from experiments.console.errors import UserError


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What a value must satisfy: a predicate, and the words an error gives for it."""

    holds: Callable[[Any], bool]
    words: str


def at_least(low: float) -> Requirement:
    """The value is a finite number not below ``low``."""
    return Requirement(
        lambda v: math.isfinite(v) and v >= low, f"must be at least {low}"
    )


def above(low: float) -> Requirement:
    """The value is a finite number greater than ``low``."""
    return Requirement(
        lambda v: math.isfinite(v) and v > low, f"must be greater than {low}"
    )


def within(low: float, high: float) -> Requirement:
    """``low < value <= high``."""
    return Requirement(
        lambda v: low < v <= high, f"must be greater than {low} and at most {high}"
    )


def one_of(*names: str | int) -> Requirement:
    """The value is one of ``names``."""
    return Requirement(
        lambda v: v in names, f"must be one of {', '.join(map(str, names))}"
    )


def flag(
    default: Any, explanation: str, requirement: Requirement | None = None, **more: Any
) -> Any:
    """A dataclass field that is a flag.

    Args:
        default: the value without the flag; its type is the flag's type, except that
            None stands for text or, with ``kind=``, for another type.
        explanation: the line of ``--help``.
        requirement: what a given or default value must satisfy; None is not checked.
        **more: ``kind``: the type where ``default`` is None; ``free``: True if a run
            may be continued with another value (see `experiments.engine.workdir`).

    Returns:
        The field.
    """
    kind = more.pop("kind", str if default is None else type(default))
    free = more.pop("free", False)
    if more:
        raise TypeError(f"flag() got unknown options {sorted(more)}")
    return dataclasses.field(
        default=default,
        metadata={
            "help": explanation,
            "requirement": requirement,
            "kind": kind,
            "free": free,
        },
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags that every program understands."""

    dataset: str = flag("digits", "data set", one_of(*data.NAMES))
    data_dir: str | None = flag(
        None,
        "folder with the files of a data set that has files, or of images for folder; "
        "tensorflow-datasets' own by default",
        free=True,
    )
    data_source: str = flag(
        "auto",
        "files: official archives in --data_dir; tfds: tensorflow-datasets, downloaded "
        "on first use; auto: the archives if they are there, else tfds",
        one_of("auto", "files", "tfds"),
    )
    cache_dir: str | None = flag(
        None, "folder of prepared images; beside the data by default", free=True
    )
    image_size: int = flag(
        0, "rows and columns of an image; 0: the set's own, 64 for celeba", at_least(0)
    )
    image_mode: str = flag(
        "auto", "gray, rgb, or auto: the set's own", one_of("auto", "gray", "rgb")
    )
    image_resize: str = flag(
        "crop",
        "crop: a square from the centre; squash: the whole image (the paper's celeba)",
        one_of("crop", "squash"),
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
    )
    start_from: str | None = flag(
        None,
        "folder of a run of the same circuit whose newest checkpoint the circuit "
        "starts from (with the same seeds); set --pretrain_steps=0 to go on at once",
    )
    seed: int = flag(0, "seed of initialisation, batches and noise", at_least(0))
    num_seeds: int = flag(
        1, "train the seeds seed, seed+1, ... together as one program", at_least(1)
    )
    num_steps: int = flag(
        1000, "training steps; may be raised to continue a run", at_least(1), free=True
    )
    batch_size: int = flag(
        128, "examples a step, over all devices together", at_least(1)
    )
    learning_rate: float = flag(0.03, "step size of Adam", above(0))
    optimizer: str = flag(
        "adam", "adam, or em (expectation maximisation)", one_of("adam", "em")
    )
    em_step_size: float = flag(
        0.1, "weight of the newest batch in EM's running statistics", within(0, 1)
    )
    checkpoint_every: int = flag(
        500, "steps between checkpoints", at_least(1), free=True
    )
    eval_every: int = flag(
        500,
        "steps between evaluations on the validation images and sample grids",
        at_least(1),
        free=True,
    )
    log_every: int = flag(
        50,
        "steps whose mean is one training line in metrics.jsonl",
        at_least(1),
        free=True,
    )
    structure: str = flag(
        "quad_tree",
        "region graph: quad_tree lets neighbouring pixels meet first, "
        "random_binary_trees is the paper's",
        one_of("random_binary_trees", "quad_tree"),
    )
    depth: int = flag(4, "depth of random_binary_trees", at_least(1))
    num_repetitions: int = flag(10, "number of random_binary_trees", at_least(1))
    structure_seed: int = flag(
        0,
        "seed of the partitions of random_binary_trees, shared by all seeds",
        at_least(0),
    )
    num_sums: int = flag(64, "sum units a region", at_least(1))
    num_leaves: int = flag(64, "leaf distributions a variable", at_least(1))
    num_classes: int = flag(
        1, "roots, mixed with equal weights at the start", at_least(1)
    )
    labels: str = flag(
        "unused",
        "unused, or roots: a root for each class of the data, trained by the joint "
        "likelihood of image and label (--num_classes is then the data's)",
        one_of("unused", "roots"),
    )
    sum_layer: str = flag(
        "cp",
        "tucker: weights on all pairs of units; cp: one a product",
        one_of("tucker", "cp"),
    )
    leaf: str = flag(
        "normal",
        "leaf distribution",
        one_of(
            "binomial", "normal", "bernoulli", "categorical", "discretized_logistic"
        ),
    )
    leaf_min_scale: float = flag(
        0.02, "least deviation of a normal leaf; images have values in [0, 1]", above(0)
    )
    leaf_max_scale: float = flag(1.0, "greatest deviation of a normal leaf", above(0))
    leaf_noise: str = flag(
        "deviation",
        "noise of a differentiable binomial sample: its standard deviation, or the "
        "variance in its place, the paper's error, for ablations",
        one_of("deviation", "variance"),
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
    )
    temperature_schedule: str = flag(
        "constant",
        "constant, annealed (falls exponentially to --temperature_floor) or learned",
        one_of("constant", "annealed", "learned"),
    )
    temperature_floor: float = flag(
        0.5, "least temperature of the annealed schedule", above(0)
    )
    temperature_decay_steps: int = flag(
        1000, "steps in which an annealed temperature falls by a factor e", at_least(1)
    )

    def data_options(self) -> data.Options:
        """The part of the flags that `experiments.data.load` takes."""
        return data.Options(
            source=self.data_source,
            cache_dir=self.cache_dir,
            image_size=self.image_size,
            image_mode=self.image_mode,
            image_resize=self.image_resize,
            train_fraction=self.train_fraction,
        )


class _CheckedParser(absl_flags.ArgumentParser):
    """Converts and checks the values of one flag, whose name is in its errors."""

    def __init__(self, name: str, kind: type, requirement: Requirement | None):
        self._name, self._kind, self._requirement = name, kind, requirement
        words = [_KINDS[kind]] + ([requirement.words] if requirement else [])
        self.syntactic_help = "; ".join(words)

    def parse(self, argument: Any) -> Any:
        """Converts a word of the command line, or checks a default.

        Args:
            argument: text, or a value of the flag's own type.

        Returns:
            The value.

        Raises:
            UserError: it is no such value; names flag, requirement and value.
        """
        try:
            value = self._kind(argument)
        except ValueError:
            raise UserError(
                f"--{self._name} must be {_KINDS[self._kind]}, got {argument!r}"
            ) from None
        if self._requirement is not None and not self._requirement.holds(value):
            raise UserError(f"--{self._name} {self._requirement.words}, got {value!r}")
        return value

    def flag_type(self) -> str:
        """The type's name, for absl's machine-readable help."""
        return self._kind.__name__


_KINDS = {int: "a whole number", float: "a number", str: "text"}
_HELP = ("help", "helpshort", "helpfull")


def define(
    program: str, groups: Sequence[type], defaults: Mapping[str, Any] | None = None
) -> absl_flags.FlagValues:
    """Defines the absl flags of a program, apart from those of the process.

    They are no part of ``absl.flags.FLAGS``, where two programs imported by one process
    (a test's) would define the shared flags twice.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        groups: dataclasses whose fields are made by `flag`; no name twice.
        defaults: the program's own defaults for flags of the groups, by name.

    Returns:
        The flags, not parsed yet.

    Raises:
        absl.flags.DuplicateFlagError: a name is in two groups.
        TypeError: a default for a flag that does not exist.
        UserError: a default breaks its flag's requirement.
    """
    defaults = dict(defaults or {})
    values = absl_flags.FlagValues()
    for field in (field for group in groups for field in dataclasses.fields(group)):
        absl_flags.DEFINE(
            _CheckedParser(
                field.name, field.metadata["kind"], field.metadata["requirement"]
            ),
            field.name,
            defaults.pop(field.name, field.default),
            field.metadata["help"],
            flag_values=values,
            serializer=absl_flags.ArgumentSerializer(),
            module_name=program,
        )
    if defaults:
        raise TypeError(f"defaults for flags that do not exist: {sorted(defaults)}")
    for name in _HELP:  # after ours: their module has no place in our help
        absl_flags.DEFINE_bool(name, False, "shows this help", values, "absl.app")
    return values


def parse(
    argv: Sequence[str],
    program: str,
    description: str,
    groups: Sequence[type],
    defaults: Mapping[str, Any] | None = None,
    also: absl_flags.FlagValues | None = None,
) -> list[Any]:
    """Reads the command line into one frozen dataclass a group.

    Args:
        argv: the program's name and the words after it; ``--flagfile=`` is expanded.
        program: the program's module, e.g. ``experiments.ll``.
        description: what it does, for ``--help``.
        groups: dataclasses whose fields are made by `flag`; no name twice.
        defaults: the program's own defaults for flags of the groups, by name.
        also: other flags that the words may name and that are set in place: absl's
            own (``--verbosity``).

    Returns:
        An instance of each group, in order.

    Raises:
        UserError: an unknown flag, or a value that breaks its requirement; one line
            that names the flag, the requirement and the value.
        SystemExit: 0, after ``--help`` has been answered on stdout.
    """
    values = define(program, groups, defaults)
    own_help = values.module_help(program)
    for others in () if also is None else also.flags_by_module_dict().values():
        for other in others:
            if other.name not in values:
                values[other.name] = other
    try:
        rest = values(argv)[1:]
    except (absl_flags.Error, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{line} (--help lists the flags)") from None
    if any(values[name].value for name in _HELP):
        summary.write(
            f"{description}\n\nUsage: python -m {program} [flags]\n{own_help}\n"
        )
        raise SystemExit(0)
    if rest:
        raise UserError(
            f"unrecognized arguments: {' '.join(rest)} (--help lists the flags)"
        )
    return [
        group(**{f.name: values[f.name].value for f in dataclasses.fields(group)})
        for group in groups
    ]


def free_flags(groups: Sequence[Any]) -> set[str]:
    """The flags that may differ when a run is continued.

    Args:
        groups: instances or classes made of `flag` fields.

    Returns:
        Their names.
    """
    return {f.name for g in groups for f in dataclasses.fields(g) if f.metadata["free"]}
