"""The last value of a metric: of a run, of a setting, of an evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.console.metrics import as_number, each_seed, names_of
from experiments.engine.run_folder import is_sample
from experiments.measuring.runs import Run, Setting

_EFFICIENTNETS = [f"efficientnet_lite{number}" for number in range(3)]
# The best known first.
DISTANCES = (
    *("fid", "kid"),
    *(f"{kind}_{name}" for name in _EFFICIENTNETS for kind in ("fd", "kd")),
    *("fd_classifier", "kd_classifier"),
)


class Value(NamedTuple):
    """A metric over seeds.

    Attributes:
        each: of every seed.
        where: the images, if not the test split, e.g. ``valid, step 50``.
        mean: over the seeds.
        std: sample standard deviation, None for one seed.
    """

    each: tuple[float, ...]
    where: str
    mean: float
    std: float | None


def pooled(each: Sequence[float], where: str = "") -> Value:
    """A metric from its values over seeds, at least one."""
    with np.errstate(invalid="ignore", over="ignore"):
        std = float(np.std(each, ddof=1)) if len(each) > 1 else None
        return Value(tuple(each), where, float(np.mean(each)), std)


def of_run(run: Run, metric: str) -> tuple[list[float], str] | None:
    """The last value of a metric.

    Args:
        run: with its lines and result.
        metric: its name without the split.

    Returns:
        Values over the seeds, and where they were measured: empty for the test split of
        the finished run, else split and step. None if it was not measured.
    """
    metrics = (run.result or {}).get("metrics")
    late = "" if run.state == "finished" else f", step {(run.result or {}).get('step')}"
    for split in ("test", "valid"):
        values = each_seed(metrics, f"{split}/{metric}")
        if values is not None:
            return values, "" if split == "test" and not late else split + late
    for line in reversed(run.lines):
        values = each_seed(line, f"valid/{metric}")
        if values is not None:
            return values, f"valid, step {line['step']:,}"
    return None


def of_setting(setting: Setting, metric: str) -> Value | None:
    """The last value of a metric over all seeds of a setting; see `of_run`.

    Where some runs of the setting are finished, only those are in it.
    """
    measured = [
        (run, *last)
        for run in setting.runs
        if (last := of_run(run, metric)) is not None
    ]
    if not measured:
        return None
    where = min((place for _, _, place in measured), key=lambda p: (p != "", p))
    each = _each_once((run, values) for run, values, p in measured if p == where)
    return pooled(each, where)


def _each_once(parts: Iterable[tuple[Run, list[float]]]) -> list[float]:
    """Values of every seed, each seed once."""
    each: dict[Any, float] = {}
    for run, values in parts:
        seeds = run.seeds if len(values) == len(run.seeds) else range(len(values))
        for seed, value in zip(seeds, values, strict=True):
            each.setdefault(seed, value)
    return list(each.values())


def of_evaluation(setting: Setting, metric: str) -> Value | None:
    """A metric of the model itself as an evaluation has it, over all seeds."""
    for name in dict.fromkeys(n for run in setting.runs for n in run.evaluations):
        parts = [
            (run, values)
            for run in setting.runs
            if name in run.evaluations
            and (values := each_seed(run.evaluations[name].get("model"), metric))
        ]
        if parts:
            return pooled(_each_once(parts))
    return None


class Measurement(NamedTuple):
    """A row of an evaluation.

    Attributes:
        title: of the images, e.g. ``sampled``.
        protocol: of the comparison, in words.
        values: by metric.
    """

    title: str
    protocol: str
    values: Mapping[str, Value]

    @property
    def is_floor(self) -> bool:
        """Whether it is of images that no model made."""
        return not is_sample(self.title)


_Rows = list[tuple[Run, Mapping[str, Any]]]


def evaluations(setting: Setting) -> list[Measurement]:
    """Every row of every evaluation of a setting, seeds joined."""
    rows: dict[tuple[str, str, str], _Rows] = {}
    for run in setting.runs:
        for name, content in run.evaluations.items():
            protocol, step = _protocol(name, content), as_number(content.get("step"))
            # The run may have gone on since.
            where = "" if step in (None, run.step) else f"step {step:,.0f}"
            for title, row in content["rows"].items():
                key = title, protocol, where if is_sample(title) else ""
                rows.setdefault(key, []).append((run, row))
    return [
        Measurement(title, protocol, _pooled_rows(parts, where))
        for (title, protocol, where), parts in rows.items()
    ]


def _pooled_rows(rows: _Rows, where: str) -> dict[str, Value]:
    """The metrics of rows of one title."""
    values = {}
    for name in names_of(name for _, row in rows for name in row):
        parts = [
            (run, each)
            for run, row in rows
            if (each := each_seed(row, name)) is not None
        ]
        if parts:
            values[name] = pooled(_each_once(parts), where)
    return values


def _protocol(name: str, content: Mapping[str, Any]) -> str:
    """The comparison of an evaluation, in words."""
    features = content.get("features")
    parts = [name.removeprefix("evaluation").strip("-_ ")]
    if content.get("protocol") is not None:
        parts.append(str(content["protocol"]))
    parts.append(
        f"{_count(content.get('num_samples'))} samples against "
        f"{_count(content.get('num_real'))} {content.get('split', '?')} images"
    )
    if isinstance(features, Mapping) and "program" in features:
        step = features.get("step", "?")
        parts.append(f"features of {features['program']} at step {step}")
    elif features is not None and not isinstance(features, Mapping):
        parts.append(f"features: {features}")
    return "; ".join(part for part in parts if part)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def distance_names(settings: Iterable[Setting]) -> list[str]:
    """The distances that any evaluation has, of `DISTANCES`."""
    known = {n for s in settings for m in evaluations(s) for n in m.values}
    return [name for name in DISTANCES if name in known]


def distance(setting: Setting, name: str) -> Value | None:
    """A distance of the setting's samples; of several kinds of samples the first."""
    for measurement in evaluations(setting):
        if not measurement.is_floor and name in measurement.values:
            return measurement.values[name]
    return None
