"""Flags as fields of frozen dataclasses."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, TypeAlias

from experiments.engine.requirements import Requirement

Condition: TypeAlias = Mapping[str, Sequence[Any] | Requirement]
"""Flags and their values, with any of which another flag does something."""


def flag(
    default: Any,
    explanation: str,
    requirement: Requirement | None = None,
    *,
    kind: Callable[[Any], Any] | None = None,
    free: bool = False,
    shapes: bool = False,
    only: Condition | Sequence[Condition] = (),
) -> Any:
    """A dataclass field that is a flag.

    Args:
        default: the value without the flag; its type is the flag's type, except that
            None stands for text or, with ``kind=``, for another type.
        explanation: the line of ``--help``.
        requirement: for given and default values; None is not checked.
        kind: the type of the values where ``default`` is None, or `local_path`.
        free: whether a run may be continued with another value: see
            `experiments.engine.workdir`.
        shapes: whether the value shapes the circuit, the flow before it, or the units
            of its data, so that a run that starts from another's circuit must have
            the same: see `experiments.engine.starting`.
        only: other flags, with the values with any of which this flag does something;
            those that a program does not have do not count; or several such
            conditions, all of which must hold: see `experiments.engine.flags_in_use`.

    Returns:
        The field.
    """
    if kind is None:
        kind = str if default is None else type(default)
    return dataclasses.field(
        default=default,
        metadata={
            "help": explanation,
            "requirement": requirement,
            "kind": kind,
            "free": free,
            "shapes": shapes,
            "only": (only,) if isinstance(only, Mapping) else tuple(only),
        },
    )
