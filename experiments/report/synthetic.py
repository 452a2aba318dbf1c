"""The section of the studies of two-dimensional sets."""

from collections.abc import Mapping
from typing import Any

from experiments.console.metrics import as_number, each_seed
from experiments.measuring.collection import Collected, Study
from experiments.measuring.last_values import Value, pooled
from experiments.report.document import (
    Cell,
    Figure,
    Gallery,
    Section,
    Table,
    make_table,
)
from experiments.report.figures import image_figure
from experiments.report.pictures import open_panels
from experiments.report.sections import text
from experiments.report.values import duration


def section(collected: Collected) -> Section:
    """Table 5 of the paper: numbers and densities of the two-dimensional sets."""
    numbers = table(collected)
    figures = [_density(study) for study in collected.studies]
    densities = Gallery("Densities", tuple(figures), 1)
    blocks = () if numbers is None else (numbers, densities)
    paragraph = (
        "Table 5 of the paper. The gap is to training by likelihood; a mode is covered "
        "where the model puts at least a quarter of the data's share."
    )
    empty = () if blocks else ("No folder of experiments.synthetic is among the runs.",)
    return Section("Synthetic densities", (paragraph, *empty), blocks)


def _density(study: Study) -> Figure:
    caption = f"{study.name}: data beside the exact densities of the models"
    if study.figure is None:
        return Figure(f"{caption}: no picture")
    panels, problem = open_panels(study.figure)
    if not panels:
        return Figure(f"{caption}: {problem}")
    return image_figure(caption, panels[0].image)


def table(collected: Collected) -> Table | None:
    """Table 5 of the paper: a row a study, set and objective; None: no studies."""
    rows = []
    for study in collected.studies:
        references = {
            result["set"]: value.mean
            for result in study.results
            if result["objective"] == "ll" and (value := _value(result, "test_ll"))
        }
        for result in study.results:
            reference = None
            if result["objective"] != "ll":
                reference = references.get(result["set"])
            rows.append([study.name, *_cells(result, reference)])
    header = [
        *("study", "set", "objective", "held-out log-likelihood, nats"),
        *("gap to LL, nats", "energy distance", "modes covered", "wall time"),
    ]
    return make_table("Two-dimensional sets", header, rows, 3) if rows else None


def _cells(
    result: Mapping[str, Any], reference: float | None
) -> list[Cell | str | None]:
    """A row from a model's result and the log-likelihood of training by likelihood."""
    held_out, modes = _value(result, "test_ll"), _value(result, "modes")
    seconds = as_number(result.get("seconds"))
    gap = None
    if held_out is not None and reference is not None:
        gap = f"{reference - held_out.mean:.4f}"
    return [
        result["set"],
        result["objective"],
        text(held_out),
        gap,
        text(_value(result, "energy")),
        None if modes is None else f"{100 * modes.mean:.0f} %",
        None if seconds is None else duration(seconds),
    ]


def _value(result: Mapping[str, Any], name: str) -> Value | None:
    """A metric from a list over seeds, None if it is none."""
    seeds = each_seed({"x_seeds": result.get(name)}, "x")
    return None if seeds is None else pooled(seeds)
