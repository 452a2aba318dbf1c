"""The end of a run on the terminal: means and deviations, one screen."""

from collections.abc import Mapping
import os
from pathlib import Path
import signal
import sys
from typing import Any

from experiments.console.metrics import deviation, names_of


def summary(result: Mapping[str, Any], workdir: Path) -> str:
    """The content of ``result.json`` as a table of one screen, with a last newline."""
    metrics, num_seeds = result["metrics"], len(result["seeds"])
    names = names_of(metrics)
    rate = result["steps_per_second"]
    lines = [
        f"{result['program']} on {result['dataset']}: {result['step']} steps, "
        f"{num_seeds} seed{'s' * (num_seeds > 1)}"
        + ("" if rate is None else f", {rate:.1f} steps/s"),
        f"  on {result['device']}",
    ]
    if "best_step" in result:
        steps = ", ".join(map(str, result["best_step"]))
        lines.append(f"  the states with the best validation: after {steps} steps")
    lines.append("")
    width = max([len(name) for name in names], default=0)
    for name in names:
        std = deviation(metrics, name)
        lines.append(
            f"  {name:<{width}}  {_number(metrics[name]):>12}"
            + ("" if std is None else f"  +- {_number(std)}")
        )
    lines += ["", f"  everything is in {workdir}", ""]
    return "\n".join(lines)


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Metrics as a table, with a last newline.

    Args:
        columns: title to what `metrics.over_seeds` makes.

    Returns:
        A line a metric, a column a title; ``mean +- deviation`` where there are several
        seeds.
    """
    names = names_of(name for metrics in columns.values() for name in metrics)
    rows = [["", *columns]]
    rows += [[name, *(_cell(m, name) for m in columns.values())] for name in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    """A metric as text, empty where it is missing."""
    if name not in metrics:
        return ""
    std = deviation(metrics, name)
    return _number(metrics[name]) + ("" if std is None else f" +- {_number(std)}")


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
