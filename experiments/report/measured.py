"""The last value of a metric: of a run, of a setting, of an evaluation."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiments.report.runs import Run, Setting
from experiments.report.values import Value, as_number, from_metrics, pooled

DISTANCES = ("fid", "kid", "fd_classifier", "kd_classifier")  # the best known first


def of_run(run: Run, metric: str) -> tuple[list[float], str] | None:
    """The last value of a metric.

    Args:
        run: what was measured.
        metric: its name without the split.

    Returns:
        Values over the seeds, and where they were measured: empty for the test split of
        the finished run, else split and step. None if it was not measured.
    """
    metrics = (run.result or {}).get("metrics")
    late = "" if run.state == "finished" else f", step {(run.result or {}).get('step')}"
    for split in ("test", "valid"):
        values = from_metrics(metrics, f"{split}/{metric}")
        if values is not None:
            return values, "" if split == "test" and not late else split + late
    for line in reversed(run.lines):
        values = from_metrics(line, f"valid/{metric}")
        if values is not None:
            return values, f"valid, step {line['step']:,}"
    return None


def of_setting(setting: Setting, metric: str) -> Value | None:
    """The last value of a metric over all seeds of a setting; see `of_run`.

    Where some runs of the setting are finished, only those are in it.
    """
    found = []
    for run in setting.runs:
        values = of_run(run, metric)
        if values is not None:
            found.append((run, *values))
    if not found:
        return None
    where = min((where for _, _, where in found), key=lambda w: (w != "", w))
    return pooled(
        _each_seed((r, values) for r, values, w in found if w == where), where
    )


def _each_seed(parts: Iterable[tuple[Run, list[float]]]) -> list[float]:
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
            and (values := from_metrics(run.evaluations[name].get("model"), metric))
        ]
        if parts:
            return pooled(_each_seed(parts))
    return None


class Measurement(NamedTuple):
    """A row of an evaluation.

    Attributes:
        title: what was measured, e.g. ``sampled``.
        protocol: against what, in words.
        values: by metric.
    """

    title: str
    protocol: str
    values: Mapping[str, Value]

    @property
    def is_floor(self) -> bool:
        """Whether it is of images that no model made."""
        return _is_floor(self.title)


def _is_floor(title: str) -> bool:
    return not title.startswith(("sampled", "dec"))  # as experiments.evaluate


def evaluations(setting: Setting) -> list[Measurement]:
    """Every row of every evaluation of a setting, seeds joined."""
    rows: dict[tuple[str, str, str], list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in setting.runs:
        for name, content in run.evaluations.items():
            protocol, step = _protocol(name, content), as_number(content.get("step"))
            # The run may have gone on since.
            old = "" if step in (None, run.step) else f"step {step:,.0f}"
            for title, row in content["rows"].items():
                key = title, protocol, "" if _is_floor(title) else old
                rows.setdefault(key, []).append((run, row))
    measured = []
    for (title, protocol, old), found in rows.items():
        names = dict.fromkeys(n for _, row in found for n in row)
        values = {}
        for name in names:
            if name.endswith(("_std", "_seeds")):
                continue
            parts = [
                (run, v)
                for run, row in found
                if (v := from_metrics(row, name)) is not None
            ]
            if parts:
                values[name] = pooled(_each_seed(parts), old)
        measured.append(Measurement(title, protocol, values))
    return measured


def _protocol(name: str, content: Mapping[str, Any]) -> str:
    """What an evaluation compared, in words."""
    features = content.get("features")
    words = [name.removeprefix("evaluation").strip("-_ ")]
    if content.get("protocol") is not None:
        words.append(str(content["protocol"]))
    words.append(
        f"{_count(content.get('num_samples'))} samples against "
        f"{_count(content.get('num_real'))} {content.get('split', '?')} images"
    )
    if isinstance(features, Mapping) and "program" in features:
        step = features.get("step", "?")
        words.append(f"features of {features['program']} at step {step}")
    elif features is not None and not isinstance(features, Mapping):
        words.append(f"features: {features}")
    return "; ".join(word for word in words if word)


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
