"""A report as data: sections of paragraphs, tables and pictures, rendered elsewhere."""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import NamedTuple

MISSING = "\N{EN DASH}"  # stands in every cell that has no value


class Cell(NamedTuple):
    """Text of a table, never markup.

    Attributes:
        text: without markup.
        tone: how it is set: ``""``, ``missing``, ``good``, ``bad``, ``code``.
        note: a restriction, e.g. the split; in parentheses, smaller.
    """

    text: str
    tone: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under a header.

    Attributes:
        title: above the table.
        header: one title a column.
        rows: as long as the header, each.
        num_labels: the leading columns that name a row; the others hold values.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_labels: int = 1

    def __post_init__(self):
        """Raises ValueError where a row is not as long as the header."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"a row of table {self.title!r} must have {len(self.header)} "
                    f"cells, got {len(row)}"
                )


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with its caption; without data a box that says that it is missing.

    Attributes:
        caption: below the picture, and read aloud to those who cannot see it.
        data: a PNG file, or an SVG element as UTF-8; None: missing.
        kind: ``png`` or ``svg``.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    caption: str
    data: bytes | None = None
    kind: str = "png"
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        title: above the pictures.
        figures: in reading order.
        num_columns: None: as many as fit.
    """

    title: str
    figures: tuple[Figure, ...]
    num_columns: int | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        paragraphs: plain text below the heading.
        blocks: tables and galleries in order.
    """

    title: str
    paragraphs: tuple[str, ...]
    blocks: tuple[Table | Gallery, ...] = ()


@dataclasses.dataclass(frozen=True)
class Document:
    """The whole report.

    Attributes:
        title: its heading.
        subtitle: one line below.
        sections: in order.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def make_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Cell | str | None]],
    num_labels: int = 1,
) -> Table:
    """A table from plain values.

    Args:
        title: above the table.
        header: one title a column.
        rows: text, cells, or None where there is no value.
        num_labels: the leading columns that name a row.

    Returns:
        The table.
    """
    return Table(
        title, tuple(header), tuple(tuple(map(_cell, row)) for row in rows), num_labels
    )


def _cell(value: Cell | str | None) -> Cell:
    if value is None or value == "":
        return Cell(MISSING, "missing")
    return value if isinstance(value, Cell) else Cell(value)
