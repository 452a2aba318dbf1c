"""The report of many runs: ``python -m experiments.report --runs='out/*'``.

One HTML page that needs nothing else, and the same as Markdown.
"""

import dataclasses
import datetime
import functools
import glob
import os
from pathlib import Path
from typing import Any, NoReturn

from experiments.console import summary
from experiments.console.errors import UserError
from experiments.engine import app, flags
from experiments.engine.files import write_atomically
from experiments.measuring.programs import PROGRAMS
from experiments.report import (
    failures,
    grids,
    markdown,
    page,
    pictures,
    runs,
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
        "folders of runs and of studies of synthetic data: patterns with *, joined by "
        "commas; ** goes into folders. In quotes, or the shell expands it",
    )
    out: str = flags.flag(
        "out/report",
        "folder for report.html, report.md and report_files; what is there of an older "
        "report is replaced",
    )
    title: str = flags.flag("Report of runs", "heading of the report")


def folders(patterns: str, out: Path) -> list[Path]:
    """The folders that patterns name.

    Args:
        patterns: joined by commas.
        out: the folder of the report, which is no run.

    Returns:
        Each folder once, in order of names.

    Raises:
        UserError: there are none.
    """
    found = {
        Path(name)
        for pattern in patterns.split(",")
        for name in glob.glob(os.path.expanduser(pattern), recursive=True)
        if os.path.isdir(name) and Path(name).resolve() != out.resolve()
    }
    if not found:
        raise UserError(f"--runs must name folders, got {patterns!r}: there are none")
    return sorted(found)


@functools.cache
def defaults_of(program: str) -> dict[str, Any] | None:
    """A program's default flags as ``config.json`` has them; None for a foreign one."""
    if program not in PROGRAMS:
        return None
    return flags.by_name(PROGRAMS[program].parse([program]))


def make_sections(collected: runs.Collected) -> tuple[Section, ...]:
    """All sections, in the order of the paper's tables."""
    return (
        sections.overview(collected),
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
        sections.configurations(collected, defaults_of),
    )


def main(groups: list[Any]) -> int:
    """Writes the report of the flags."""
    (settings,) = groups
    if settings.runs is None:
        raise UserError("--runs must be given")
    out = Path(settings.out)
    collected = runs.collect(folders(settings.runs, out), defaults_of)
    now = datetime.datetime.now(datetime.UTC)
    document = Document(
        settings.title,
        f"{len(collected.runs)} runs of dspc_jax, {settings.runs}, written "
        f"{now:%Y-%m-%d %H:%M} UTC",
        make_sections(collected),
    )
    text, files = markdown.render(document, _PICTURES)
    try:
        folder = out / _PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
            old.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        write_atomically(out / "report.md", text)
        write_atomically(out / "report.html", page.render(document))
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


parse = app.parser(
    "experiments.report",
    "Writes one page about many runs: samples, distances, curves, settings.",
    ReportSettings,
)


def run() -> NoReturn:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)
