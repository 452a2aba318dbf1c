"""A study: many runs, one after the other, and the report about them.

``python -m experiments.study --preset=smoke`` takes minutes; the same command goes on
where it was stopped.
"""

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

from experiments import data, report
from experiments.console import summary
from experiments.console.errors import UserError
from experiments.engine import app, flags
from experiments.engine.files import write_atomically
from experiments.engine.flags import Settings
from experiments.engine.workdir import alone
from experiments.report import ReportSettings
from experiments.study import plan, record
from experiments.study.execution import Outcome, execute
from experiments.study.presets import PRESETS
from experiments.study.settings import SCALES, Context


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """The flags of this program."""

    preset: str = flags.flag(
        "smoke",
        "what is run: smoke (a little of everything), paper (its settings, faults "
        "included), corrected (one change at a time from paper), best (ours), "
        "temperature, grid (step size by batch size), data_efficiency, convergence, "
        "ade (densities behind flows)",
        flags.one_of(*PRESETS),
    )
    scale: str | None = flags.flag(
        None,
        "how much of everything: smoke, digits, cpu (some hours on two cores), gpu "
        "(default: smoke for --preset=smoke, digits for digits, else cpu)",
        flags.one_of(*SCALES),
    )
    dataset: str = flags.flag("digits", "data set", flags.one_of(*data.NAMES))
    data_dir: str | None = flags.flag(None, "folder with the files of the data set")
    image_size: int = flags.flag(
        0, "rows and columns of an image; 0: the set's own", flags.at_least(0)
    )
    workdir: str | None = flags.flag(
        None,
        "folder of all runs and of the report; the same command with the same folder "
        "goes on, and tries again what failed (default: out/study-PRESET-DATASET)",
    )
    num_seeds: int = flags.flag(
        5, "seeds of every run, trained together as one program", flags.at_least(1)
    )
    judge: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier whose features measure, perhaps of "
        "another data set (default: one is trained, where there are labels)",
    )
    critics: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier whose features a loss sees, never "
        "the judge (default: some are trained, where there are labels)",
    )
    only: str | None = flags.flag(
        None, "names of jobs, with commas: these and what they need"
    )
    override: str | None = flags.flag(
        None,
        "flags with other values in every job that has them, e.g. "
        "num_sums=32,num_leaves=32",
    )
    dry_run: int = flags.flag(
        0, "1: shows the commands and runs nothing", flags.one_of(0, 1)
    )
    results: str | None = flags.flag(
        None, "folder into which the raw numbers of all runs are copied at the end"
    )


def make_plan(settings: StudySettings) -> list[plan.Job]:
    """The jobs of a study, in the order in which they run.

    Args:
        settings: the flags.

    Returns:
        The plan; needs come first.

    Raises:
        UserError: a flag does not fit, or the data cannot be read.
    """
    scale = settings.scale or {"smoke": "smoke"}.get(
        settings.preset, "digits" if settings.dataset == "digits" else "cpu"
    )
    where: dict[str, Any] = {"dataset": settings.dataset}
    if settings.data_dir is not None:
        where["data_dir"] = settings.data_dir
    if settings.image_size:
        where["image_size"] = settings.image_size
    images = data.load(
        settings.dataset, settings.data_dir, Settings(**where).data_options()
    )
    has_labels = images.train_labels is not None
    judge, critics = (
        given or (plan.Of(name) if has_labels else None)
        for name, given in (("judge", settings.judge), ("critics", settings.critics))
    )
    root = _root(settings)
    if judge is not None and _folder(judge, root) == _folder(critics, root):
        raise UserError(
            f"--critics must not be the judge, or it measures itself, got {critics}"
        )
    context = Context(
        where, judge, critics, settings.num_seeds, SCALES[scale], images.height
    )
    jobs = PRESETS[settings.preset](context)
    if settings.override:
        jobs = plan.with_overrides(jobs, _pairs(settings.override))
    if settings.only:
        names = settings.only.split(",")
        unknown = sorted(set(names) - {job.name for job in jobs})
        if unknown:
            raise UserError(
                f"--only must name jobs of the study, got {', '.join(unknown)}; it has "
                + ", ".join(job.name for job in jobs)
            )
        jobs = plan.with_needs(jobs, names)
    return jobs


def _root(settings: StudySettings) -> Path:
    return Path(settings.workdir or f"out/study-{settings.preset}-{settings.dataset}")


def _folder(one: plan.Of | str | None, root: Path) -> Path | None:
    if one is None:
        return None
    return (root / one.name if isinstance(one, plan.Of) else Path(one)).resolve()


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and sign for name, sign, _ in pairs):
        raise UserError(
            f"--override must be like num_sums=32,num_leaves=32, got {text!r}"
        )
    return {name: value for name, _, value in pairs}


def main(groups: list[Any]) -> int:
    """Runs a study.

    Args:
        groups: the flags.

    Returns:
        0 if every job is finished, else 1.

    Raises:
        UserError: a flag or the plan does not fit; nothing has been run.
    """
    (settings,) = groups
    root = _root(settings)
    jobs = make_plan(settings)
    plan.check(jobs, root)
    if settings.dry_run:
        for job in jobs:
            done = " (finished)" if job.is_done(root) else ""
            summary.write(
                f"# {job.name}{done}\npython -m {' '.join(job.words(root))}\n"
            )
        return 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone(root):
            outcomes, table = _run(settings, jobs, root)
    except OSError as error:
        raise UserError(
            f"--workdir and --results must be folders that can be written: {error}"
        ) from None
    summary.write(f"\n{table}\n")
    folders = [root / job.name for job in jobs if job.trains]
    if runs := ",".join(str(folder) for folder in folders if folder.is_dir()):
        title = f"Study {settings.preset} on {settings.dataset}"
        report.main([ReportSettings(runs=runs, out=str(root / "report"), title=title)])
    return int(any(outcome.state != "finished" for outcome in outcomes.values()))


def _run(
    settings: StudySettings, jobs: list[plan.Job], root: Path
) -> tuple[dict[str, Outcome], str]:
    """Runs the jobs; returns what became of them, and the table of their numbers."""
    told = dataclasses.asdict(settings)
    for free in ("workdir", "data_dir", "results", "dry_run", "judge", "critics"):
        told.pop(free)
    notes = record.Record(root, told)

    def noted(job: plan.Job, outcome: Outcome) -> None:
        notes.add(job, outcome)
        words = f"{job.name}: {outcome.state}"
        if outcome.seconds is not None:
            words += f" in {outcome.seconds:.0f} s"
        summary.write(words + (f": {outcome.reason}\n" if outcome.reason else "\n"))

    outcomes = execute(jobs, root, noted)
    table = record.table(jobs, outcomes, root)
    write_atomically(root / "table.md", table)
    if settings.results is not None:
        record.keep(jobs, root, Path(settings.results))
    return outcomes, table


parse = app.parser(
    "experiments.study",
    "Runs many programs one after the other, and writes the report about them.",
    StudySettings,
)


def run() -> NoReturn:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)
