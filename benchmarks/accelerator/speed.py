"""How fast a circuit is, as a share of what the device can do."""

import functools
from typing import Any

import jax

from benchmarks import cell
from benchmarks.accelerator import peaks
from benchmarks.accelerator.job import Job, Measurement
from benchmarks.tasks import Cell
import dspc_jax as pc

TASKS = ("log_prob", "train", "em", "sample", "differentiable[simple]")
# A structure that the library gets is a row of `tasks.STRUCTURES`, named here.
STRUCTURES = ("quad_tree",)
UNITS = (256, 64, 512)  # the most telling first
_FIELDS = (
    *("params", "median_ms", "min_ms", "calls", "first_call_s"),
    *("xla_gflop", "xla_gb", "xla_temp_mib"),
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
            sum_layer="cp_t",
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
    work = least_work(task_cell)
    return {**fields, **work, **shares({**result, **work}, peak())}


def least_work(task_cell: Cell) -> dict[str, float]:
    """What a step cannot do without: ``least_gflop`` and ``least_gb``.

    A weight of a sum is multiplied and added once an example, in a gradient three
    times. A parameter is read once; Adam reads it, its gradient and two averages and
    writes three of them; EM reads and writes it and its running count, and the new
    count. Leaves that are looked up take no FLOP; activations need not leave the chip.
    Empty for tasks without such a count.
    """
    passes = {"log_prob": (1, 1), "train": (3, 7), "em": (3, 6)}.get(task_cell.task)
    if passes is None:
        return {}
    circuit = pc.build(task_cell.config())
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(shapes.sums))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return {
        "least_gflop": passes[0] * 2 * task_cell.batch * num_weights / 1e9,
        "least_gb": passes[1] * 4 * num_params / 1e9,
    }


def shares(result: dict[str, Any], peak: peaks.Peak) -> dict[str, float]:
    """Achieved rates over the device's.

    Args:
        result: ``median_ms``, and the work that is known.
        peak: of the device.

    Returns:
        ``flop_share`` and ``band_share`` by XLA's count of the compiled work, and
        ``limit_share``: the time that the least work would take over that of the call.
    """
    seconds = result["median_ms"] / 1e3

    def share(work: str, most: float) -> float | None:
        return result[work] / most / seconds if work in result else None

    least = [share("least_gflop", peak.gflops), share("least_gb", peak.gbs)]
    values = {
        "flop_share": share("xla_gflop", peak.gflops),
        "band_share": share("xla_gb", peak.gbs),
        "limit_share": max((each for each in least if each is not None), default=None),
    }
    return {name: value for name, value in values.items() if value is not None}
