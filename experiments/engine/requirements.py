"""Conditions on the values of flags."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A condition on the values of a flag.

    Attributes:
        holds: whether a value does.
        text: for errors, ``must be ...``.
    """

    holds: Callable[[Any], bool]
    text: str


def at_least(low: float) -> Requirement:
    """The value is a finite number not below ``low``."""
    return Requirement(
        lambda v: math.isfinite(v) and v >= low, f"must be at least {low}"
    )


def above(low: float) -> Requirement:
    """The value is a finite number greater than ``low``."""
    return Requirement(
        lambda v: math.isfinite(v) and v > low, f"must be greater than {low}"
    )


def within(low: float, high: float) -> Requirement:
    """``low < value <= high``."""
    return Requirement(
        lambda v: low < v <= high, f"must be greater than {low} and at most {high}"
    )


def from_to(low: float, high: float) -> Requirement:
    """``low <= value < high``."""
    return Requirement(
        lambda v: low <= v < high, f"must be at least {low} and less than {high}"
    )


def naming(*names: str) -> Requirement:
    """The value, names with commas, has one of ``names``."""
    return Requirement(
        lambda v: not set(names).isdisjoint(v.split(",")),
        f"must name {' or '.join(names)}",
    )


given = Requirement(lambda v: v is not None, "must be given")
"""The flag has a value, by the command line or a default."""


def one_of(*names: str | int) -> Requirement:
    """The value is one of ``names``."""
    return Requirement(
        lambda v: v in names, f"must be one of {', '.join(map(str, names))}"
    )
