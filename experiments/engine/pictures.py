"""Grids of images side by side in one PNG, written and read back.

The file's text chunk ``panels`` has titles and widths of the grids as JSON.
"""

from collections.abc import Mapping, Sequence
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from experiments.engine.files import temporary_of

_PANELS = "panels"
_HEADER = 20  # pixels above a grid, with its title
_MARGIN = 10  # left of a grid, right of it, and below
_GAP = 2  # pixels between images
_LEAST_HEIGHT = 48  # pixels of an image
_MOST_PIXELS = 100_000_000  # of a picture; a larger one is not opened


class Panel(NamedTuple):
    """A grid of images under one title.

    Attributes:
        title: e.g. ``sampled``; empty if the file does not say what it shows.
        image: without the title.
    """

    title: str
    image: Image.Image


def write_picture(path: Path, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Writes square grids of images beside each other, each under its title.

    Pixels are enlarged by a whole factor, so that an image is at least 48 pixels high,
    and never smoothed. The file is there whole or not at all.

    Args:
        path: of the file.
        columns: title to images ``[n, H, W, C]`` uint8, C = 1 or 3; n may differ.

    Returns:
        The picture, ``[rows, columns, 3]`` uint8.

    Raises:
        OSError: the file cannot be written.
    """
    grids = {title: _grid(title, images) for title, images in columns.items()}
    picture = _join(list(grids.values()))
    text = PngInfo()
    widths = [[title, grid.shape[1]] for title, grid in grids.items()]
    text.add_text(_PANELS, json.dumps(widths))
    temporary = temporary_of(path)
    Image.fromarray(picture).save(temporary, format="png", pnginfo=text)
    temporary.replace(path)
    return picture


def _join(grids: Sequence[np.ndarray]) -> np.ndarray:
    """Grids side by side, white below the shorter ones."""
    height = max(grid.shape[0] for grid in grids)
    padded = [
        np.pad(g, ((0, height - g.shape[0]), (0, 0), (0, 0)), constant_values=255)
        for g in grids
    ]
    return np.concatenate(padded, axis=1)


def _grid(title: str, images: np.ndarray) -> np.ndarray:
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    factor = -(-_LEAST_HEIGHT // height)
    height, width = height * factor, width * factor
    num_columns = math.ceil(math.sqrt(count))
    num_rows = -(-count // num_columns)
    step_y, step_x = height + _GAP, width + _GAP
    rows, columns = num_rows * step_y, num_columns * step_x
    canvas = np.full(
        (_HEADER + rows + _MARGIN, _MARGIN + columns + _MARGIN, 3), 255, np.uint8
    )
    enlarged = images.repeat(factor, axis=1).repeat(factor, axis=2)
    for i, image in enumerate(enlarged):
        y = _HEADER + (i // num_columns) * step_y
        x = _MARGIN + (i % num_columns) * step_x
        canvas[y : y + height, x : x + width] = image  # gray: 1 -> 3
    return _with_title(canvas, title)


def _with_title(canvas: np.ndarray, title: str) -> np.ndarray:
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((_MARGIN, 4), title, fill=(0, 0, 0))
    return np.asarray(picture)


def read_panels(path: Path) -> list[Panel]:
    """Cuts a picture of `write_picture` into its grids.

    Args:
        path: a PNG.

    Returns:
        The grids with their titles; the whole picture without a title if it does not
        say where they are.

    Raises:
        ValueError: it is no picture, or too large a one.
    """
    try:
        with Image.open(path, formats=["png"]) as picture:
            if math.prod(picture.size) > _MOST_PIXELS:
                raise ValueError(f"{path.name} has {picture.size} pixels")
            picture.load()
            text = getattr(picture, "text", {}).get(_PANELS, "null")
            image = picture.convert("RGB")
    except ValueError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ValueError(f"{path.name} is no picture: {error}") from None
    places = _places(text, image.width)
    if places is None:
        return [Panel("", image)]
    return [
        Panel(title, image.crop((left, _HEADER, right, image.height)))
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
