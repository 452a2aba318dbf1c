"""Which flags do something, beside the values of others."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.console.errors import UserError
from experiments.engine.flags import fields_of


def check(
    groups: Sequence[Any], values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Refuses flags that do nothing beside the values of others.

    Args:
        groups: the classes of a program's flags.
        values: of all flags, by name.
        defaults: of all flags, by name; a flag that has its default is not looked at.

    Raises:
        UserError: another flag has no value with which this one, as `flags.flag` says
            by ``only``, does something, or is without use itself; names both.
    """
    only = {field.name: field.metadata["only"] for field in fields_of(groups)}

    def unfit(name: str) -> tuple[str, str] | None:
        """A flag that is not in use, this one or one above it, and what it needs."""
        reasons = []
        for other, wanted in only[name].items():
            if other in values:  # a program need not have it
                reason = unfit(other) if values[other] in wanted else (name, other)
                if reason is None:
                    return None
                reasons.append(reason)
        return reasons[0] if reasons else None

    for name, value in values.items():
        if value != defaults[name] and (reason := unfit(name)) is not None:
            flag, other = reason
            wanted = " or ".join(map(str, only[flag][other]))
            raise UserError(
                f"--{name} must go with --{other}={wanted}, got {value!r} with "
                f"--{other}={values[other]}"
            )
