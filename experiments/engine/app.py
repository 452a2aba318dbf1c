"""The entry of every program: absl's, with our errors."""

from collections.abc import Callable, Mapping, Sequence
import sys
from typing import Any, NoReturn

from absl import app, logging
from absl import flags as absl_flags

from experiments.console.errors import exit_code
from experiments.engine import command_line, compilation
from experiments.engine.help_text import CACHE, CACHE_HELP

Main = Callable[[list[Any]], int]
"""``groups -> exit code``: a program from its parsed flags on."""
Parse = Callable[..., list[Any]]
"""``(argv, also=None) -> groups``: the command line of a program."""


def parser(
    program: str,
    description: str,
    *groups: type,
    defaults: Mapping[str, Any] | None = None,
    presets: command_line.Presets | None = None,
    use: command_line.Use | None = None,
    example: str = "",
) -> Parse:
    """A program's flags as a function.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        description: what it does, for ``--help``.
        *groups: dataclasses whose fields are made by `flags.flag`.
        defaults: the program's own defaults for flags of the groups, by name.
        presets: further defaults, by the values of other flags.
        use: see `command_line.Use`.
        example: the words of one command after the program's name, for ``--help``.

    Returns:
        ``(argv, also=None) -> groups``, see `command_line.parse`.
    """

    def parse(argv: Sequence[str], also: absl_flags.FlagValues | None = None):
        return command_line.parse(
            *(argv, program, description, groups, defaults, also, presets, use),
            example=example,
        )

    return parse


def run(main: Main, parse: Parse) -> NoReturn:
    """Runs a program by ``absl.app.run`` and ends the process.

    absl's own flags (``--verbosity``, ``--pdb``) work beside the program's; messages
    of libraries below a warning are shown with ``--verbosity=0`` only. What is compiled
    is kept, see `compilation.keep`.

    Args:
        main: the program; gets the groups of ``parse``.
        parse: of `parser`.

    Raises:
        SystemExit: with the result of ``main``, or as `errors.exit_code` has it.
    """

    def flags_parser(argv: list[str]) -> list[Any]:
        if CACHE not in absl_flags.FLAGS:
            absl_flags.DEFINE_string(CACHE, None, CACHE_HELP)
        groups = parse(argv, absl_flags.FLAGS)
        compilation.keep(absl_flags.FLAGS[CACHE].value)
        absl_flags.FLAGS.mark_as_parsed()
        if absl_flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)
            # or absl would set it to 0
            absl_flags.FLAGS["verbosity"].using_default_value = False
        return groups

    def program() -> int:
        app.run(main, flags_parser=flags_parser)
        return 0  # absl has left by SystemExit

    sys.exit(exit_code(program))
