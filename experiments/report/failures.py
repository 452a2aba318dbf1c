"""Table 6 of the paper: which runs failed, and by which sign."""

from collections.abc import Sequence
import math

from experiments.console.metrics import as_number, each_seed
from experiments.measuring.collection import Collected
from experiments.measuring.last_values import of_run
from experiments.measuring.runs import Run
from experiments.report.document import Cell, Section, make_table
from experiments.report.values import plain

LEAST_SPREAD = 0.1  # variance of samples over that of the data; less is a collapse
MOST_ACCURACY = 0.99  # of a discriminator; more hardly gives a gradient
_LAST = 0.25  # share of the logged lines that a discriminator's accuracy is taken over


def failure_modes(collected: Collected) -> Section:
    """Signs of the known ways to fail in each run's metrics."""
    rows = [
        [
            Cell(run.name, note=run.program),
            *(_spread(run), _discriminator(run), _latents(run), _finite(run)),
        ]
        for run in collected.runs
    ]
    num_failed = sum(any(_is_bad(cell) for cell in row) for row in rows)
    header = ["run", "samples", "discriminator", "latents", "finite"]
    return Section(
        "Failure modes",
        (
            "Table 6 of the paper. Samples: collapsed where their variance is below "
            f"{LEAST_SPREAD} of that of the data for any seed; in parentheses the "
            "least mean of the run, which may be that of its start. Discriminator, "
            f"over the last {_LAST:.0%} of the logged lines: it has won where it is "
            f"right about more than {MOST_ACCURACY:.0%} of data and of samples, and is "
            "left behind where it is right about less than half of both. Latents: "
            "unused where the image moves none of them. Finite: no metric of the last "
            "line is nan or infinite. A dash: the run did not measure it.",
            f"{num_failed} of {len(rows)} runs show one of these signs.",
        ),
        (make_table("Signs", header, rows, len(header)),) if rows else (),
    )


def _is_bad(cell: Cell | str | None) -> bool:
    return isinstance(cell, Cell) and cell.tone == "bad"


def _spread(run: Run) -> Cell | None:
    measurement = of_run(run, "sample_spread")
    if measurement is None:
        return None
    values, note = measurement
    least = min(values)  # nan: the column of finite values says it
    text = f"spread {_each(values)}{_in_parentheses(note)}"
    name = "valid/sample_spread"
    means = [(v, n["step"]) for n in run.lines if (v := as_number(n.get(name)))]
    if means and (least_mean := min(means))[0] < least:
        text += f" (least {plain(least_mean[0])} at step {least_mean[1]:,})"
    return Cell(f"collapsed: {text}", "bad") if least < LEAST_SPREAD else Cell(text)


def _latents(run: Run) -> Cell | None:
    measurement = of_run(run, "active_latents")
    if measurement is None:
        return None
    values, note = measurement
    text = f"{_each(values)} active{_in_parentheses(note)}"
    return Cell(f"unused: {text}", "bad") if min(values) == 0 else Cell(text)


def _discriminator(run: Run) -> Cell | None:
    sides = []
    for side in ("real", "fake"):
        name = f"train/discriminator_{side}_accuracy"
        lines = [v for line in run.lines if (v := each_seed(line, name)) is not None]
        if not lines:
            return None
        tail = lines[-max(1, math.ceil(_LAST * len(lines))) :]
        num = min(map(len, tail))
        sides.append([sum(v[s] for v in tail) / len(tail) for s in range(num)])
    text = f"right about data {_each(sides[0])}, samples {_each(sides[1])}"
    for real, fake in zip(*sides, strict=False):
        if min(real, fake) > MOST_ACCURACY:
            return Cell(f"has won: {text}", "bad")
        if max(real, fake) < 0.5:
            return Cell(f"left behind: {text}", "bad")
    return Cell(text)


def _finite(run: Run) -> Cell | None:
    if run.state == "failed":
        return Cell(f"stopped: {run.failure}", "bad")
    if not run.lines:
        return None
    line = run.lines[-1]
    names = [
        name
        for name, value in line.items()
        if (number := as_number(value)) is not None and not math.isfinite(number)
    ]
    if names:
        return Cell(f"{', '.join(names)} at step {line['step']:,}", "bad")
    return Cell("yes")


def _each(values: Sequence[float]) -> str:
    """Every seed's value."""
    return " / ".join(map(plain, values))


def _in_parentheses(note: str) -> str:
    return f" ({note})" if note else ""
