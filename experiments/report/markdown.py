"""A document as Markdown, with its pictures as files."""

import html
import re

from experiments.report.document import Cell, Document, Figure, Gallery, Section, Table

_COLUMNS = 3  # of a gallery without a number of columns
_TONES = {"bad": "**"}


def render(document: Document, folder: str) -> tuple[str, dict[str, bytes]]:
    """Writes a document.

    Args:
        document: the report.
        folder: of the pictures, relative to the Markdown file.

    Returns:
        The text, and the pictures: name of the file in ``folder`` to content.
    """
    pictures: dict[str, bytes] = {}
    parts = [f"# {escape(document.title)}", escape(document.subtitle)]
    for section in document.sections:
        parts += _section(section, folder, pictures)
    return "\n\n".join(parts) + "\n", pictures


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    # Inside of a word an underscore is one.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^([#+-]|\d+[.)])(?=\s|$)", r"\\\1", text)


def _section(section: Section, folder: str, pictures: dict[str, bytes]) -> list[str]:
    parts = [f"## {escape(section.title)}", *map(escape, section.paragraphs)]
    for block in section.blocks:
        parts.append(f"### {escape(block.title)}")
        if isinstance(block, Table):
            parts.append(_table(block))
        else:
            parts.append(_gallery(block, folder, pictures))
    return parts


def _table(table: Table) -> str:
    rules = [
        "---" if i < table.num_labels else "---:" for i in range(len(table.header))
    ]
    lines = [map(escape, table.header), rules]
    lines += [map(_cell, row) for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    mark = _TONES.get(cell.tone, "")
    note = f" ({escape(cell.note)})" if cell.note else ""
    return f"{mark}{escape(cell.text)}{mark}{note}"


def _gallery(gallery: Gallery, folder: str, pictures: dict[str, bytes]) -> str:
    num = min(gallery.num_columns or _COLUMNS, len(gallery.figures))
    cells = [_figure(figure, folder, pictures) for figure in gallery.figures]
    cells += [""] * (-len(cells) % num)
    rows = [cells[i : i + num] for i in range(0, len(cells), num)]
    lines = [[""] * num, ["---"] * num, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(figure: Figure, folder: str, pictures: dict[str, bytes]) -> str:
    caption = escape(figure.caption)
    if figure.data is None:
        return caption
    slug = re.sub(r"[^a-z0-9]+", "-", figure.caption.lower()).strip("-")[:60]
    name = f"{len(pictures) + 1:03d}-{slug}.{figure.kind}"
    data = figure.data
    if figure.kind == "svg":  # around a file there is no text whose color it could take
        style = b'<svg style="background:#fff;color:#222" '
        data = data.replace(b"<svg ", style, 1)
    pictures[name] = data
    return f"![{caption}]({folder}/{name})<br>{caption}"
