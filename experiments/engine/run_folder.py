"""The folder of a run: names and formats of its files, written and read back.

    config.json      program and flags: whose folder it is
    metrics.jsonl    one object a logged step, key "step"
    result.json      final metrics, written at the end
    failure.json     {"reason": ...}, where the run has failed
    evaluation.json  measures of `experiments.evaluate`; evaluation.png: its pictures
    samples/         KIND_STEP.png, see `pictures`
    checkpoints/     see `checkpointing`
    tensorboard/     scalars and pictures once more

Whoever reads trusts nothing to be whole, or ours. Numbers that are not finite are
texts: see `experiments.console.metrics`.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

from experiments.console.errors import UserError
from experiments.console.metrics import as_number, finite_or_text
from experiments.engine.files import write_atomically

CONFIG = "config.json"
_VERSION = 2
"""Of `CONFIG`. In version 1, which is not written in it, ``cp_t`` was called ``cp``."""
METRICS = "metrics.jsonl"
RESULT = "result.json"
FAILURE = "failure.json"
EVALUATION = "evaluation.json"
EVALUATION_PICTURE = "evaluation.png"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

_TAIL_BYTES = 65536  # of the metrics; longer than any line


class Unreadable(Exception):
    """A file has no such content; the message names it and says why."""


class Config(NamedTuple):
    """The content of `CONFIG`.

    Attributes:
        program: without ``experiments.``, e.g. ``ll``.
        flags: by name.
    """

    program: str
    flags: dict[str, Any]


def read_object(path: Path) -> dict[str, Any] | None:
    """Reads an object of JSON.

    Args:
        path: of the file.

    Returns:
        The object; None where there is no file.

    Raises:
        Unreadable: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8
        raise Unreadable(f"{path.name} is not JSON: {str(error)[:100]}") from None
    if not isinstance(content, dict):
        raise Unreadable(f"{path.name} is not an object")
    return content


def readable_object(path: Path) -> dict[str, Any]:
    """An object of JSON, empty where there is none that can be read."""
    try:
        return read_object(path) or {}
    except Unreadable:
        return {}


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object of JSON, whole or not at all."""
    write_atomically(path, json.dumps(finite_or_text(content), indent=2) + "\n")


# ---- config.json -----------------------------------------------------------------


def write_config(folder: Path, program: str, flags: Mapping[str, Any]) -> None:
    """Writes whose folder it is.

    Args:
        folder: of the run.
        program: the program's module, e.g. ``experiments.ll``.
        flags: every flag by name, values as JSON has them.
    """
    content = {"program": program, "version": _VERSION, "flags": flags}
    write_object(folder / CONFIG, content)


def read_config(folder: Path) -> Config | None:
    """Reads whose folder it is.

    Args:
        folder: of a run.

    Returns:
        Program and flags; None where there is no `CONFIG`.

    Raises:
        Unreadable: it is not the configuration of a run.
    """
    content = read_object(folder / CONFIG)
    if content is None:
        return None
    program, flags = content.get("program"), content.get("flags")
    if not isinstance(program, str) or not isinstance(flags, dict):
        raise Unreadable(f"{CONFIG} has no program and flags")
    if content.get("version", 1) == 1 and flags.get("sum_layer") == "cp":
        flags = flags | {"sum_layer": "cp_t"}
    return Config(short_name(program), flags)


def short_name(program: str) -> str:
    """The name of a program's module without ``experiments.``."""
    return program.removeprefix("experiments.")


def named_config(folder: Path, flag: str) -> Config:
    """Reads the configuration of a run that a flag names.

    Args:
        folder: the value of the flag.
        flag: its name, for errors.

    Returns:
        Program and flags.

    Raises:
        UserError: the folder is not that of a run.
    """
    try:
        config = read_config(folder)
    except Unreadable as error:
        raise UserError(
            f"--{flag} must be the folder of a run, got {str(folder)!r}: {error}"
        ) from None
    if config is None:
        raise UserError(
            f"--{flag} must be the folder of a run, but there is no {CONFIG} in "
            f"{str(folder)!r}"
        )
    return config


