"""The report of many runs: ``python -m experiments.report --runs='out/*'``.

One HTML page that needs nothing else, and the same as Markdown.
"""

import dataclasses
import datetime
from pathlib import Path
from typing import Any, NoReturn

from experiments.console import summary
from experiments.console.errors import UserError
from experiments.engine import app, flags
from experiments.engine.files import write_atomically
from experiments.measuring.collection import Collected, collect, defaults_of, folders
from experiments.report import (
    failures,
    grids,
    markdown,
    overview,
    page,
    pictures,
    sections,
    synthetic,
)
from experiments.report.document import Document, Section

_PICTURES = "report_files"  # beside report.md


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The flags of this program."""

    runs: str | None = flags.flag(
        None,
        "folders of runs and of studies of synthetic data: glob patterns, separated by "
        "commas; ** matches folders recursively. In quotes, or the shell expands it",
    )
    out: str = flags.flag(
        "out/report",
        "folder for report.html, report.md and report_files; an older report there is "
        "replaced",
        kind=flags.local_path,
    )
    title: str = flags.flag("Report of runs", "heading of the report")


def make_sections(collected: Collected) -> tuple[Section, ...]:
    """All sections, in the order of the paper's tables."""
    return (
        overview.overview(collected),
        pictures.samples(collected),
        sections.distances(collected),
        sections.bits_per_dimension(collected),
        sections.reconstruction(collected),
        sections.inpainting(collected),
        pictures.completions(collected),
        grids.temperature(collected, pictures.picture_of),
        synthetic.section(collected),
        failures.failure_modes(collected),
        grids.rates_by_batches(collected, pictures.picture_of),
        pictures.curves(collected),
        overview.configurations(collected, defaults_of),
    )


def main(groups: list[Any]) -> int:
    """Writes the report of the flags."""
    (settings,) = groups
    if settings.runs is None:
        raise UserError("--runs must be given")
    out = Path(settings.out)
    collected = collect(folders(settings.runs, out), defaults_of)
    time = datetime.datetime.now(datetime.UTC)
    document = Document(
        settings.title,
        f"{len(collected.runs)} runs of dspc_jax, {settings.runs}, written "
        f"{time:%Y-%m-%d %H:%M} UTC",
        make_sections(collected),
    )
    try:
        _write(document, out)
    except OSError as error:
        raise UserError(
            f"--out must be a folder that can be written, got {settings.out!r}: "
            f"{error.strerror}"
        ) from None
    summary.write(
        f"{len(collected.runs)} runs, {len(collected.studies)} studies, "
        f"{len(collected.unreadable)} other folders\n"
        f"  written to {out / 'report.html'} and {out / 'report.md'}\n"
    )
    return 0


def _write(document: Document, out: Path) -> None:
    """Writes both renderings; pictures of an older report are removed."""
    text, files = markdown.render(document, _PICTURES)
    folder = out / _PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_atomically(out / "report.md", text)
    write_atomically(out / "report.html", page.render(document))


parse = app.parser(
    "experiments.report",
    "Writes one page about many runs: samples, distances, curves, settings.",
    ReportSettings,
    example="--runs='out/*' --out=out/report",
)


def run() -> NoReturn:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)
