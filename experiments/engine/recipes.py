"""Recipes: the defaults of a program's flags on a data set that has one."""

import dataclasses
from pathlib import Path

from absl import flags as absl_flags

from experiments.engine.flag_fields import flag
from experiments.engine.requirements import one_of


@dataclasses.dataclass(frozen=True)
class RecipeSettings:
    """Whether the data set chooses the defaults of the other flags."""

    recipe: str = flag(
        "auto",
        "auto: where the data set has a recipe (digits, mnist: experiments/recipes), "
        "its flags are the defaults of this program; none: the defaults below",
        one_of("auto", "none"),
        free=True,
    )


def set_defaults(values: absl_flags.FlagValues, folder: Path) -> None:
    """Makes the flags of the data set's recipe the defaults, if it has one.

    Args:
        values: flags that have been parsed; those of the command line stay.
        folder: of the recipes, ``DATASET.flags``.
    """
    path = folder / f"{values['dataset'].value}.flags"
    if values["recipe"].value == "none" or not path.is_file():
        return
    flags = read(path)
    if values["start_from"].present:  # which is a start
        del flags["start"]
    for name, value in flags.items():
        if not values[name].present:
            values.set_default(name, values[name].parser.parse(value))


def read(path: Path) -> dict[str, str]:
    """The flags of a file with a line ``--name=value`` each, and comments."""
    lines = path.read_text("utf-8").splitlines()
    return dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
