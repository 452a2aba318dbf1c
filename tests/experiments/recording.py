"""Flags that note which of them are read."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import sys
from typing import Any

from experiments.engine import flags, flags_in_use
from experiments.engine.flag_fields import Condition


def recording(group: Any, found: set[str]) -> Any:
    """The same flags; the names of those that are read are put into ``found``.

    A copy of all (`dataclasses.asdict`, `dataclasses.replace`) reads none.
    """
    names = {field.name for field in dataclasses.fields(group)}

    class Recording(type(group)):
        def __getattribute__(self, name):
            reader = sys._getframe(1).f_globals["__name__"]
            if name in names and reader != "dataclasses":
                found.add(name)
            return super().__getattribute__(name)

    made = object.__new__(Recording)
    made.__dict__.update(vars(group))
    return made


def in_use(
    fields: Sequence[Any], only: Mapping[str, Condition], groups: Sequence[Any]
) -> set[str]:
    """The flags that do something beside the others, by their own words.

    Args:
        fields: of the flags that the program has.
        only: its own conditions.
        groups: the flags.
    """
    idle = flags_in_use.unmet(fields, only, flags.by_name(groups))
    return {field.name for field in fields} - set(idle)


def unread(main: Callable[[list[Any]], int], groups: Sequence[Any]) -> set[str]:
    """The flags that a program should read and does not, when it runs to its end."""
    found: set[str] = set()
    assert main([recording(group, found) for group in groups]) == 0
    return in_use(flags.fields_of(groups), {}, groups) - found
