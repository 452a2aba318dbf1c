"""Times every query of a circuit at the paper's setting, one process per cell.

    python -m benchmarks.circuit                                 # all cells
    python -m benchmarks.circuit --shapes=1x28x28 --batches=64 --tasks=train,sample
    python -m benchmarks.circuit --report=results.jsonl          # tables of an old run

Every cell is a line of ``--output``; the tables are Markdown. The setting is that of
Lang et al. (2022): random binary trees, D=4, R=10, K=20 sums and leaves, all pairs
("tucker"), Binomial(255) on random images. Run it on a machine with nothing else to do.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks import markdown
from benchmarks.tasks import STRUCTURES, TASKS, Cell

# 3x64x64 at 256 is left out as in the published measurements: gigabytes for the peers.
SIZES = (
    ("1x28x28", 64),
    ("1x28x28", 256),
    ("3x32x32", 64),
    ("3x32x32", 256),
    ("3x64x64", 64),
)


def parse_shape(text: str) -> tuple[int, int, int]:
    """``CxHxW`` as three positive numbers.

    Raises:
        ValueError: the text is something else.
    """
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--shapes must be like 3x32x32 (CxHxW), got {text!r}")
    channels, height, width = map(int, parts)
    return channels, height, width


def select_cells(options: argparse.Namespace) -> list[Cell]:
    """The cells that the options ask for.

    Sizes: all pairs of ``--shapes`` and ``--batches``; the shapes at batch 64 where
    only they are given; otherwise `SIZES`, of the given batches where there are any.

    Raises:
        ValueError: a task, a shape or a batch size is not one.
    """
    tasks = options.tasks.split(",") if options.tasks else list(TASKS)
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"--tasks must be among {', '.join(TASKS)}, got {task!r}")
    shapes = options.shapes.split(",") if options.shapes else None
    batches = None
    if options.batches:
        texts = options.batches.split(",")
        if not all(text.isdecimal() and int(text) for text in texts):
            raise ValueError(
                f"--batches must be positive numbers, got {options.batches!r}"
            )
        batches = [int(text) for text in texts]
    if shapes and batches:
        sizes = [(shape, batch) for shape in shapes for batch in batches]
    elif shapes:
        sizes = [(shape, 64) for shape in shapes]
    else:
        sizes = [size for size in SIZES if not batches or size[1] in batches]
    return [
        Cell(
            task,
            *parse_shape(shape),
            batch=batch,
            structure=options.structure,
            sum_layer=options.sum_layer,
            seconds=options.seconds,
        )
        for shape, batch in sizes
        for task in tasks
    ]


def measure_cell(cell: Cell, timeout: float) -> dict[str, Any]:
    """Runs one cell in a fresh process; a failure there is in ``error``."""
    fields = dataclasses.asdict(cell)
    command = [sys.executable, "-m", "benchmarks.cell", json.dumps(fields)]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        error = f"not finished after {timeout:.0f} s"
    else:
        if process.returncode == 0:
            return json.loads(process.stdout.splitlines()[-1])
        lines = process.stderr.strip().splitlines()
        error = lines[-1] if lines else f"exit {process.returncode}"
    return {**fields, "shape": cell.shape, "error": error}


def pivot(results: Sequence[dict[str, Any]], field: str) -> str:
    """One number as a Markdown table: tasks down, sizes across; ``-`` is an error."""
    sizes = list(dict.fromkeys((r["shape"], r["batch"]) for r in results))
    cells = {(r["task"], r["shape"], r["batch"]): r for r in results}
    rows = [["", *(f"{shape}, B={batch}" for shape, batch in sizes)]]
    for task in dict.fromkeys(r["task"] for r in results):
        row = [task]
        for size in sizes:
            result = cells.get((task, *size), {})
            row.append("-" if "error" in result else markdown.number(result.get(field)))
        rows.append(row)
    return markdown.table(rows)


def report(results: Sequence[dict[str, Any]]) -> str:
    """All tables of a run, in Markdown."""
    successes = [r for r in results if "error" not in r]
    paragraphs = [_setting(successes)] if successes else []
    titles = {
        "median_ms": "Median time of a call, ms",
        "first_call_s": "First call, compilation included, s",
        "peak_rss_mib": "Peak memory above the process's base, with compilation, MiB",
        "run_rss_mib": "Peak memory above the process's base, after compilation, MiB",
        "xla_temp_mib": "Scratch memory by XLA's account, MiB",
        "device_peak_mib": "Peak memory of the accelerator, MiB",
    }
    for field, title in titles.items():
        if any(r.get(field) is not None for r in successes):
            paragraphs += [f"{title}:", pivot(results, field)]
    paragraphs += [
        f"failed: {r['task']} {r['shape']} B={r['batch']}: {r['error']}"
        for r in results
        if "error" in r
    ]
    return "\n\n".join(paragraphs)


def _setting(results: Sequence[dict[str, Any]]) -> str:
    """Date, machine and circuit of successful measurements."""
    result = results[0]
    speeds = [r["reference_gflops"] for r in results]
    return (
        f"{result['date']}, {result['device']} ({result['cpu']}, {result['cores']} "
        f"cores), jax {result['jax']}, Python {result['python']}; "
        f"{result['structure']}, {result['sum_layer']}; reference float32 product "
        f"{min(speeds):.0f} to {max(speeds):.0f} GFLOP/s"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.circuit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shapes", help="CxHxW, several with commas")
    parser.add_argument("--batches", help="batch sizes, several with commas")
    parser.add_argument("--tasks", help=f"several with commas: {', '.join(TASKS)}")
    parser.add_argument(
        "--structure",
        default="random_binary_trees",
        choices=tuple(STRUCTURES),
    )
    parser.add_argument(
        "--sum_layer", default="tucker", choices=("tucker", "cp", "cp_t")
    )
    add_options_of_runs(parser, "circuit")
    return parser.parse_args(arguments)


def add_options_of_runs(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds what `measure_cells` needs, and where the results of ``name`` are."""
    parser.add_argument("--seconds", type=float, default=3.0, help="per cell, at least")
    parser.add_argument("--timeout", type=float, default=300.0, help="s, of one cell")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(f"benchmarks/results/{name}.jsonl"),
        help="JSON lines, appended to",
    )
    parser.add_argument(
        "--report",
        type=pathlib.Path,
        help="print the tables of this file, measure nothing",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if a cell failed."""
    options = parse(arguments)
    if options.report:
        try:
            lines = options.report.read_text().splitlines()
        except OSError as error:
            sys.exit(f"--report must be a readable file, got {error}")
        results = [json.loads(line) for line in lines]
    else:
        try:
            cells = select_cells(options)
            options.output.parent.mkdir(parents=True, exist_ok=True)
        except (ValueError, OSError) as error:
            sys.exit(str(error))
        results = measure_cells(cells, options)
    print(report(results))
    return int(any("error" in result for result in results))


def measure_cells(
    cells: Sequence[Cell], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measures cells one after the other; each is a line of ``--output`` at once."""
    results = []
    for number, cell in enumerate(cells, start=1):
        result = measure_cell(cell, options.timeout)
        results.append(result)
        with options.output.open("a") as file:
            file.write(json.dumps(result) + "\n")
        outcome = result.get("error") or f"{markdown.number(result['median_ms'])} ms"
        name = f"[{number}/{len(cells)}] {cell.task} {cell.shape} B={cell.batch}"
        print(f"{name}: {outcome}", file=sys.stderr)
    return results


if __name__ == "__main__":
    sys.exit(main())
