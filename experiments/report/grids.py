"""Sections of runs that differ in two flags: temperatures, rates by batches."""

from collections.abc import Callable, Sequence
import json
from typing import Any, NamedTuple

from experiments.measuring import last_values
from experiments.measuring.runs import Setting
from experiments.report.document import Figure, Gallery, Section, Table, make_table
from experiments.report.runs import Collected
from experiments.report.sections import text
from experiments.report.values import title_of

_METRICS = ("bits_per_dim", "mmd2", "reconstruction_bce", "accuracy")
PictureOf = Callable[[Setting, str], Figure]
"""``(setting, caption) -> figure``: its samples."""


class Grid(NamedTuple):
    """Settings that differ in two properties only.

    Attributes:
        rows: values of the first property, sorted.
        columns: values of the second one, sorted.
        cells: the setting of each pair that was run.
    """

    rows: list[Any]
    columns: list[Any]
    cells: dict[tuple[Any, Any], Setting]

    @property
    def first(self) -> Setting:
        """Any of them."""
        return next(iter(self.cells.values()))


def grids(
    settings: Sequence[Setting],
    row: Callable[[Setting], Any],
    column: Callable[[Setting], Any],
    flags: Sequence[str],
) -> list[Grid]:
    """Settings that differ in nothing but ``flags``, by groups of at least two.

    Args:
        settings: all.
        row: the property of a setting that is the row.
        column: and the column; together they are all that ``flags`` say.
        flags: the flags in which they may differ.

    Returns:
        A grid a group.
    """
    found: dict[Any, list[Setting]] = {}
    for setting in settings:
        if all(name in setting.first.flags for name in flags):
            found.setdefault(setting.first.key(*flags), []).append(setting)
    result = []
    for group in found.values():
        cells = {(row(s), column(s)): s for s in group}
        if len(cells) > 1:
            rows, columns = (
                sorted({pair[i] for pair in cells}, key=_order) for i in (0, 1)
            )
            result.append(Grid(rows, columns, cells))
    return result


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, str(value)


def _flag(name: str) -> Callable[[Setting], Any]:
    """A flag's value, something that can be a key."""

    def value(setting: Setting) -> Any:
        found = setting.first.flags[name]
        return found if isinstance(found, int | float | str) else json.dumps(found)

    return value


def _schedule(setting: Setting) -> str:
    """The schedule with the flags that shape it."""
    flags = setting.first.flags
    if flags["temperature_schedule"] != "annealed":
        return str(flags["temperature_schedule"])
    return (
        f"annealed to {flags.get('temperature_floor')} "
        f"in {flags.get('temperature_decay_steps')} steps"
    )


def temperature(collected: Collected, picture: PictureOf) -> Section:
    """Table 4 of the paper."""
    found = grids(
        collected.settings,
        _flag("temperature"),
        _schedule,
        ("temperature", "temperature_schedule"),
    )
    words = (
        "Table 4 of the paper: runs that differ in --temperature and "
        "--temperature_schedule only."
    )
    return _section("Temperature", words, found, ("temperature", "schedule"), picture)


def rates_by_batches(collected: Collected, picture: PictureOf) -> Section:
    """Tables 7 to 10 of the paper."""
    found = grids(
        collected.settings,
        _flag("learning_rate"),
        _flag("batch_size"),
        ("learning_rate", "batch_size"),
    )
    words = (
        "Tables 7 to 10 of the paper: runs that differ in --learning_rate and "
        "--batch_size only. A column is a batch size."
    )
    return _section(
        "Learning rate by batch size",
        words,
        found,
        ("learning rate", "batch size"),
        picture,
    )


def _section(
    title: str,
    words: str,
    found: list[Grid],
    names: tuple[str, str],
    picture: PictureOf,
) -> Section:
    blocks: list[Table | Gallery] = []
    for grid in found:
        run = grid.first.first
        name = f"{run.program} on {run.dataset}"
        if len(found) > 1:
            name += f" (with {run.name})"
        shown = [n for n in _METRICS if _any(grid, last_values.of_setting, n)]
        further = [
            n for n in last_values.DISTANCES if _any(grid, last_values.distance, n)
        ]
        for metric in shown:
            blocks.append(_table(grid, name, names[0], metric, last_values.of_setting))
        for metric in further:
            blocks.append(_table(grid, name, names[0], metric, last_values.distance))
        pictures = tuple(
            picture(grid.cells[row, column], f"{names[0]} {row}, {names[1]} {column}")
            if (row, column) in grid.cells
            else Figure(f"{names[0]} {row}, {names[1]} {column}: not run")
            for row in grid.rows
            for column in grid.columns
        )
        blocks.append(Gallery(f"{name}: samples", pictures, len(grid.columns)))
    none = () if found else ("There are no such runs.",)
    return Section(title, (words, *none), tuple(blocks))


def _any(grid: Grid, measure: Callable, metric: str) -> bool:
    return any(measure(s, metric) is not None for s in grid.cells.values())


def _table(
    grid: Grid, name: str, row_title: str, metric: str, measure: Callable
) -> Table:
    rows = [
        [
            str(row),
            *(
                text(measure(grid.cells[row, column], metric))
                if (row, column) in grid.cells
                else None
                for column in grid.columns
            ),
        ]
        for row in grid.rows
    ]
    header = [row_title, *map(str, grid.columns)]
    return make_table(f"{name}: {title_of(metric)}", header, rows)
