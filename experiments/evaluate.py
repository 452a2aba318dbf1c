"""Measures the samples of a trained run: ``python -m experiments.evaluate --run=...``.

See `experiments.measuring.evaluation`.
"""

from pathlib import Path
from typing import Any

from experiments.console import summary
from experiments.console.errors import UserError
from experiments.engine import app, run_folder
from experiments.engine.pictures import write_picture
from experiments.measuring.evaluation import EvaluateSettings, evaluate


def main(groups: list[Any]) -> int:
    """Measures a run, writes ``evaluation.json`` into its folder, shows a table."""
    (settings,) = groups
    result, pictures = evaluate(settings)
    folder = Path(settings.run)
    path, picture = (
        folder / name for name in (run_folder.EVALUATION, run_folder.EVALUATION_PICTURE)
    )
    try:
        run_folder.write_object(path, result)
        write_picture(picture, pictures)
    except OSError as error:
        raise UserError(
            f"--run must be a folder that can be written, got {settings.run!r}: "
            f"{error.strerror}"
        ) from None
    title = f"{result['program']} on {result['dataset']}, step {result['step']}"
    summary.write(title + "\n\n")
    summary.write(summary.table({"model": result["model"]}) + "\n")
    if result["rows"]:
        summary.write(summary.table(result["rows"]))
    summary.write(f"\n  written to {path} and {picture.name}\n")
    return 0


parse = app.parser(
    "experiments.evaluate",
    "Measures the samples of a trained run against held-out images.",
    EvaluateSettings,
    example="--run=out/ll-digits --classifier=out/classifier-digits",
)


def run() -> None:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