# ---- metrics.jsonl ---------------------------------------------------------------


def lines_up_to(folder: Path, step: int) -> list[str]:
    """The complete lines of steps up to ``step``; a line cut by a crash is dropped."""
    path = folder / METRICS
    if not path.exists() or step == 0:
        return []
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step and line.endswith("\n"):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept


def last_step(folder: Path) -> int | None:
    """The step of the last line; None where there is none, or half of one."""
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            return json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return None


def read_lines(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Reads the metrics over training.

    Args:
        folder: of a run.

    Returns:
        The lines that can be read, by step; and the reason where some cannot, else
        empty.
    """
    try:
        texts = (folder / METRICS).read_bytes().splitlines()
    except FileNotFoundError:
        return [], f"{METRICS} is missing"
    except OSError as error:
        return [], f"{METRICS} cannot be read: {error.strerror}"
    lines = [line for text in texts if (line := _line(text)) is not None]
    num_bad = len(texts) - len(lines)
    problem = f"{METRICS}: {num_bad} of {len(texts)} lines are unreadable"
    return sorted(lines, key=lambda line: line["step"]), problem if num_bad else ""


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    step = as_number(line.get("step")) if isinstance(line, dict) else None
    if step is None or not abs(step) < 2**53:  # not finite, or no whole number
        return None
    return line | {"step": int(step)}


# ---- the end of a run ------------------------------------------------------------


def finished_result(folder: Path, step: int) -> dict[str, Any] | None:
    """The content of `RESULT` if it is that of a step; else None."""
    result = readable_object(folder / RESULT)
    return result if result.get("step") == step else None


def is_finished(result: Mapping[str, Any], num_steps: int) -> bool:
    """Whether a result is that of a whole run: all steps done, or ended early."""
    step = as_number(result.get("step"))
    early = as_number(result.get("stopped_step"))
    return step is not None and (step >= num_steps or step == early)


def clear_failure(folder: Path) -> None:
    """Removes the reason of an earlier failure."""
    (folder / FAILURE).unlink(missing_ok=True)


def write_failure(folder: Path, reason: str) -> None:
    """Writes why the run has failed."""
    write_object(folder / FAILURE, {"reason": reason})


def failure_reason(content: Mapping[str, Any] | None) -> str | None:
    """Why the run has failed, by the content of `FAILURE`; None: it has not."""
    if content is None:
        return None
    return str(content.get("reason", "reason not written"))


def evaluation_files(folder: Path) -> list[Path]:
    """The file of `experiments.evaluate`, and those that a user named after it."""
    return sorted(folder.glob("evaluation*.json"))


# ---- pictures --------------------------------------------------------------------


def is_sample(title: str) -> bool:
    """Whether the title of images says that a model has sampled or decoded them."""
    return title.startswith(("sampled", "dec"))


def sharpened_title(title: str, sharpness: float) -> str:
    """The title of such images where the weights of all sums are to a power."""
    return f"{title}{_SHARPENED}{sharpness:g}"


def is_sharpened(title: str) -> bool:
    """Whether the title of images says that they are of a sharper circuit."""
    return _SHARPENED in title


_SHARPENED = ", sharpness "


def sample_path(folder: Path, kind: str, step: int) -> Path:
    """The picture of one kind after a step."""
    return folder / SAMPLES / f"{kind}_{step:07d}.png"


def newest_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of evaluations, and the newest of each kind in `SAMPLES`."""
    evaluations = {path.stem: path for path in sorted(folder.glob("evaluation*.png"))}
    newest: dict[str, tuple[int, Path]] = {}
    for path in (folder / SAMPLES).glob("*.png"):
        match = re.fullmatch(r"([^.].*?)(?:_(\d{1,12}))?\.png", path.name)
        if match:
            step = int(match[2] or 0)
            if step >= newest.get(match[1], (-1, path))[0]:
                newest[match[1]] = step, path
    return evaluations | {kind: path for kind, (_, path) in sorted(newest.items())}
