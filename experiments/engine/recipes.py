"""Recipes: the defaults of a program's flags on a data set that has one."""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from experiments.engine.flag_fields import flag
from experiments.engine.requirements import one_of


@dataclasses.dataclass(frozen=True)
class RecipeSettings:
    """Whether the data set chooses the defaults of the other flags."""

    recipe: str = flag(
        "auto",
        "auto: where the data set has a recipe (experiments/recipes; digits, for ll "
        "also mnist, cifar10, celeba), its flags are the defaults of this program; "
        "none: the defaults below",
        one_of("auto", "none"),
        free=True,
    )


LIKELIHOOD = Path(__file__).parents[1] / "recipes"
"""The recipes of circuits that the likelihood trains, ``DATASET.flags``."""
ON_SAMPLES = LIKELIHOOD / "samples"
"""What changes where a loss on samples follows; likewise."""


def of_data_set(
    values: Mapping[str, Any], *, folders: Sequence[Path]
) -> dict[str, str]:
    """The flags of the data set's recipe; none where there is none.

    Args:
        values: of all flags, by name.
        folders: of recipes; the last word is that of the last one. A data set has a
            recipe if all of them have one.
    """
    paths = [folder / f"{values['dataset']}.flags" for folder in folders]
    if values["recipe"] == "none" or not all(path.is_file() for path in paths):
        return {}
    flags = {name: value for path in paths for name, value in read(path).items()}
    if values["start_from"] is not None:  # which is a start
        del flags["start"]
    return flags


def read(path: Path) -> dict[str, str]:
    """The flags of a file with a line ``--name=value`` each, and comments."""
    lines = path.read_text("utf-8").splitlines()
    return dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
