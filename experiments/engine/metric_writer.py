"""Writes the scalars, pictures and final result of a run, for people and plots."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

import tensorboardX

from experiments.console.metrics import finite_or_text
from experiments.engine import run_folder
from experiments.engine.files import write_atomically
from experiments.engine.pictures import write_picture


class MetricWriter:
    """Appends to the metrics and to TensorBoard's events; writes pictures and results.

    A run that continues from a checkpoint drops the lines after it, since those steps
    will come again.
    """

    def __init__(self, folder: Path, first_step: int):
        """Continues the files of ``folder`` after ``first_step``; 0 starts anew."""
        self._folder = folder
        (folder / run_folder.SAMPLES).mkdir(exist_ok=True)
        path = folder / run_folder.METRICS
        write_atomically(path, "".join(run_folder.lines_up_to(folder, first_step)))
        self._lines = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(
            logdir=str(folder / run_folder.TENSORBOARD),
            purge_step=first_step + 1 if first_step else None,
            write_to_disk=True,
        )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes the one line of ``step``; on disk when this returns.

        Args:
            step: greater than that of the last line.
            scalars: numbers by name; lists (one number a seed) go to the line only.
        """
        line = finite_or_text({"step": step, **scalars})
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        for name, value in scalars.items():
            if not isinstance(value, list):
                self._events.add_scalar(name, value, global_step=step)
        self._events.flush()

    def write_images(self, kind: str, step: int, columns: Mapping[str, Any]) -> None:
        """Writes a picture, and the same to TensorBoard.

        Args:
            kind: of the picture, in the file's name.
            step: in the file's name.
            columns: grids beside each other: title to images ``[n, H, W, C]`` uint8.
        """
        path = run_folder.sample_path(self._folder, kind, step)
        picture = write_picture(path, columns)
        self._events.add_image(kind, picture, global_step=step, dataformats="HWC")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes the final result, whole or not at all."""
        run_folder.write_object(self._folder / run_folder.RESULT, result)

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._events.close()
