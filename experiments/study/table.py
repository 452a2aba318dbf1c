"""The table of a study that is kept: the numbers of all its runs in one small file.

``python -m experiments.study.table --runs='out/study-grid-digits/*'
--out=results/grid-digits.json``; ``results/README.md`` says how to read it.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NoReturn

from experiments.console import summary
from experiments.console.errors import UserError
from experiments.console.metrics import each_seed
from experiments.engine import app, flags
from experiments.engine.code_version import commit_of_code
from experiments.engine.files import write_atomically
from experiments.measuring.collection import Collected, collect, defaults_of, folders
from experiments.measuring.last_values import DISTANCES
from experiments.measuring.runs import IRRELEVANT, Run

_STUDY = ("preset", "scale", "override", "python", "jax", "jaxlib", "flax")
_RUN = (
    *("program", "label", "commit", "step", "first_step", "seconds", "wall_seconds"),
    *("seeds", "device"),
)
_PROTOCOL = ("protocol", "split", "num_real", "num_samples", "sample_seed", "features")
# First parts of the names of measures: of a model, of images, over training.
_TEST = (
    *("bits_per_dim", "mmd2", "num_params", "reconstruction_bce", "kl", "accuracy"),
    *("active_latents", "inpainting_random_mean"),
)
_IMAGES = (*DISTANCES, "precision", "recall", "density", "coverage", "score")
_OVER_TIME = ("step", "valid/bits_per_dim", "valid/mmd2")
_SYNTHETIC = ("test_ll", "energy", "modes")
_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class TableSettings:
    """The flags of this program."""

    runs: str | None = flags.flag(
        None, "folders of runs, or one of experiments.synthetic, as the report's --runs"
    )
    out: str | None = flags.flag(
        None,
        "file of the table, e.g. results/STUDY.json",
        kind=flags.local_path,
    )


def make(collected: Collected) -> dict[str, Any]:
    """The table of the runs of a study.

    Args:
        collected: runs with the defaults of their flags, or synthetic data.

    Returns:
        ``common``: the values that all runs share; ``runs``: by name, the others.

    Raises:
        UserError: no run has a result.
    """
    finished = [run for run in collected.runs if run.result is not None]
    runs = {run.name: _run(run) for run in finished}
    for study in collected.studies:
        for result in study.results:
            runs[f"{result['set']}-{result['objective']}"] = _synthetic(result)
    if not runs:
        raise UserError("--runs must name folders of runs with results, got none")
    at_default = {
        name
        for run in finished
        for name, value in run.defaults.items()
        if run.flags.get(name, value) == value
    }
    parts = list(runs.values())
    common = _take_shared(parts, _RUN)
    for key in ("data", "flags", "evaluation"):
        inner = [part[key] for part in parts]
        names = dict.fromkeys(name for part in inner for name in part)
        common[key] = _take_shared(inner, [n for n in names if n not in at_default])
    study = _study(finished[0]) if finished else {}
    return {
        **{name: study[name] for name in _STUDY if study.get(name)},
        **{"defaults_of_commit": commit_of_code(), "common": _filled(common)},
        "runs": {name: _filled(part) for name, part in runs.items()},
    }


def _study(run: Run) -> dict[str, Any]:
    """The ``study.json`` of the study that the run is of; empty without one."""
    path = run.folder.parent / "study.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _run(run: Run) -> dict[str, Any]:
    """The values of a run."""
    job = _study(run).get("jobs", {}).get(run.folder.name, {})
    result = run.result or {}
    head = {**result, "program": run.program, "wall_seconds": job.get("seconds")}
    head["label"] = job.get("label")
    head["commit"] = job.get("commit") or result.get("commit")
    evaluation = run.evaluations.get("evaluation", {})
    shared = {name: evaluation[name] for name in _PROTOCOL if name in evaluation}
    samples = {}
    for title, row in evaluation.get("rows", {}).items():
        if title.startswith("sampled"):
            samples[title] = _each(row, DISTANCES if "," in title else _IMAGES)
        elif title != "mean image":  # it is far from everything
            shared[title] = _each(row, _IMAGES)
    metrics = result.get("metrics", {}).items()
    test = {k.removeprefix("test/"): v for k, v in metrics if k.startswith("test/")}
    return {
        **{name: _short(head.get(name)) for name in _RUN},
        "data": dict(result.get("data", {})),
        "flags": {
            name: Path(value).name if isinstance(value, str) else value
            for name, value in run.flags.items()
            if name not in {*IRRELEVANT, "cache_dir"}
            and (name not in run.defaults or run.defaults[name] != value)
        },
        "evaluation": shared,
        "test": _each({**evaluation.get("model", {}), **test}, _TEST),
        **samples,
        "over_time": _over_time(run),
    }


def _synthetic(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a set and an objective of ``experiments.synthetic``."""
    lists = {f"{name}_seeds": content[name] for name in _SYNTHETIC}
    return {
        **dict.fromkeys(_RUN),
        **{"program": "synthetic", "seconds": _short(content["seconds"])},
        **{"data": {}, "flags": dict(content["settings"]), "evaluation": {}},
        "test": _each(dict.fromkeys(_SYNTHETIC) | lists, _SYNTHETIC),
    }


