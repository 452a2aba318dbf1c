"""Runs programs in processes of their own, as a user does."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parent.parent.parent
GAUSSIAN = str(Path(__file__).parent / "gaussian_program.py")


def start(
    *words: str, devices: int = 1, program: str = GAUSSIAN
) -> subprocess.Popen[str]:
    """Starts a program: a script, ``-c``, or a module where it is neither."""
    target = [program] if program == "-c" or "/" in program else ["-m", program]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + f" --xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, *target, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def run(*words: str, **how: Any) -> tuple[int, str, str]:
    """Runs a program to its end: exit code, stdout, stderr without `progress`."""
    process = start(*words, **how)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, without_progress(err)


def progress(err: str) -> list[str]:
    """The lines of `Display` in what a program wrote to stderr."""
    return [line for line in err.splitlines() if _PROGRESS.fullmatch(line)]


def without_progress(err: str) -> str:
    """All the other lines."""
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if not _PROGRESS.fullmatch(line.rstrip("\n")))


_PROGRESS = re.compile(r"[a-z_]+: step \d+ of \d+(, .+)?")


def lines(workdir: Path) -> list[dict[str, Any]]:
    """The objects of ``metrics.jsonl``."""
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def steps_saved(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints."""
    names = (path.name for path in (workdir / "checkpoints").iterdir())
    return sorted(int(name) for name in names if name.isdigit())


def checkpoint(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name, read without our code."""
    folder = (workdir / "checkpoints" / str(step) / "default").absolute()
    with ocp.StandardCheckpointer() as reader:
        return {k: np.asarray(v) for k, v in reader.restore(folder).items()}


def assert_same_bits(one: Path, other: Path, step: int) -> None:
    """Both runs have the same checkpoint of a step, bit for bit."""
    left, right = checkpoint(one, step), checkpoint(other, step)
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.tobytes() == right[name].tobytes(), name
