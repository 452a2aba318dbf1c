"""The command line of a program: its flags as absl's, read into frozen dataclasses."""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
from typing import Any, TypeAlias

from absl import flags as absl_flags

from experiments.console import summary
from experiments.console.errors import UserError
from experiments.console.paths import local_path
from experiments.engine import code_version, flags_in_use, help_text
from experiments.engine.flag_fields import Condition
from experiments.engine.flags import fields_of, from_values
from experiments.engine.requirements import Requirement


class _CheckedParser(absl_flags.ArgumentParser):
    """Converts and checks the values of one flag, whose name is in its errors."""

    def __init__(
        self, name: str, kind: Callable[[Any], Any], requirement: Requirement | None
    ):
        self._name, self._kind, self._requirement = name, kind, requirement
        texts = [_KINDS[kind]] + ([requirement.text] if requirement else [])
        self.syntactic_help = "; ".join(texts)

    def parse(self, argument: Any) -> Any:
        """Converts a word of the command line, or checks a default.

        Args:
            argument: text, or a value of the flag's own type.

        Returns:
            The value.

        Raises:
            UserError: it is no such value; names flag, requirement and value.
        """
        try:
            value = self._kind(argument)
        except ValueError:
            raise UserError(
                f"--{self._name} must be {_KINDS[self._kind]}, got {argument!r}"
            ) from None
        if self._requirement is not None and not self._requirement.holds(value):
            raise UserError(f"--{self._name} {self._requirement.text}, got {value!r}")
        return value

    def flag_type(self) -> str:
        """The type's name, for absl's machine-readable help."""
        return self._kind.__name__


_KINDS: dict[Callable[[Any], Any], str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    local_path: "a path of this machine",
}
_HELP = {
    "help": "shows all flags",
    "helpshort": "shows the flags that matter",
    "helpfull": "shows all flags",
}
_VERSION = "version"

Presets: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the values of all flags to the defaults of some, as text or of their types."""


@dataclasses.dataclass(frozen=True)
class Use:
    """What a program makes of the flags of its groups.

    Attributes:
        without: flags that it does not have; they keep their defaults.
        only: conditions of this program on its flags, in addition to their own: see
            `flag_fields.flag`.
    """

    without: Collection[str] = ()
    only: Mapping[str, Condition] = dataclasses.field(default_factory=dict)

    def fields(self, groups: Sequence[Any]) -> list[dataclasses.Field[Any]]:
        """The flags that the program has, of these groups."""
        return [f for f in fields_of(groups) if f.name not in self.without]


def define(
    program: str,
    groups: Sequence[type],
    defaults: Mapping[str, Any] | None = None,
    use: Use | None = None,
) -> absl_flags.FlagValues:
    """Defines the absl flags of a program, apart from those of the process.

    They are no part of ``absl.flags.FLAGS``, where two programs imported by one process
    (a test's) would define the shared flags twice.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        groups: dataclasses whose fields are made by `flag`; no name twice.
        defaults: the program's own defaults for flags of the groups, by name.
        use: see `Use`; None: it has all flags.

    Returns:
        The flags, not parsed yet.

    Raises:
        absl.flags.DuplicateFlagError: a name is in two groups.
        TypeError: a default for a flag that does not exist.
        UserError: a default breaks its flag's requirement.
    """
    defaults = dict(defaults or {})
    values = absl_flags.FlagValues()
    for field in (use or Use()).fields(groups):
        default = defaults.pop(field.name, field.default)
        if field.metadata["kind"] is bool:
            text = field.metadata["help"]
            absl_flags.DEFINE_bool(field.name, default, text, values, program)
            continue
        absl_flags.DEFINE(
            _CheckedParser(
                field.name, field.metadata["kind"], field.metadata["requirement"]
            ),
            field.name,
            default,
            field.metadata["help"],
            flag_values=values,
            serializer=absl_flags.ArgumentSerializer(),
            module_name=program,
        )
    if defaults:
        raise TypeError(f"defaults for flags that do not exist: {sorted(defaults)}")
    asking = {**_HELP, _VERSION: "shows version and commit"}
    for name, text in asking.items():  # after ours: they have no place in our help
        absl_flags.DEFINE_bool(name, False, text, values, "absl.app")
    return values


def parse(
    argv: Sequence[str],
    program: str,
    description: str,
    groups: Sequence[type],
    defaults: Mapping[str, Any] | None = None,
    also: absl_flags.FlagValues | None = None,
    presets: Presets | None = None,
    use: Use | None = None,
    example: str = "",
) -> list[Any]:
    """Reads the command line into one frozen dataclass a group.

    Args:
        argv: the program's name and the words after it; ``--flagfile=`` is expanded.
        program: the program's module, e.g. ``experiments.ll``.
        description: what it does, for ``--help``.
        groups: dataclasses whose fields are made by `flag`; no name twice.
        defaults: the program's own defaults for flags of the groups, by name.
        also: other flags that the words may name and that are set in place: absl's
            own (``--verbosity``).
        presets: the defaults of some flags, by the values of others.
        use: which of the flags the program has, and when; None: all, always.
        example: the words of one command, for ``--help``.

    Returns:
        An instance of each group, in order.

    Raises:
        UserError: an unknown flag, a value that breaks its requirement, or a flag that
            others leave without use; one line that names the flag, the requirement and
            the value.
        SystemExit: 0, after ``--help`` or ``--version`` has been answered on stdout.
    """
    use = use or Use()
    values = define(program, groups, defaults, use)
    for module in () if also is None else also.flags_by_module_dict().values():
        for flag in module:
            if flag.name not in values:
                values[flag.name] = flag
    try:
        rest = values(argv)[1:]
    except (absl_flags.Error, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{line} (--help lists the flags)") from None
    if values[_VERSION].value:
        summary.write(code_version.version_line() + "\n")
        raise SystemExit(0)
    if any(values[name].value for name in _HELP):
        text = help_text.short if values["helpshort"].value else help_text.full
        summary.write(text(program, description, groups, values, example))
        raise SystemExit(0)
    if rest:
        raise UserError(
            f"unrecognized arguments: {' '.join(rest)} (--help lists the flags)"
        )
    fields = use.fields(groups)
    parsed = {field.name: values[field.name].value for field in fields}
    for name, default in (presets(parsed) if presets else {}).items():
        if not values[name].present:
            values.set_default(name, values[name].parser.parse(default))
            parsed[name] = values[name].value
    usual = {name: values[name].default for name in parsed}
    flags_in_use.check(fields, use.only, parsed, usual)
    return [from_values(group, parsed) for group in groups]
