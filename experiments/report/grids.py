"""Sections of runs that differ in two flags: temperatures, step by batch sizes."""

from collections.abc import Callable, Sequence
import itertools
import json
from typing import Any, NamedTuple

from experiments.measuring import last_values
from experiments.measuring.collection import Collected
from experiments.measuring.last_values import Value
from experiments.measuring.runs import Setting
from experiments.report.document import Figure, Gallery, Section, Table, make_table
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
    def example(self) -> Setting:
        """Any of the settings."""
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
    groups: dict[Any, list[Setting]] = {}
    for setting in settings:
        if all(name in setting.first.flags for name in flags):
            groups.setdefault(setting.first.key(*flags), []).append(setting)
    result = []
    for group in groups.values():
        cells = {(row(s), column(s)): s for s in group}
        if len(cells) > 1:
            rows, columns = (
                sorted({pair[i] for pair in cells}, key=_order) for i in (0, 1)
            )
            result.append(Grid(rows, columns, cells))
    return result


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, str(value)


def _flag(name: str) -> Callable[[Setting], Any]:
    """A property of settings: a flag's value, in a form that can be a key."""

    def value_of(setting: Setting) -> Any:
        value = setting.first.flags[name]
        return value if isinstance(value, int | float | str) else json.dumps(value)

    return value_of


def _schedule(setting: Setting) -> str:
    """A property of settings: the schedule with the flags that shape it."""
    flags = setting.first.flags
    if flags["temperature_schedule"] != "annealed":
        return str(flags["temperature_schedule"])
    return (
        f"annealed to {flags.get('temperature_floor')} "
        f"in {flags.get('temperature_decay_steps')} steps"
    )


def temperature(collected: Collected, picture: PictureOf) -> Section:
    """Table 4 of the paper."""
    return _section(
        "Temperature",
        "Table 4 of the paper: runs that differ in --temperature and "
        "--temperature_schedule only.",
        grids(
            collected.settings,
            _flag("temperature"),
            _schedule,
            ("temperature", "temperature_schedule"),
        ),
        ("temperature", "schedule"),
        picture,
    )


def rates_by_batches(collected: Collected, picture: PictureOf) -> Section:
    """Tables 7 to 10 of the paper."""
    return _section(
        "Learning rate by batch size",
        "Tables 7 to 10 of the paper: runs that differ in --learning_rate and "
        "--batch_size only. A column is a batch size.",
        grids(
            collected.settings,
            _flag("learning_rate"),
            _flag("batch_size"),
            ("learning_rate", "batch_size"),
        ),
        ("learning rate", "batch size"),
        picture,
    )


def _section(
    title: str,
    paragraph: str,
    all_grids: list[Grid],
    titles: tuple[str, str],
    picture: PictureOf,
) -> Section:
    """Tables and a gallery for each grid; ``titles`` are those of row and column."""
    blocks: list[Table | Gallery] = []
    for grid in all_grids:
        run = grid.example.first
        name = f"{run.program} on {run.dataset}"
        if len(all_grids) > 1:
            name += f" (with {run.name})"
        blocks += _tables(grid, name, titles[0])
        blocks.append(_gallery(grid, name, titles, picture))
    empty = () if all_grids else ("There are no such runs.",)
    return Section(title, (paragraph, *empty), tuple(blocks))


def _tables(grid: Grid, name: str, row_title: str) -> list[Table]:
    """A table for each metric that any of the settings has."""
    measures: list[tuple[str, Callable[[Setting, str], Value | None]]] = [
        *((metric, last_values.of_setting) for metric in _METRICS),
        *((metric, last_values.distance) for metric in last_values.DISTANCES),
    ]
    return [
        _table(grid, name, row_title, metric, measure)
        for metric, measure in measures
        if any(measure(s, metric) is not None for s in grid.cells.values())
    ]


def _gallery(
    grid: Grid, name: str, titles: tuple[str, str], picture: PictureOf
) -> Gallery:
    """The samples of every setting, in the shape of the grid."""
    figures = []
    for row, column in itertools.product(grid.rows, grid.columns):
        caption = f"{titles[0]} {row}, {titles[1]} {column}"
        setting = grid.cells.get((row, column))
        figures.append(
            Figure(f"{caption}: not run")
            if setting is None
            else picture(setting, caption)
        )
    return Gallery(f"{name}: samples", tuple(figures), len(grid.columns))


def _table(
    grid: Grid, name: str, row_title: str, metric: str, measure: Callable
) -> Table:
    """One metric in the shape of the grid."""
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
