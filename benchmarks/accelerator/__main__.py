"""Measures what a GPU or TPU can do with circuits, within a few minutes.

    python -m benchmarks.accelerator --minutes=9 --out=FOLDER
    python -m benchmarks.accelerator --out=FOLDER --stages=device,speed --tiny

FOLDER gets results.jsonl and results.md, whole after every measurement, sample grids
and a log of each stage; an old FOLDER is continued. A stage that fails, hangs or does
not fit is a line of the results: the exit status is 0.
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.accelerator import frame
from benchmarks.accelerator.job import Job
from benchmarks.accelerator.record import Record
from benchmarks.accelerator.stages import STAGES

_PLATFORM_SECONDS = 60.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    stages = "\n".join(
        f"  {name:9}{stage.seconds:4.0f} s  {stage.help}"
        for name, stage in STAGES.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        epilog=f"stages, in this order, and the most time that each takes:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="for all stages")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--stages", default=",".join(STAGES), help="some, with commas")
    parser.add_argument(
        "--data_dir", type=pathlib.Path, help="folder of mnist and cifar10's files"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="sizes for a CPU; chosen there in any case"
    )
    options = parser.parse_args(arguments)
    options.stages = options.stages.split(",")
    for name in options.stages:
        if name not in STAGES:
            parser.error(f"--stages must be among {', '.join(STAGES)}, got {name!r}")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    return options


def platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``, as another process sees it; ``none`` without."""
    code = "import jax; print(jax.default_backend())"
    try:
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_PLATFORM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "none"
    lines = process.stdout.split()
    return lines[-1] if process.returncode == 0 and lines else "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages; 0 whatever they did."""
    options = parse(arguments)
    end = time.monotonic() + 60 * options.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    record = Record(options.out)
    tiny = options.tiny or platform() == "cpu"
    with tempfile.TemporaryDirectory(prefix="accelerator-") as work:
        for name in options.stages:
            job = Job(
                name,
                end - time.monotonic(),
                str(options.out.absolute()),
                work,
                str(options.data_dir.absolute()) if options.data_dir else None,
                tiny,
            )
            before = len(record.results)
            frame.run_stage(STAGES[name], job, record)
            for result in record.results[before:]:
                print(_line(result), flush=True)
    return 0


def _line(result: dict[str, Any]) -> str:
    """A result for people who wait."""
    rest = {k: v for k, v in result.items() if k not in ("stage", "name")}
    return f"{result['stage']}: {result['name']}: {json.dumps(rest)}"


if __name__ == "__main__":
    sys.exit(main())
