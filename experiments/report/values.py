"""Metrics and numbers as text."""

import math

from experiments.measuring.last_values import Value

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
    **{
        f"{kind}_efficientnet_lite{number}": (
            f"{kind.upper()} of EfficientNet-Lite{number} features \N{DOWNWARDS ARROW}"
        )
        for number in range(3)
        for kind in ("fd", "kd")
    },
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
    minutes, whole_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_seconds} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