def _over_time(run: Run) -> dict[str, Any]:
    """Means over the seeds at every evaluation during training."""
    is_constant = run.flags.get("temperature_schedule", "constant") == "constant"
    lines = [line for line in run.lines if "valid/mmd2" in line]
    names = _kept(
        (name for line in lines for name in line),
        _OVER_TIME if is_constant else (*_OVER_TIME, "train/temperature"),
    )
    return {name: [_short(line.get(name)) for line in lines] for name in names}


def _each(metrics: Mapping[str, Any], starts: tuple[str, ...]) -> dict[str, Any]:
    """Values over the seeds, or one where all are the same."""
    values = {}
    for name in _kept(metrics, starts):
        seeds = [_short(value) for value in each_seed(metrics, name) or [None]]
        values[name] = seeds[0] if seeds == seeds[:1] * len(seeds) else seeds
    return values


def _kept(names: Iterable[str], starts: tuple[str, ...]) -> list[str]:
    """Names of measures, each once; those over seeds have one name."""
    ends = ("_std", "_seeds", "_error")
    unique = dict.fromkeys(names)
    return [n for n in unique if n.startswith(starts) and not n.endswith(ends)]


def _short(value: Any) -> Any:
    """A number in six digits, or as text if it is not finite; else the value."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return str(value)
    is_count = value.is_integer() and abs(value) < 1e15
    return int(value) if is_count else float(f"{value:.6g}")


def _take_shared(parts: Sequence[dict[str, Any]], names: Iterable[str]) -> dict:
    """Takes out the values that are equal in all parts, and returns them."""
    shared = {}
    for name in names:
        values = [part[name] for part in parts if name in part]
        if all(value == values[0] for value in values):
            shared[name] = values[0]
            for part in parts:
                part.pop(name, None)
    return shared


def _filled(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value not in (None, {})}


def as_text(value: Any, indent: int = 0) -> str:
    """JSON of few lines: as much on a line as fits.

    Args:
        value: as JSON has it.
        indent: columns to its left.

    Returns:
        The text, without a last newline.
    """
    one_line = json.dumps(value)
    if len(one_line) + indent <= _WIDTH or not isinstance(value, dict | list):
        return one_line
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {as_text(v, indent + 1)}" for k, v in value.items()]
    else:
        items = [as_text(v, indent + 1) for v in value]
    lines: list[str] = []
    for item in items:
        longer = f"{lines[-1]}, {item}" if lines else "\n"
        if "\n" in longer or len(longer) + indent > _WIDTH:
            lines.append(item)
        else:
            lines[-1] = longer
    margin = "\n" + " " * indent
    body = ",".join(f"{margin} {line}" for line in lines)
    return f"{one_line[0]}{body}{margin}{one_line[-1]}"


def main(groups: list[Any]) -> int:
    """Writes the table of the flags.

    Args:
        groups: the flags.

    Returns:
        0.

    Raises:
        UserError: a flag is missing, or names a file that cannot be read or written.
    """
    (settings,) = groups
    if settings.runs is None or settings.out is None:
        raise UserError("--runs and --out must be given")
    out = Path(settings.out)
    table = make(collect(folders(settings.runs, out), defaults_of))
    try:
        write_atomically(out, as_text({"study": out.stem, **table}) + "\n")
    except OSError as error:
        raise UserError(
            f"--out must be a file that can be written, got {settings.out!r}: "
            f"{error.strerror}"
        ) from None
    summary.write(f"{len(table['runs'])} runs, written to {out}\n")
    return 0


parse = app.parser(
    "experiments.study.table",
    "Writes the numbers of all runs of a study as one small file to keep.",
    TableSettings,
    example="--runs='out/study-best-digits/*' --out=results/best-digits.json",
)


def run() -> NoReturn:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
