"""Which flags do something, beside the values of others."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from experiments.console.errors import UserError
from experiments.engine.flag_fields import Condition
from experiments.engine.requirements import Requirement


class Unmet(NamedTuple):
    """Why a flag does nothing.

    Attributes:
        flag: it, or one that it needs and that does nothing itself.
        other: the flag on which that depends.
        wanted: the values of the other with any of which it would do something.
    """

    flag: str
    other: str
    wanted: Sequence[Any] | Requirement


def unmet(
    fields: Sequence[dataclasses.Field[Any]],
    only: Mapping[str, Condition],
    values: Mapping[str, Any],
) -> dict[str, Unmet]:
    """The flags that do nothing beside the values of others.

    Args:
        fields: of the flags that a program has, with conditions of their own.
        only: further conditions, by name.
        values: of all flags, by name.

    Returns:
        The reasons, by name.
    """
    conditions = {
        field.name: [*field.metadata["only"], only.get(field.name, {})]
        for field in fields
    }

    def reason(name: str) -> Unmet | None:
        each = (_reason(name, condition) for condition in conditions[name])
        return next((result for result in each if result is not None), None)

    def _reason(name: str, condition: Condition) -> Unmet | None:
        reasons = []
        for other, wanted in condition.items():
            if other in conditions:  # a program need not have it
                fits = _fits(values[other], wanted)
                result = reason(other) if fits else Unmet(name, other, wanted)
                if result is None:
                    return None
                reasons.append(result)
        return reasons[0] if reasons else None

    reasons = {name: reason(name) for name in conditions}
    return {name: why for name, why in reasons.items() if why is not None}


def check(
    fields: Sequence[dataclasses.Field[Any]],
    only: Mapping[str, Condition],
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    """Refuses flags that do nothing beside the values of others.

    Args:
        fields: of the flags that a program has.
        only: its own conditions, as in `unmet`.
        values: of all flags, by name.
        defaults: of all flags, by name; a flag that has its default is not looked at.

    Raises:
        UserError: another flag has no value with which this one does something, or is
            without use itself; names both.
    """
    for name, why in unmet(fields, only, values).items():
        if values[name] != defaults[name]:
            raise UserError(words(name, why, values))


def words(name: str, why: Unmet, values: Mapping[str, Any]) -> str:
    """The reason as an error has it, with both flags and their values."""
    return (
        f"--{name} must go with --{why.other}{_words(why.wanted)}, got "
        f"{values[name]!r} with --{why.other}={values[why.other]}"
    )


def _fits(value: Any, wanted: Sequence[Any] | Requirement) -> bool:
    return wanted.holds(value) if isinstance(wanted, Requirement) else value in wanted


def _words(wanted: Sequence[Any] | Requirement) -> str:
    if isinstance(wanted, Requirement):
        return f" ({wanted.text})"
    return "=" + " or ".join(map(str, wanted))
