"""All programs by name: ``python -m experiments``, and ``dspc`` where it is installed.

A program is started as a module, so that none loads what the others need.
"""

from collections.abc import Mapping, Sequence
import difflib
import runpy
import sys
from typing import NoReturn

from experiments.console import summary
from experiments.console.errors import UserError, exit_code
from experiments.engine.code_version import version_line

PROGRAMS: Mapping[str, str] = {
    "ll": "Trains a probabilistic circuit by maximum likelihood.",
    "mmd": "Trains a probabilistic circuit through its differentiable samples, by MMD.",
    "adv": "Trains a probabilistic circuit through its differentiable samples, against "
    "a discriminator.",
    "pae": "Trains a probabilistic circuit over images and latents as an auto-encoder.",
    "ade": "Trains a density over the features of a flow by likelihood and through "
    "samples.",
    "gan": "Trains a neural generator against a discriminator.",
    "mmd_gan": "Trains a neural generator by the MMD of adversarially learned "
    "features.",
    "vae": "Trains a variational auto-encoder, the neural counterpart of "
    "experiments.pae.",
    "classifier": "Trains a classifier, whose features measure samples in "
    "experiments.evaluate.",
    "synthetic": "Compares objectives on two-dimensional sets, where the truth is "
    "known.",
    "binary_tables": "Compares hidden Chow-Liu trees on binary tables with published "
    "circuits.",
    "evaluate": "Measures the samples of a trained run against held-out images.",
    "study": "Runs many programs one after the other, and writes the report about "
    "them.",
    "study.table": "Writes the numbers of all runs of a study as one small file to "
    "keep.",
    "report": "Writes one page about many runs: samples, distances, curves, settings.",
}
"""Name to what the program does, as its ``--help`` says."""
_HELP = {"--help", "-h", "-help", "--helpshort", "--helpfull", "help"}
_VERSION = {"--version", "-version", "version"}


def overview(command: str) -> str:
    """The list of programs, a line each, with a last newline.

    Args:
        command: what a user types before the name of a program.
    """
    width = max(map(len, PROGRAMS))
    lines = [f"  {name:<{width}}  {text}" for name, text in PROGRAMS.items()]
    return "\n".join(
        [
            f"Usage: {command} PROGRAM [flags]",
            *("", *lines, ""),
            f"{command} PROGRAM --helpshort shows the flags that matter, --help all.",
            "",
        ]
    )


def main(words: Sequence[str], command: str = "python -m experiments") -> int:
    """Shows the list, or runs a program.

    Args:
        words: the program's name and its flags; ``-`` and ``_`` are the same in names.
        command: what the user has typed before them.

    Returns:
        The exit code of what ends here; a program ends by SystemExit.

    Raises:
        UserError: there is no such program.
    """
    if not words or words[0] in _HELP:
        summary.write(overview(command))
        return 0
    if words[0] in _VERSION:
        summary.write(version_line() + "\n")
        return 0
    name = words[0].replace("-", "_")
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, 1)
        hint = f". Did you mean: {near[0]} ?" if near else f" ({command} lists them)"
        raise UserError(
            f"the program must be one of {', '.join(PROGRAMS)}, got {words[0]!r}{hint}"
        )
    module = f"experiments.{name}"
    sys.argv = [module, *words[1:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def run(command: str = "dspc") -> NoReturn:
    """Runs the command line; does not return.

    Args:
        command: what the user has typed before the program's name.

    Raises:
        SystemExit: with the program's exit code.
    """
    sys.exit(exit_code(lambda: main(sys.argv[1:], command)))
