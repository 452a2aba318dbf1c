"""Figures of a report: pictures as they are, and curves."""

from collections.abc import Mapping, Sequence
import hashlib
import html
import io
import math
import re
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.console.metrics import as_number, deviation
from experiments.report.document import Figure

# Readable on white and on black.
_COLORS = ("#3b7dd8", "#e07b39", "#2e9e6b", "#c9507c", "#8a63d2", "#b08a1e", "#2aa3b5")
_INK = "#010203"  # stands for the text's color, whatever the reader's theme


def image_figure(caption: str, image: Image.Image) -> Figure:
    """A picture as a figure."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return Figure(caption, buffer.getvalue(), "png", *image.size)


class Curve(NamedTuple):
    """A metric over the steps.

    Attributes:
        label: in the legend.
        number: of the run: one number, one color.
        steps: ``[n]``.
        mean: ``[n]``.
        std: ``[n]``, nan where there is one seed.
    """

    label: str
    number: int
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def curve_figure(caption: str, curves: Sequence[Curve]) -> Figure:
    """Curves over the training steps, with a band of one deviation over seeds.

    Args:
        caption: for the report.
        curves: at least one.

    Returns:
        An SVG whose text has the color of the text around it.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    rows = -(-len(curves) // 2)
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(3.3, 2.0 + 0.17 * rows), layout="constrained")
        axes = canvas.subplots()
        for curve in curves:
            color = _COLORS[curve.number % len(_COLORS)]
            line = ("-", "--", ":")[curve.number // len(_COLORS) % 3]
            short = len(curve.steps) == 1
            axes.plot(
                *(curve.steps, curve.mean, line),
                marker="o" if short else "",
                color=color,
                label=_plain_text(curve.label),
            )
            if not np.isnan(curve.std).all():
                low, high = curve.mean - curve.std, curve.mean + curve.std
                axes.fill_between(curve.steps, low, high, color=color, alpha=0.18, lw=0)
        axes.set_xlabel("step")
        axes.grid(axis="y", lw=0.4, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.legend(loc="outside lower left", ncols=2, frameon=False)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    width, height = (round(96 * inches) for inches in canvas.get_size_inches())
    return Figure(caption, _inline(buffer.getvalue(), caption), "svg", width, height)


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 7.5,
    "text.parse_math": False,  # a label is never markup
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "grid.color": _INK,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
}
_NO_METADATA = {name: None for name in ("Creator", "Date", "Format", "Type")}


def _plain_text(text: str) -> str:
    """At most 40 characters that XML allows; a leading underscore hides no curve."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = text if len(text) <= 40 else text[:39] + "\N{HORIZONTAL ELLIPSIS}"
    return f" {text}" if text.startswith("_") else text


def _inline(svg: str, caption: str) -> bytes:
    """The SVG element alone, with ids of its own and the ink of its surroundings."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    own = f"c{hashlib.sha256(svg.encode()).hexdigest()[:12]}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}", svg)
    svg = svg.replace(_INK, "currentColor")
    label = html.escape(caption)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).encode()


def curve(label: str, number: int, lines: Sequence[Mapping], name: str) -> Curve | None:
    """A metric of the lines of ``metrics.jsonl``; None where no line has it."""
    points = [
        (line["step"], value, as_number(deviation(line, name)))
        for line in lines
        if (value := as_number(line.get(name))) is not None
    ]
    if not any(math.isfinite(value) for _, value, _ in points):
        return None
    steps, mean, std = zip(*points, strict=True)
    bands = [math.nan if s is None else s for s in std]
    arrays = (np.array(a, np.float64) for a in (steps, mean, bands))
    return Curve(label, number, *(np.where(np.isfinite(a), a, np.nan) for a in arrays))
