"""Runs the library's programs for a given time, and reads what they wrote."""

from collections.abc import Mapping
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.accelerator.job import Job

Flags = Mapping[str, Any]
_SAVING = 25.0  # seconds that a stopped program may take to save


def run(
    job: Job, program: str, name: str, flags: Flags, seconds: float | None = None
) -> pathlib.Path:
    """Runs ``experiments.PROGRAM`` in the folder ``name`` of ``job.work``.

    Args:
        job: of the stage.
        program: its name.
        name: of its folder.
        flags: its flags.
        seconds: after so many it is asked to save and end; None: it ends by itself.

    Returns:
        The folder.

    Raises:
        RuntimeError: it failed; its messages are in the log of the stage.
    """
    folder = pathlib.Path(job.work) / name
    own = {"workdir": folder} if program != "evaluate" else {}
    texts = [f"--{flag}={value}" for flag, value in {**flags, **own}.items()]
    command = [sys.executable, "-m", f"experiments.{program}", *texts]
    print(" ".join(command), flush=True)
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait(_SAVING)
    finally:
        process.kill()
    if code not in (0, 128 + signal.SIGTERM):
        raise RuntimeError(
            f"experiments.{program} ({name}) must end with 0, got {code}"
        )
    return folder


def metrics(folder: pathlib.Path) -> dict[str, Any]:
    """The step and the newest value of each metric; of the test images if it ended."""
    newest: dict[str, Any] = {"step": 0}  # until the first line
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    for line in lines:
        newest |= json.loads(line)
    result = folder / "result.json"
    if result.exists():
        outcome = json.loads(result.read_text())
        newest |= outcome["metrics"] | {"steps_per_second": outcome["steps_per_second"]}
        newest["data"] = "complete" if outcome["data"]["complete"] else "subset"
    names = {
        "step": "steps",
        "steps_per_second": "steps_per_second",
        "valid/bits_per_dim": "valid_bits",
        "test/bits_per_dim": "test_bits",
        "valid/num_params": "params",
        "data": "data",
    }
    return {ours: newest[name] for name, ours in names.items() if name in newest}


def keep_picture(job: Job, folder: pathlib.Path, name: str) -> dict[str, str]:
    """Copies the newest sample grid to the results: its name there."""
    pictures = sorted(
        (folder / "samples").glob("*.png"), key=lambda path: path.stat().st_mtime
    )
    if not pictures:
        return {}
    shutil.copy(pictures[-1], pathlib.Path(job.out) / f"{name}.png")
    return {"picture": f"{name}.png"}


def mnist_flags(job: Job) -> dict[str, Any]:
    """MNIST where its files are, else the digits that come with scikit-learn."""
    images = job.file("mnist", "train-images-idx3-ubyte.gz", "train-images-idx3-ubyte")
    if images is None:
        return {"dataset": "digits"}
    return {"dataset": "mnist", "data_dir": job.data_dir, "data_source": "files"}


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self._start
