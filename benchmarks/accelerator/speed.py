"""How fast a circuit is, as a share of what the device can do."""

import functools
from typing import Any

from benchmarks import cell
from benchmarks.accelerator import peaks
from benchmarks.accelerator.job import Job, Measurement
from benchmarks.tasks import Cell

TASKS = ("log_prob", "train", "em", "sample", "differentiable[simple]")
# A structure that the library gets is a row of `tasks.STRUCTURES`, named here.
STRUCTURES = ("quad_tree",)
UNITS = (256, 64, 512)  # the most telling first
_FIELDS = (
    *("params", "median_ms", "min_ms", "calls", "first_call_s"),
    *("xla_gflop", "xla_gb", "xla_temp_mib", "device_peak_mib"),
)


def measurements(job: Job) -> list[Measurement]:
    """A cell for every structure, leaf, number of units and task."""
    peak = functools.cache(peaks.of_device)
    side, batch, widths = (8, 8, (4,)) if job.tiny else (28, 512, UNITS)
    cells = [
        Cell(
            task,
            height=side,
            width=side,
            batch=batch,
            structure=structure,
            num_units=units,
            sum_layer="cp",
            leaf=leaf,
            seconds=0.0 if job.tiny else 0.7,
        )
        for leaf in ("categorical", "normal")
        for structure in STRUCTURES
        for units in widths
        for task in TASKS
    ]
    return [
        Measurement(
            f"{c.structure} {c.leaf} K={c.num_units} {c.task}",
            functools.partial(_measure, c, peak),
        )
        for c in cells
    ]


def _measure(task_cell: Cell, peak: Any) -> dict[str, Any]:
    result = cell.run(task_cell)
    fields = {name: result[name] for name in _FIELDS if result.get(name) is not None}
    return {**fields, **shares(result, peak())}


def shares(result: dict[str, Any], peak: peaks.Peak) -> dict[str, float]:
    """Achieved rates, by XLA's count of work, over the device's; what is known."""
    seconds = result["median_ms"] / 1e3
    rates = {
        "flop_share": ("xla_gflop", peak.gflops),
        "band_share": ("xla_gb", peak.gbs),
    }
    return {
        name: result[work] / seconds / most
        for name, (work, most) in rates.items()
        if work in result
    }
