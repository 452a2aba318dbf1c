"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Sequence


def number(value: float | None) -> str:
    """Two or three leading digits, with thousands separated; empty for None."""
    if value is None:
        return ""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
