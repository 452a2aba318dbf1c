"""Pictures of a report: panels cut out of sample grids, and curves."""

from collections.abc import Mapping, Sequence
import hashlib
import html
import io
import itertools
import json
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.engine.metric_writer import HEADER
from experiments.report.document import Figure
from experiments.report.values import as_number

# Readable on white and on black.
_COLORS = ("#3b7dd8", "#e07b39", "#2e9e6b", "#c9507c", "#8a63d2", "#b08a1e", "#2aa3b5")
_INK = "#010203"  # stands for the text's color, whatever the reader's theme
_MOST_PIXELS = 100_000_000  # of a picture; a larger one is not opened


class Panel(NamedTuple):
    """A grid of images under one title.

    Attributes:
        title: e.g. ``sampled``; empty if the file does not say what it shows.
        image: without the title.
    """

    title: str
    image: Image.Image


def panels(path: Path) -> list[Panel]:
    """Cuts a picture of `metric_writer.MetricWriter.write_images` into its grids.

    Args:
        path: a PNG.

    Returns:
        The grids with their titles; the whole picture without a title if it does not
        say what is where.

    Raises:
        ValueError: it is no picture.
    """
    try:
        with Image.open(path, formats=["png"]) as picture:
            if math.prod(picture.size) > _MOST_PIXELS:
                raise ValueError(f"{path.name} has {picture.size} pixels")
            picture.load()
            text = getattr(picture, "text", {}).get("panels", "null")
            image = picture.convert("RGB")
    except ValueError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ValueError(f"{path.name} is no picture: {error}") from None
    places = _places(text, image.width)
    if places is None:
        return [Panel("", image)]
    return [
        Panel(title, image.crop((left, HEADER, right, image.height)))
        for title, left, right in places
    ]


def _places(text: str, width: int) -> list[tuple[str, int, int]] | None:
    """Title, left and right of each panel; None where it makes no sense."""
    try:
        pairs = [(str(title), int(w)) for title, w in json.loads(text)]
    except (ValueError, TypeError):
        return None
    ends = list(itertools.accumulate(w for _, w in pairs))
    if not pairs or min(w for _, w in pairs) < 1 or ends[-1] != width:
        return None
    return [(title, end - w, end) for (title, w), end in zip(pairs, ends, strict=True)]


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
        (line["step"], value, as_number(line.get(f"{name}_std")))
        for line in lines
        if (value := as_number(line.get(name))) is not None
    ]
    if not any(math.isfinite(value) for _, value, _ in points):
        return None
    steps, mean, std = zip(*points, strict=True)
    bands = [math.nan if s is None else s for s in std]
    arrays = (np.array(a, np.float64) for a in (steps, mean, bands))
    return Curve(label, number, *(np.where(np.isfinite(a), a, np.nan) for a in arrays))
