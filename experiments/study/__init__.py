"""A study: many runs, one after the other, and the report about them.

``python -m experiments.study --preset=smoke`` takes minutes; the same command continues
where it stopped.
"""

from collections.abc import Sequence
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
        "list of runs: smoke (a little of everything), paper (its settings, faults "
        "included), corrected (one change at a time from paper), best (ours), "
        "temperature, grid (step size by batch size), data_efficiency, convergence, "
        "ade (densities behind flows)",
        flags.one_of(*PRESETS),
    )
    scale: str | None = flags.flag(
        None,
        "sizes of everything: smoke, digits, cpu (some hours on two cores), gpu "
        "(default: smoke for --preset=smoke, digits for digits, else cpu)",
        flags.one_of(*SCALES),
    )
    dataset: str = flags.flag("digits", "data set", flags.one_of(*data.NAMES))
    data_dir: str | None = flags.flag(
        None,
        "folder with the files of the data set",
        kind=flags.local_path,
        only={"dataset": data.WITH_FILES},
    )
    image_size: int = flags.flag(
        0, "rows and columns of an image; 0: the set's own", flags.at_least(0)
    )
    workdir: str | None = flags.flag(
        None,
        "folder of all runs and of the report; the same command with the same folder "
        "continues, and tries failed runs again (default: out/study-PRESET-DATASET)",
        kind=flags.local_path,
    )
    num_seeds: int = flags.flag(
        5, "seeds of every run, trained together as one program", flags.at_least(1)
    )
    judge: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier whose features measure, perhaps of "
        "another data set (default: one is trained, where there are labels)",
        kind=flags.local_path,
    )
    critics: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier whose features a loss sees, never "
        "the judge (default: some are trained, where there are labels)",
        kind=flags.local_path,
    )
    only: str | None = flags.flag(
        None, "names of jobs, with commas: these and the jobs that they need"
    )
    override: str | None = flags.flag(
        None,
        "flags with other values in every job that has them, e.g. "
        "num_sums=32,num_leaves=32",
    )
    dry_run: int = flags.flag(
        0, "1: shows the commands and runs nothing", flags.one_of(0, 1)
    )


def make_plan(settings: StudySettings) -> list[plan.Job]:
    """The jobs of a study, in the order in which they run.

    Args:
        settings: the flags.

    Returns:
        The plan; needs come first.

    Raises:
        UserError: a flag does not fit, or no job uses it, or the data cannot be read.
    """
    jobs = PRESETS[settings.preset](_context(settings))
    names = [job.name for job in jobs]
    if settings.only:
        chosen = settings.only.split(",")
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            raise UserError(
                "--only must name jobs of the study: "
                f"{', '.join(names)}, got {', '.join(unknown)}"
            )
        names = chosen
        jobs = plan.with_needs(jobs, names)
    if settings.override:
        jobs = plan.with_overrides(jobs, _overrides(settings.override))
        jobs = plan.with_needs(jobs, names)  # without those that it replaces
    _check_use(settings, jobs)
    return jobs


def _check_use(settings: StudySettings, jobs: Sequence[plan.Job]) -> None:
    """Refuses flags that are to no job what they are to others."""
    default = StudySettings()
    for name in ("judge", "critics", "num_seeds"):
        value = getattr(settings, name)
        values = {job.flags.get(flag) for job in jobs for flag in _PASSED[name]}
        if value != getattr(default, name) and value not in values:
            raise UserError(
                f"--{name} must go with a --preset and --only that have jobs for it, "
                f"got {value!r} with --preset={settings.preset} and "
                f"--only={settings.only}"
            )


_PASSED = {
    "judge": ("classifier",),
    "critics": ("mmd_classifier", "adv_classifier"),
    "num_seeds": ("num_seeds",),
}
"""The flags of jobs that have the values of the study's."""


def _context(settings: StudySettings) -> Context:
    """Data set, classifiers and sizes from the flags; looks at the images."""
    data_flags: dict[str, Any] = {"dataset": settings.dataset}
    if settings.data_dir is not None:
        data_flags["data_dir"] = settings.data_dir
    if settings.image_size:
        data_flags["image_size"] = settings.image_size
    images = data.load(
        settings.dataset, settings.data_dir, Settings(**data_flags).data_options()
    )
    has_labels = images.train_labels is not None
    judge = settings.judge or (plan.RunOf("judge") if has_labels else None)
    critics = settings.critics or (plan.RunOf("critics") if has_labels else None)
    root = _root(settings)
    if judge is not None and _folder(judge, root) == _folder(critics, root):
        raise UserError(
            f"--critics must not be the judge, or it measures itself, got {critics}"
        )
    scale = settings.scale
    if scale is None:
        scale = "digits" if settings.dataset == "digits" else "cpu"
        scale = "smoke" if settings.preset == "smoke" else scale
    return Context(
        data_flags, judge, critics, settings.num_seeds, SCALES[scale], images.height
    )


def _root(settings: StudySettings) -> Path:
    return Path(settings.workdir or f"out/study-{settings.preset}-{settings.dataset}")


def _folder(classifier: plan.RunOf | str | None, root: Path) -> Path | None:
    """Where a classifier is, of this study or elsewhere; None: there is none."""
    if classifier is None:
        return None
    if isinstance(classifier, plan.RunOf):
        return (root / classifier.name).resolve()
    return Path(classifier).resolve()


def _overrides(text: str) -> dict[str, str]:
    """Flags and values of ``--override``."""
    items = [item.partition("=") for item in text.split(",")]
    if not all(name and sign for name, sign, _ in items):
        raise UserError(
            f"--override must be like num_sums=32,num_leaves=32, got {text!r}"
        )
    return {name: value for name, _, value in items}


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
            state = " (finished)" if job.is_done(root) else ""
            command = " ".join(job.command(root))
            summary.write(f"# {job.name}{state}\npython -m {command}\n")
        return 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone(root):
            outcomes, table = _run(settings, jobs, root)
    except OSError as error:
        raise UserError(
            f"--workdir must be a folder that can be written, got {error}"
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
    """Runs the jobs; returns their outcomes, and the table of their numbers."""
    folders = ("workdir", "data_dir", "judge", "critics")
    recorded = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in (*folders, "dry_run")
    }
    study_record = record.Record(root, recorded)

    def report_outcome(job: plan.Job, outcome: Outcome) -> None:
        study_record.add(job, outcome)
        line = f"{job.name}: {outcome.state}"
        if outcome.seconds is not None:
            line += f" in {outcome.seconds:.0f} s"
        summary.write(line + (f": {outcome.reason}\n" if outcome.reason else "\n"))

    def note_start(job: plan.Job) -> None:
        study_record.add(job, Outcome("running", seconds=0.0))

    outcomes = execute(jobs, root, report_outcome, note_start)
    table = record.table(jobs, outcomes, root)
    write_atomically(root / "table.md", table)
    return outcomes, table


parse = app.parser(
    "experiments.study",
    "Runs many programs one after the other, and writes the report about them.",
    StudySettings,
    example="--preset=best --dataset=digits",
)


def run() -> NoReturn:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)
