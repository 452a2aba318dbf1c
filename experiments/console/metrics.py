"""Metrics over seeds as JSON has them: means, deviations, single values.

``name`` is the mean; of several seeds ``name_std`` is the sample standard deviation and
``name_seeds`` the list of their values. JSON has no infinities: numbers that are not
finite are the texts "inf", "-inf" and "nan".
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any

import numpy as np

_STD, _SEEDS = "_std", "_seeds"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def over_seeds(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Mean, deviation and single values over seeds.

    Args:
        metrics: name to ``[S]``.

    Returns:
        ``name``: the mean; with S > 1 also ``name_std`` and ``name_seeds``, the values
        in the order of the seeds.
    """
    result: dict[str, Any] = {}
    for name, values in metrics.items():
        result[name] = float(np.mean(values))
        if len(values) > 1:
            result[name + _STD] = float(np.std(values, ddof=1))
            result[name + _SEEDS] = [float(v) for v in values]
    return result


def names_of(metrics: Iterable[str]) -> list[str]:
    """The metrics without their deviations and single values, each once."""
    names = dict.fromkeys(metrics)
    return [name for name in names if not name.endswith((_STD, _SEEDS))]


def deviation(metrics: Mapping[str, Any], name: str) -> Any:
    """The sample standard deviation of a metric as it is written; None: one seed."""
    return metrics.get(name + _STD)


def each_seed(metrics: Any, name: str) -> list[float] | None:
    """The values of a metric over the seeds.

    Args:
        metrics: as `over_seeds` makes them, or anything else.
        name: of the metric.

    Returns:
        One number a seed; the mean alone where the seeds are not written; None where
        there is no number.
    """
    if not isinstance(metrics, Mapping):
        return None
    seeds = metrics.get(name + _SEEDS)
    if isinstance(seeds, list) and seeds:
        numbers = [number for v in seeds if (number := as_number(v)) is not None]
        if len(numbers) == len(seeds):
            return numbers
    number = as_number(metrics.get(name))
    return None if number is None else [number]


def as_number(value: Any) -> float | None:
    """A number as JSON or our own text for infinities has it; None: no number."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def finite_or_text(value: Any) -> Any:
    """A value for JSON: in it, numbers that are not finite become texts."""
    if isinstance(value, Mapping):
        return {k: finite_or_text(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite_or_text(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
