"""The section of the studies of two-dimensional sets."""

from experiments.console.metrics import as_number, each_seed
from experiments.measuring.last_values import Value, pooled
from experiments.report.document import Figure, Gallery, Section, Table, make_table
from experiments.report.figures import image_figure
from experiments.report.pictures import open_panels
from experiments.report.runs import Collected, Study
from experiments.report.sections import text
from experiments.report.values import duration


def section(collected: Collected) -> Section:
    """Table 5 of the paper: numbers and densities of the two-dimensional sets."""
    numbers = table(collected)
    figures = [_density(study) for study in collected.studies]
    densities = Gallery("Densities", tuple(figures), 1)
    blocks = () if numbers is None else (numbers, densities)
    words = (
        "Table 5 of the paper. The gap is to training by likelihood; a mode is covered "
        "where the model puts at least a quarter of what the data put."
    )
    none = () if blocks else ("No folder of experiments.synthetic is among the runs.",)
    return Section("Synthetic densities", (words, *none), blocks)


def _density(study: Study) -> Figure:
    caption = f"{study.name}: data beside the exact densities of the models"
    if study.figure is None:
        return Figure(f"{caption}: no picture")
    found, problem = open_panels(study.figure)
    if not found:
        return Figure(f"{caption}: {problem}")
    return image_figure(caption, found[0].image)


def table(collected: Collected) -> Table | None:
    """Table 5 of the paper: a row a study, set and objective; None: no studies."""
    rows = []
    for study in collected.studies:
        reference = {
            r["set"]: value.mean
            for r in study.results
            if r["objective"] == "ll" and (value := _list(r.get("test_ll"))) is not None
        }
        for r in study.results:
            held_out, seconds = _list(r.get("test_ll")), as_number(r.get("seconds"))
            gap = None
            if (
                held_out is not None
                and r["objective"] != "ll"
                and r["set"] in reference
            ):
                gap = f"{reference[r['set']] - held_out.mean:.4f}"
            modes = _list(r.get("modes"))
            rows.append(
                [
                    *(study.name, r["set"], r["objective"]),
                    *(text(held_out), gap, text(_list(r.get("energy")))),
                    None if modes is None else f"{100 * modes.mean:.0f} %",
                    None if seconds is None else duration(seconds),
                ]
            )
    header = [
        *("study", "set", "objective", "held-out log-likelihood, nats"),
        *("gap to LL, nats", "energy distance", "modes covered", "wall time"),
    ]
    return make_table("Two-dimensional sets", header, rows, 3) if rows else None


def _list(values: object) -> Value | None:
    """A metric from a list over seeds, None if it is none."""
    each = each_seed({"x_seeds": values}, "x")
    return None if each is None else pooled(each)
