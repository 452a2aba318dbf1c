"""Table 6 of the paper: which runs failed, and by which sign."""

from collections.abc import Sequence
import math

from experiments.console.metrics import as_number, each_seed
from experiments.measuring.last_values import of_run
from experiments.measuring.runs import Run
from experiments.report.document import Cell, Section, make_table
from experiments.report.runs import Collected
from experiments.report.values import plain

LEAST_SPREAD = 0.1  # variance of samples over that of the data; less is a collapse
MOST_ACCURACY = 0.99  # of a discriminator; more hardly gives a gradient
_LAST = 0.25  # share of the logged lines that a discriminator's accuracy is taken over


def failure_modes(collected: Collected) -> Section:
    """What each run's metrics say of the known ways to fail."""
    rows = [
        [
            Cell(run.name, note=run.program),
            _spread(run),
            _discriminator(run),
            _latents(run),
        ]
        + [_finite(run)]
        for run in collected.runs
    ]
    bad = [row for row in rows if any(_is_bad(cell) for cell in row)]
    header = ["run", "samples", "discriminator", "latents", "finite"]
    return Section(
        "Failure modes",
        (
            "Table 6 of the paper. Samples: collapsed where their variance is below "
            f"{LEAST_SPREAD} of that of the data for any seed; in parentheses the "
            "least mean of the run, which may be that of its start. Discriminator, "
            f"over the last {_LAST:.0%} of the logged lines: it has won where it is "
            f"right about more than {MOST_ACCURACY:.0%} of data and of samples, and is "
            "left behind where about less than half of both. Latents: unused where the "
            "image moves none of them. Finite: no metric of the last line is nan or "
            "infinite. A dash: the run did not measure it.",
            f"{len(bad)} of {len(rows)} runs show one of these signs.",
        ),
        (make_table("Signs", header, rows, len(header)),) if rows else (),
    )


def _is_bad(cell: Cell | str | None) -> bool:
    return isinstance(cell, Cell) and cell.tone == "bad"


def _spread(run: Run) -> Cell | None:
    found = of_run(run, "sample_spread")
    if found is None:
        return None
    values, where = found
    low = min(values)  # nan: the column of finite values says it
    words = f"spread {_each(values)}{_at(where)}"
    name = "valid/sample_spread"
    means = [(v, n["step"]) for n in run.lines if (v := as_number(n.get(name)))]
    if means and (least := min(means))[0] < low:
        words += f" (least {plain(least[0])} at step {least[1]:,})"
    return Cell(f"collapsed: {words}", "bad") if low < LEAST_SPREAD else Cell(words)


def _latents(run: Run) -> Cell | None:
    found = of_run(run, "active_latents")
    if found is None:
        return None
    values, where = found
    words = f"{_each(values)} active{_at(where)}"
    return Cell(f"unused: {words}", "bad") if min(values) == 0 else Cell(words)


def _discriminator(run: Run) -> Cell | None:
    sides = []
    for side in ("real", "fake"):
        name = f"train/discriminator_{side}_accuracy"
        lines = [v for line in run.lines if (v := each_seed(line, name)) is not None]
        if not lines:
            return None
        last = lines[-max(1, math.ceil(_LAST * len(lines))) :]
        num = min(map(len, last))
        sides.append([sum(v[s] for v in last) / len(last) for s in range(num)])
    words = f"right about data {_each(sides[0])}, samples {_each(sides[1])}"
    for real, fake in zip(*sides, strict=False):
        if min(real, fake) > MOST_ACCURACY:
            return Cell(f"has won: {words}", "bad")
        if max(real, fake) < 0.5:
            return Cell(f"left behind: {words}", "bad")
    return Cell(words)


def _finite(run: Run) -> Cell | None:
    if run.state == "failed":
        return Cell(f"stopped: {run.failure}", "bad")
    if not run.lines:
        return None
    last = run.lines[-1]
    wrong = [
        name
        for name, value in last.items()
        if (number := as_number(value)) is not None and not math.isfinite(number)
    ]
    if wrong:
        return Cell(f"{', '.join(wrong)} at step {last['step']:,}", "bad")
    return Cell("yes")


def _each(values: Sequence[float]) -> str:
    """Every seed's value."""
    return " / ".join(map(plain, values))


def _at(where: str) -> str:
    return f" ({where})" if where else ""
