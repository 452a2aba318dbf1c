"""A program that trains: flags, data set and system, joined once for all."""

from collections.abc import Callable, Collection, Mapping, Sequence
import functools
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from experiments import data
from experiments.engine import app, training
from experiments.engine.command_line import Use
from experiments.engine.flag_fields import Condition
from experiments.engine.recipes import RecipeSettings, of_data_set
from experiments.engine.system import System


class Program(NamedTuple):
    """The functions of a program's module.

    Attributes:
        parse: ``(argv, also=None) -> groups``, see `command_line.parse`.
        main: ``groups -> exit code``: trains.
        run: runs the program on the command line; does not return.
        groups: the classes of its flags, `flags.Settings` first.
        make_system: ``(*groups, dataset=...) -> System``, from instances of them.
        has_recipes: whether `RecipeSettings` are the last group.
        use: which of the flags it has, and when.
    """

    parse: app.Parse
    main: app.Main
    run: Callable[[], NoReturn]
    groups: tuple[type, ...]
    make_system: Callable[..., System]
    has_recipes: bool
    use: Use


def training_program(
    name: str,
    description: str,
    make_system: Callable[..., System],
    *groups: type,
    defaults: Mapping[str, Any] | None = None,
    recipes: Sequence[Path] = (),
    without: Collection[str] = (),
    only: Mapping[str, Condition] | None = None,
    example: str = "--dataset=digits",
) -> Program:
    """Joins the parts of a program.

    Args:
        name: the program's module, e.g. ``experiments.ll``.
        description: what it does, for ``--help``.
        make_system: ``(*groups, dataset=...) -> System``.
        *groups: dataclasses whose fields are made by `flags.flag`; `flags.Settings`
            first.
        defaults: the program's own defaults for flags of the groups, by name.
        recipes: folders of those of data sets, see `recipes.of_data_set`. With them
            the program has the group `RecipeSettings`, which its system does not need.
        without: flags of the groups that the program does not have, since they would
            do nothing.
        only: conditions on others, which do nothing without them: see
            `command_line.Use`.
        example: the words of one command after the program's name, for ``--help``.

    Returns:
        The program.
    """
    use = Use(without, only or {})
    num_groups, presets = len(groups), None
    if recipes:
        groups = (*groups, RecipeSettings)
        presets = functools.partial(of_data_set, folders=recipes)
    parse = app.parser(
        *(name, description, *groups),
        defaults=defaults,
        presets=presets,
        use=use,
        example=example,
    )

    def system_of(*values: Any, dataset: data.Dataset) -> System:
        return make_system(*values[:num_groups], dataset=dataset)

    def main(values: list[Any]) -> int:
        settings = values[0]
        dataset = data.load(
            settings.dataset, settings.data_dir, settings.data_options()
        )
        system = system_of(*values, dataset=dataset)
        return training.run(name, system, dataset, values, defaults)

    def run() -> NoReturn:
        app.run(main, parse)

    return Program(parse, main, run, groups, system_of, bool(recipes), use)
