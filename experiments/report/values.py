"""Numbers out of files that may hold anything, and numbers as text."""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

TITLES = {
    "bits_per_dim": "bits/dim \N{DOWNWARDS ARROW}",
    "bits_per_dim_bound": "bits/dim, bound \N{DOWNWARDS ARROW}",
    "mmd2": "MMD\N{SUPERSCRIPT TWO} on pixels \N{DOWNWARDS ARROW}",
    "reconstruction_bce": "BCE, nats \N{DOWNWARDS ARROW}",
    "reconstruction_mse": "squared error \N{DOWNWARDS ARROW}",
    "half_missing_bce": "BCE from the upper half, nats \N{DOWNWARDS ARROW}",
    "hidden_half_bce": "BCE of the hidden half, nats \N{DOWNWARDS ARROW}",
    "hidden_half_direct_bce": "the same without a code, nats \N{DOWNWARDS ARROW}",
    "negative_elbo": "negative ELBO, nats \N{DOWNWARDS ARROW}",
    "fd_classifier": "FD of classifier features \N{DOWNWARDS ARROW}",
    "kd_classifier": "KD of classifier features \N{DOWNWARDS ARROW}",
    "kd_classifier_error": "standard error of KD",
    "fid": "FID \N{DOWNWARDS ARROW}",
    "kid": "KID \N{DOWNWARDS ARROW}",
    "inception_score": "Inception Score \N{UPWARDS ARROW}",
    "precision": "precision \N{UPWARDS ARROW}",
    "recall": "recall \N{UPWARDS ARROW}",
    "density": "density \N{UPWARDS ARROW}",
    "coverage": "coverage \N{UPWARDS ARROW}",
    "accuracy": "accuracy \N{UPWARDS ARROW}",
    "sample_spread": "variance of samples over that of data",
    "active_latents": "active latents",
}
# The first word of a metric that is named after its features. Diversity has no arrow:
# that of the data is right.
_OF_FEATURES = ("precision", "recall", "density", "coverage", "score", "diversity")


def title_of(metric: str) -> str:
    """A metric's title in a table: with unit and direction where they are known."""
    base, _, features = metric.partition("_")
    if base in _OF_FEATURES and features:
        arrow = "" if base == "diversity" else " \N{UPWARDS ARROW}"
        return f"{base}, {features} features{arrow}"
    if base == "inpainting" and "_" in features:
        return features.replace("_", ", ") + " \N{DOWNWARDS ARROW}"
    return TITLES.get(metric, metric)


def as_number(value: Any) -> float | None:
    """A number as JSON or our own text for infinities has it; None: no number."""
    if isinstance(value, str):
        return _SPECIAL.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


class Value(NamedTuple):
    """A metric over seeds.

    Attributes:
        each: of every seed.
        where: what it was measured on if not the test split, e.g. ``valid, step 50``.
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


def from_metrics(metrics: Any, name: str) -> list[float] | None:
    """The values of a metric over the seeds.

    Args:
        metrics: as `summary.over_seeds` makes them, or anything else.
        name: of the metric.

    Returns:
        One number a seed; the mean alone where the seeds are not written; None where
        there is no number.
    """
    if not isinstance(metrics, Mapping):
        return None
    seeds = metrics.get(f"{name}_seeds")
    if isinstance(seeds, list) and seeds:
        numbers = [number for v in seeds if (number := as_number(v)) is not None]
        if len(numbers) == len(seeds):
            return numbers
    number = as_number(metrics.get(name))
    return None if number is None else [number]


def plain(number: float) -> str:
    """Four significant digits; thousands are grouped."""
    if not math.isfinite(number):
        return str(number)
    if number == round(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    size = abs(number)
    if size < 1e-4:
        return f"{number:.2e}"
    return f"{number:,.{max(0, 3 - math.floor(math.log10(size)))}f}"


def spread(value: Value) -> str:
    """Mean, with the deviation where there is one, to two digits of the deviation."""
    if value.std is None or not (
        math.isfinite(value.mean) and 0 < value.std < math.inf
    ):
        text = plain(value.mean)
        if value.std == 0:
            text += " \N{PLUS-MINUS SIGN} 0"
    else:
        digits = 1 - math.floor(math.log10(value.std))
        if digits > 7:
            text = f"{value.mean:.3e} \N{PLUS-MINUS SIGN} {value.std:.1e}"
        else:
            digits = max(0, digits)
            text = (
                f"{value.mean:,.{digits}f} \N{PLUS-MINUS SIGN} {value.std:,.{digits}f}"
            )
    return text


def duration(seconds: float) -> str:
    """Seconds for people."""
    if not math.isfinite(seconds) or seconds < 0:
        return str(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
