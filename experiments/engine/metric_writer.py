"""What a run writes for people and plots: scalars, pictures, the final result."""

from collections.abc import Mapping, Sequence
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
import tensorboardX

from experiments.engine.workdir import write_atomically

HEADER = 20  # pixels above a grid, with its title


class MetricWriter:
    """Appends to ``metrics.jsonl`` and TensorBoard events; writes pictures and results.

    ``metrics.jsonl`` has one object a logged step, key ``"step"``. A run that continues
    from a checkpoint drops the lines after it, since those steps will come again.
    """

    def __init__(self, folder: Path, first_step: int):
        """Continues the files of ``folder`` after ``first_step``; 0 starts anew."""
        self._folder = folder
        (folder / "samples").mkdir(exist_ok=True)
        path = folder / "metrics.jsonl"
        write_atomically(path, "".join(_lines_up_to(path, first_step)))
        self._lines = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            logdir=str(folder / "tensorboard"),
            purge_step=first_step + 1 if first_step else None,
            write_to_disk=True,
        )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes the one line of ``step``; on disk when this returns.

        Args:
            step: greater than that of the last line.
            scalars: numbers by name; lists (one number a seed) go to the line only.
        """
        line = {"step": step} | {k: finite_or_text(v) for k, v in scalars.items()}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        for name, value in scalars.items():
            if not isinstance(value, list):
                self._events.add_scalar(name, value, global_step=step)
        self._events.flush()

    def write_images(self, name: str, step: int, columns: Mapping[str, Any]) -> None:
        """Writes ``samples/<name>_<step>.png``, and the same to TensorBoard.

        Args:
            name: of the picture.
            step: shown in the file's name.
            columns: grids beside each other: title to images ``[n, H, W, C]`` uint8.
        """
        path = self._folder / "samples" / f"{name}_{step:07d}.png"
        picture = write_picture(path, columns)
        self._events.add_image(name, picture, global_step=step, dataformats="HWC")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json``, whole or not at all."""
        tidy = {k: finite_or_text(v) for k, v in result.items()}
        write_atomically(
            self._folder / "result.json", json.dumps(tidy, indent=2) + "\n"
        )

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._events.close()


def finite_or_text(value: Any) -> Any:
    """JSON has no infinities: non-finite numbers become "inf", "-inf" and "nan"."""
    if isinstance(value, Mapping):
        return {k: finite_or_text(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite_or_text(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _lines_up_to(path: Path, step: int) -> list[str]:
    """The complete lines of steps up to ``step``; a line cut by a crash is dropped."""
    if not path.exists() or step == 0:
        return []
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step and line.endswith("\n"):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept


def write_picture(path: Path, columns: Mapping[str, Any]) -> np.ndarray:
    """Writes grids of images beside each other as a PNG, whole or not at all.

    The file's text chunk ``panels`` has titles and widths of the grids as JSON.

    Args:
        path: of the file.
        columns: title to images ``[n, H, W, C]`` uint8.

    Returns:
        The picture, ``[rows, columns, 3]`` uint8.
    """
    panels = {title: _panel(title, images) for title, images in columns.items()}
    picture = _join(list(panels.values()))
    temporary = path.with_name(f".{path.name}.tmp")
    text = PngInfo()
    widths = [[title, panel.shape[1]] for title, panel in panels.items()]
    text.add_text("panels", json.dumps(widths))
    Image.fromarray(picture).save(temporary, format="png", pnginfo=text)
    temporary.replace(path)
    return picture


def beside(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws square grids of images beside each other, each under its title.

    Args:
        columns: title to images ``[n, H, W, C]`` uint8, C = 1 or 3; n may differ.

    Returns:
        ``[rows, columns, 3]`` uint8. Pixels are enlarged by a whole factor, so that an
        image is at least 48 pixels high, and never smoothed.
    """
    return _join([_panel(title, images) for title, images in columns.items()])


def _join(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels side by side, white below the shorter ones."""
    height = max(panel.shape[0] for panel in panels)
    padded = [
        np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255)
        for p in panels
    ]
    return np.concatenate(padded, axis=1)


def _panel(title: str, images: np.ndarray) -> np.ndarray:
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    factor = -(-48 // height)
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    gap, cells = 2, math.ceil(math.sqrt(count))
    rows = -(-count // cells)
    step_y, step_x = height * factor + gap, width * factor + gap
    header, margin = HEADER, 10
    canvas = np.full(
        (header + rows * step_y + margin, margin + cells * step_x + margin, 3),
        255,
        np.uint8,
    )
    for i, image in enumerate(large):
        y, x = header + (i // cells) * step_y, margin + (i % cells) * step_x
        canvas[y : y + height * factor, x : x + width * factor] = image  # grey: 1 -> 3
    return _with_title(canvas, title, (margin, 4))


def _with_title(canvas: np.ndarray, title: str, place: tuple[int, int]) -> np.ndarray:
    from PIL import ImageDraw

    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text(place, title, fill=(0, 0, 0))
    return np.asarray(picture)
