"""A document as one HTML page that needs nothing else: no file, network or script."""

import base64
import html
import importlib.resources
import re

from experiments.report.document import (
    Cell,
    Document,
    Figure,
    Gallery,
    Section,
    Table,
)

# The page may load nothing; pictures and style are inside.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(document: Document) -> str:
    """Writes a document.

    Args:
        document: the report.

    Returns:
        The page.
    """
    style = importlib.resources.files("experiments.report").joinpath("page.css")
    links = "".join(
        f'<li><a href="#{_anchor(s)}">{_text(s.title)}</a></li>'
        for s in document.sections
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{_text(document.title)}</title>",
            f"<style>\n{style.read_text('utf-8')}</style>",
            "</head>",
            "<body>",
            f"<header><h1>{_text(document.title)}</h1>"
            f"<p>{_text(document.subtitle)}</p></header>",
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
            "<main>",
            *map(_section, document.sections),
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def _text(text: str) -> str:
    return html.escape(text)


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _section(section: Section) -> str:
    parts = [f'<section id="{_anchor(section)}">', f"<h2>{_text(section.title)}</h2>"]
    parts += [f"<p>{_text(p)}</p>" for p in section.paragraphs]
    parts += [
        _table(b) if isinstance(b, Table) else _gallery(b) for b in section.blocks
    ]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    """A table that scrolls inside of its own box where it is too wide."""
    head = "".join(
        f'<th scope="col"{_kind(i, table)}>{_text(title)}</th>'
        for i, title in enumerate(table.header)
    )
    rows = "\n".join(
        "<tr>" + "".join(_cell(c, i, table) for i, c in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    title = _text(table.title)
    return (
        f'<h3>{title}</h3>\n<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{title}">\n<table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _kind(column: int, table: Table, tone: str = "") -> str:
    classes = [tone, "label" if column < table.num_labels else "value"]
    return f' class="{" ".join(filter(None, classes))}"'


def _cell(cell: Cell, column: int, table: Table) -> str:
    tag = "th" if column == 0 and cell.tone != "missing" else "td"
    scope = ' scope="row"' if tag == "th" else ""
    text = _text(cell.text)
    if cell.tone == "code":  # lines break between words only
        text = " ".join(f"<span>{word}</span>" for word in text.split(" "))
    if cell.note:
        text += f" <small>({_text(cell.note)})</small>"
    return f"<{tag}{scope}{_kind(column, table, cell.tone)}>{text}</{tag}>"


def _gallery(gallery: Gallery) -> str:
    style = ""
    if gallery.num_columns is not None:
        # A grid of settings keeps its shape, and scrolls.
        widest = "; --widest: 60rem" if gallery.num_columns == 1 else ""
        style = f' style="--columns: {int(gallery.num_columns)}{widest}"'
    kind = "gallery" if gallery.num_columns is None else "gallery fixed"
    figures = "\n".join(map(_figure, gallery.figures))
    return (
        f"<h3>{_text(gallery.title)}</h3>\n"
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{_text(gallery.title)}">'
        f'<div class="{kind}"{style}>\n{figures}\n</div></div>'
    )


def _figure(figure: Figure) -> str:
    caption = _text(figure.caption)
    wide = (
        " wide" if figure.width > 1.6 * figure.height and figure.kind == "png" else ""
    )
    if figure.data is None:
        inner = '<div class="missing" aria-hidden="true">\N{EN DASH}</div>'
    elif figure.kind == "svg":
        inner = figure.data.decode()
    else:
        data = base64.b64encode(figure.data).decode()
        inner = (
            f'<img src="data:image/png;base64,{data}" alt="{caption}" '
            f'width="{figure.width}" height="{figure.height}">'
        )
    return (
        f'<figure class="{figure.kind}{wide}">{inner}'
        f"<figcaption>{caption}</figcaption></figure>"
    )
