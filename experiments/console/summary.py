"""What a run tells its user at the end: means and deviations, one screen."""

from collections.abc import Mapping
import os
from pathlib import Path
import signal
import sys
from typing import Any

import numpy as np


def over_seeds(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Mean, deviation and single values over seeds.

    Args:
        metrics: name to ``[S]``.

    Returns:
        ``name``: the mean; with S > 1 also ``name_std``, the sample standard deviation,
        and ``name_seeds``, the values in the order of the seeds.
    """
    result: dict[str, Any] = {}
    for name, values in metrics.items():
        result[name] = float(np.mean(values))
        if len(values) > 1:
            result[f"{name}_std"] = float(np.std(values, ddof=1))
            result[f"{name}_seeds"] = [float(v) for v in values]
    return result


def summary(result: Mapping[str, Any], workdir: Path) -> str:
    """The content of ``result.json`` as a table of one screen, with a last newline."""
    metrics, num_seeds = result["metrics"], len(result["seeds"])
    names = [n for n in metrics if not n.endswith(("_std", "_seeds"))]
    rate = result["steps_per_second"]
    lines = [
        f"{result['program']} on {result['dataset']}: {result['step']} steps, "
        f"{num_seeds} seed{'s' * (num_seeds > 1)}"
        + ("" if rate is None else f", {rate:.1f} steps/s"),
        f"  on {result['device']}",
        "",
    ]
    width = max([len(n) for n in names], default=0)
    for name in names:
        deviation = metrics.get(f"{name}_std")
        lines.append(
            f"  {name:<{width}}  {_number(metrics[name]):>12}"
            + ("" if deviation is None else f"  +- {_number(deviation)}")
        )
    lines += ["", f"  everything is in {workdir}", ""]
    return "\n".join(lines)


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Metrics as a table, with a last newline.

    Args:
        columns: title to what `over_seeds` makes.

    Returns:
        A line a metric, a column a title; ``mean +- deviation`` where there are several
        seeds.
    """
    names = [
        name
        for name in dict.fromkeys(name for of in columns.values() for name in of)
        if not name.endswith(("_std", "_seeds"))
    ]
    cells = [["", *columns]]
    for name in names:
        line = [name]
        for metrics in columns.values():
            text = "" if name not in metrics else _number(metrics[name])
            if f"{name}_std" in metrics:
                text += f" +- {_number(metrics[f'{name}_std'])}"
            line.append(text)
        cells.append(line)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def write(text: str) -> None:
    """Writes to stdout at once.

    Args:
        text: lines.

    Raises:
        SystemExit: nobody reads on (``| head``), with the status of a process that
            this signal has stopped.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the interpreter fails again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
