"""Images per second of a training step, beside what the machine could do.

    python -m benchmarks.training                                # EM, MNIST's size
    python -m benchmarks.training --structures=quad_tree --units=32,64 --tasks=em,train
    python -m benchmarks.training --report=results.jsonl         # tables of an old run

A step of EM, or of Adam (``train``), from a batch of random images to new parameters.
*Share* is that of the limit: the time that the step's products would take at the rate
of batched products of the same shape in the cache, three products for each weight and
example (one forward, two back). Every cell is a line of ``--output``, and a process of
its own. Run it on a machine with nothing else to do.
"""

import argparse
from collections.abc import Sequence
import json
import sys
from typing import Any

from benchmarks import markdown
from benchmarks.circuit import add_options_of_runs, measure_cells, parse_shape
from benchmarks.tasks import LEAVES, STRUCTURES, Cell

TASKS = ("em", "train")
COLUMNS = ("structure", "leaf", "shape", "K", "batch", "step")
_PRODUCTS = 3  # of a weight's size: one forward, two back


def images_per_second(result: dict[str, Any]) -> float:
    """Of the median step."""
    return 1e3 * result["batch"] / result["median_ms"]


def share_of_limit(result: dict[str, Any]) -> float:
    """The time of the step's products at the machine's rate, of the time it takes."""
    gflop = 2e-9 * _PRODUCTS * result["weights"] * result["batch"]
    return gflop / result["batched_gflops"] / (1e-3 * result["median_ms"])


def report(results: Sequence[dict[str, Any]]) -> str:
    """The table of a run, in Markdown."""
    rows = [[*COLUMNS, "images/s", "ms", "share", "peak MiB", "first call s"]]
    for r in results:
        step = {"em": "EM", "train": "Adam"}[r["task"]]
        row = [r["structure"], r["leaf"], r["shape"], r["num_units"], r["batch"], step]
        if "error" in r:
            row += [r["error"], *["-"] * 4]
        else:
            row += [
                markdown.number(images_per_second(r)),
                markdown.number(r["median_ms"]),
                f"{share_of_limit(r):.2f}",
                markdown.number(r["run_rss_mib"]),
                markdown.number(r["first_call_s"]),
            ]
        rows.append([str(entry) for entry in row])
    return markdown.table(rows)


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """All combinations of the options.

    Raises:
        ValueError: a name or a number is not one.
    """

    def words(option: str, allowed: Sequence[str]) -> list[str]:
        words = getattr(options, option).split(",")
        for word in words:
            if word not in allowed:
                raise ValueError(
                    f"--{option} must be among {', '.join(allowed)}, got {word!r}"
                )
        return words

    def numbers(option: str) -> list[int]:
        words = getattr(options, option).split(",")
        if not all(text.isdecimal() and int(text) for text in words):
            raise ValueError(
                f"--{option} must be positive numbers, got {','.join(words)!r}"
            )
        return [int(text) for text in words]

    return [
        Cell(
            task,
            *parse_shape(shape),
            batch=batch,
            structure=structure,
            num_units=num_units,
            sum_layer=options.sum_layer,
            leaf=leaf,
            seconds=options.seconds,
        )
        for shape in options.shapes.split(",")
        for structure in words("structures", tuple(STRUCTURES))
        for leaf in words("leaves", tuple(LEAVES))
        for num_units in numbers("units")
        for batch in numbers("batches")
        for task in words("tasks", TASKS)
        # The M-step of logistic leaves has no closed form.
        if task != "em" or leaf != "logistic"
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, default, text in (
        ("tasks", "em", ", ".join(TASKS)),
        ("structures", "quad_tree,quad_graph,hidden_chow_liu", ", ".join(STRUCTURES)),
        ("units", "32,64,128", "units of every region, K"),
        ("leaves", "categorical", ", ".join(LEAVES)),
        ("batches", "128,512", "images a step"),
        ("shapes", "1x28x28", "CxHxW"),
    ):
        help_text = f"{text}; several with commas (default: {default})"
        parser.add_argument(f"--{option}", default=default, help=help_text)
    parser.add_argument("--sum_layer", default="cp", choices=("cp", "cp_t"))
    add_options_of_runs(parser, "training")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if a cell failed."""
    options = parse(arguments)
    try:
        if options.report:
            lines = options.report.read_text().splitlines()
            results = [json.loads(line) for line in lines]
        else:
            cells = cells_of(options)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            results = measure_cells(cells, options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(report(results))
    return int(any("error" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
