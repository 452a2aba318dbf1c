"""The jobs of a study: each is a command, and some need others."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from experiments import evaluate
from experiments.console.errors import UserError
from experiments.console.metrics import as_number
from experiments.engine import flags, flags_in_use, run_folder
from experiments.engine.run_folder import readable_object
from experiments.measuring.collection import defaults_of
from experiments.measuring.evaluation import EvaluateSettings
from experiments.measuring.programs import PROGRAMS


@dataclasses.dataclass(frozen=True)
class RunOf:
    """The folder of a job's run, as the value of a flag."""

    name: str


@dataclasses.dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: unique in the plan; of a training job also its folder's.
        program: without ``experiments.``: one that trains, or ``evaluate``.
        flags: by name; an `RunOf` is a job that must be finished before.
        label: of the job, in the tables.
    """

    name: str
    program: str
    flags: Mapping[str, Any]
    label: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the jobs that must be finished before."""
        return tuple(v.name for v in self.flags.values() if isinstance(v, RunOf))

    @property
    def trains(self) -> bool:
        """Whether the job has a folder of its own."""
        return self.program != "evaluate"

    def values(self, root: Path) -> dict[str, Any]:
        """The flags with folders in the place of names."""
        values = {
            name: str(root / value.name) if isinstance(value, RunOf) else value
            for name, value in self.flags.items()
        }
        return values | ({"workdir": str(root / self.name)} if self.trains else {})

    def command(self, root: Path) -> list[str]:
        """The arguments after ``python -m``."""
        flags = [f"--{name}={value}" for name, value in self.values(root).items()]
        return [f"experiments.{self.program}", *flags]

    def folder(self, root: Path) -> Path:
        """Where the job's results are: its own folder, or that of the run it measures.

        Args:
            root: folder of the study.
        """
        return root / (self.name if self.trains else self.flags["run"].name)

    def is_done(self, root: Path) -> bool:
        """Whether the job's result is there, from these flags.

        Args:
            root: folder of the study.

        Returns:
            False also where a finished run has other flags: its program will refuse to
            continue it and name them.
        """
        folder = self.folder(root)
        result = readable_object(folder / run_folder.RESULT)
        if not result:
            return False
        if not self.trains:
            evaluation = readable_object(folder / run_folder.EVALUATION)
            is_newest = evaluation.get("step") == result.get("step")
            return is_newest and self._is_of(evaluation, root)
        step, num_steps = as_number(result.get("step")), self.flags.get("num_steps", 0)
        num_steps += self.flags.get("em_closing_steps", 0)
        is_longer = step is None or step > num_steps
        has_steps = run_folder.is_finished(result, num_steps) and not is_longer
        config = readable_object(folder / run_folder.CONFIG)
        return has_steps and self._is_of(config, root)

    def _is_of(self, written: Mapping[str, Any], root: Path) -> bool:
        """Whether the ``flags`` that a program wrote are this job's."""
        flags = written.get("flags")
        return isinstance(flags, dict) and all(
            flags.get(name) == value
            for name, value in self.values(root).items()
            if name not in ("workdir", "data_dir", "num_steps", "recipe")
        )


def check(jobs: Sequence[Job], root: Path) -> None:
    """Checks a plan before anything runs.

    Args:
        jobs: in the order in which they run.
        root: folder of the study.

    Raises:
        UserError: a flag of a job breaks its requirement; names the job.
        ValueError: the plan itself is wrong: a name twice, or a need that comes later.
    """
    names: set[str] = set()
    for job in jobs:
        if job.name in names or not set(job.needs) <= names:
            raise ValueError(
                "jobs must have unique names and follow those that they need, got "
                f"{job.name!r}"
            )
        if job.trains and job.program not in PROGRAMS:
            raise ValueError(
                f"program must be one of {', '.join(PROGRAMS)}, got {job.program!r}"
            )
        names.add(job.name)
        parse = PROGRAMS[job.program].parse if job.trains else evaluate.parse
        try:
            parse(job.command(root))
        except UserError as error:
            raise UserError(f"{error} (of the job {job.name})") from None


def with_overrides(jobs: Iterable[Job], overrides: Mapping[str, str]) -> list[Job]:
    """Jobs with other values for some flags, wherever they do something.

    Args:
        jobs: the plan.
        overrides: name of a flag to its value, as on a command line.

    Returns:
        The plan; where jobs set such a flag themselves, the override wins.

    Raises:
        UserError: no job knows a flag, or it does nothing in any that does.
    """
    result, used_names = [], set()
    reasons: dict[str, str] = {}
    for job in jobs:
        fields = flags_of(job.program)
        values = {
            name: _typed(fields[name], value)
            for name, value in overrides.items()
            if name in fields
        }
        idle = _unmet(job, values)
        reasons |= {name: f": {idle[name]}" for name in values if name in idle}
        values = {name: v for name, v in values.items() if name not in idle}
        used_names |= set(values)
        result.append(dataclasses.replace(job, flags={**job.flags, **values}))
    for name in overrides:
        if name not in used_names:
            raise UserError(
                "--override must name flags that do something in some job, got "
                f"{name!r}{reasons.get(name, '')}"
            )
    return result


def flags_of(program: str) -> dict[str, dataclasses.Field[Any]]:
    """The flags of a program by name."""
    if program == "evaluate":
        fields = flags.fields_of([EvaluateSettings])
    else:
        fields = PROGRAMS[program].use.fields(PROGRAMS[program].groups)
    return {field.name: field for field in fields}


def _unmet(job: Job, values: Mapping[str, Any]) -> dict[str, str]:
    """Why flags do nothing in a job, with these values in place of its own."""
    usual, only = flags.defaults_of([EvaluateSettings]), {}
    if job.trains:
        usual, only = defaults_of(job.program), PROGRAMS[job.program].use.only
    of_all = {**(usual or {}), **job.flags, **values}
    reasons = flags_in_use.unmet(list(flags_of(job.program).values()), only, of_all)
    return {
        name: f"{flags_in_use.words(name, why, of_all)} (of the job {job.name})"
        for name, why in reasons.items()
    }


def _typed(field: dataclasses.Field[Any], text: str) -> Any:
    """The value as ``config.json`` will have it; the program's parser checks it."""
    try:
        return field.metadata["kind"](text)
    except ValueError:
        return text


def with_needs(jobs: Sequence[Job], names: Iterable[str]) -> list[Job]:
    """The named jobs and all that they need, in the order of the plan."""
    by_name = {job.name: job for job in jobs}
    required, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in required:
            required.add(name)
            queue.extend(by_name[name].needs)
    return [job for job in jobs if job.name in required]
