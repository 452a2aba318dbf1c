"""What ``--help`` and ``--helpshort`` show: flags in groups, with an example."""

from collections.abc import Mapping, Sequence
import dataclasses
import textwrap
from typing import Any

from absl import flags as absl_flags

from experiments.engine.circuit_flags import CircuitSettings

_WIDTH = 80  # columns; absl's
_GROUPS: Mapping[str, Sequence[str]] = {
    "The run": (
        *("recipe", "workdir", "start_from", "seed", "num_seeds", "num_steps"),
        *("batch_size", "start"),
    ),
    "Data": (
        *("dataset", "data_dir", "data_source", "cache_dir", "debd_name"),
        *("image_size", "image_mode", "image_resize", "train_fraction", "flip"),
    ),
    "The circuit": [field.name for field in dataclasses.fields(CircuitSettings)],
    "Adam, or expectation maximization": (
        *("optimizer", "learning_rate", "em_step_size", "em_last_step_size"),
        *("em_decay_steps", "em_pseudocount", "em_leaf_pseudocount"),
        *("em_smooth_towards", "em_leaf_spread", "em_momentum", "em_rescale"),
        *("em_approximate", "em_closing_steps"),
    ),
    "Evaluations, checkpoints and the end": (
        *("log_every", "eval_every", "checkpoint_every", "checkpoint_minutes"),
        *("keep_best", "patience", "sharpness"),
    ),
    "Differentiable samples": (
        *("relaxation", "temperature", "temperature_schedule", "temperature_floor"),
        "temperature_decay_steps",
    ),
}
"""Title to flags. Those of no group are under the first line of their class."""
CACHE = "compilation_cache"
"""A flag of the process: it is none of a run's, and no `config.json` has it."""
CACHE_HELP = (
    "folder of compiled programs, which a second run need not compile again (default: "
    "~/.cache/dspc_jax/compilation, or JAX_COMPILATION_CACHE_DIR); empty: none are kept"
)
_SHORT = {
    *("dataset", "data_dir", "workdir", "num_steps", "batch_size", "num_seeds"),
    *("num_sums", "num_leaves", "learning_rate"),
    # Of single programs.
    *("ll_weight", "mmd_kernel", "adv_discriminator", "sample_loss"),
    *("pae_latents", "gan_generator", "vae_network", "vae_latents", "density", "flow"),
    *("classifier_filters", "run", "classifier", "efficientnet", "inception"),
    *("num_samples", "preset", "scale", "only", "override", "dry_run", "judge"),
    *("sets", "objectives", "tables", "models", "runs", "out", "title"),
}
"""The flags that matter: those of ``--helpshort``."""


def full(
    program: str,
    description: str,
    groups: Sequence[type],
    values: absl_flags.FlagValues,
    example: str,
) -> str:
    """The text of ``--help``.

    Args:
        program: the program's module, e.g. ``experiments.ll``.
        description: what it does.
        groups: dataclasses whose fields are flags.
        values: the flags that the program has, of them.
        example: the words of one command after the program's name.

    Returns:
        Lines, with a last newline.
    """
    parts = [_head(program, description, example)]
    for title, names in _grouped(groups, values).items():
        parts.append(f"{title}:\n" + "".join(_entry(values[name]) for name in names))
    parts.append("The process:\n" + _wrapped([f"--{CACHE}: {CACHE_HELP}"]))
    parts.append("--helpshort shows the flags that matter, --version the version.\n")
    return "\n".join(parts)


def short(
    program: str,
    description: str,
    groups: Sequence[type],
    values: absl_flags.FlagValues,
    example: str,
) -> str:
    """The text of ``--helpshort``; arguments and result are those of `full`."""
    titles = _grouped(groups, values)
    names = [name for each in titles.values() for name in each if name in _SHORT]
    entries = "".join(_entry(values[name]) for name in names)
    num_more = sum(map(len, titles.values())) - len(names) + 1  # that of the process
    more = f"--help shows the other flags, {num_more} in all.\n"
    return "\n".join([_head(program, description, example), entries, more])


def _head(program: str, description: str, example: str) -> str:
    command = f"python -m {program}"
    return (
        f"{description}\n\nUsage: {command} [flags]\n"
        f"Example: {' '.join([command, example]).rstrip()}\n"
    )


def _grouped(
    groups: Sequence[type], values: absl_flags.FlagValues
) -> dict[str, list[str]]:
    """Title to the names of flags that the program has, in the order of the titles."""
    titles = {name: title for title, names in _GROUPS.items() for name in names}
    result: dict[str, list[str]] = {}
    own: dict[str, list[str]] = {}
    for group in groups:
        shared = issubclass(group, CircuitSettings)
        for field in dataclasses.fields(group):
            if field.name not in values:
                continue
            title = titles.get(field.name) if shared or field.name == "recipe" else None
            if title is None:
                title = (group.__doc__ or "").splitlines()[0].rstrip(".")
                own.setdefault(title, []).append(field.name)
            else:
                result.setdefault(title, []).append(field.name)
    first = {title: result[title] for title in _GROUPS if title in result}
    return first | own


def _entry(flag: absl_flags.Flag[Any]) -> str:
    """A flag as absl shows it: name, meaning, default, requirement."""
    no = "[no]" if flag.boolean else ""
    lines = [f"--{no}{flag.name}: {flag.help}"]
    if flag.default_as_str:
        lines.append(f"(default: {flag.default_as_str})")
    if flag.parser.syntactic_help:
        lines.append(f"({flag.parser.syntactic_help})")
    return _wrapped(lines)


def _wrapped(lines: Sequence[str]) -> str:
    """The lines of an entry, the first one with the flag's name."""
    result = []
    for number, line in enumerate(lines):
        first = " " * (4 if number else 2)
        result += textwrap.wrap(
            line, _WIDTH, initial_indent=first, subsequent_indent=" " * 4
        )
    return "\n".join(result) + "\n"
