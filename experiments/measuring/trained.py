"""A trained run, read back from its folder: flags, data set, system, states."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from experiments import data
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.checkpointing import Checkpoints
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.system import System

if TYPE_CHECKING:  # program imports training, and that `starting`, which imports this
    from experiments.engine.program import Program

# Only these are ever imported because of what a file says.
PROGRAMS = ("ll", "mmd", "adv", "pae", "gan", "mmd_gan", "vae", "classifier", "ade")


class Trained(NamedTuple):
    """A run as its newest checkpoint has it.

    Attributes:
        program: the program's name, e.g. ``ll``.
        groups: its flags, one instance a group, `flags.Settings` first.
        dataset: the images it was trained on.
        system: what was trained.
        loop: bound to the system and the images; nothing is on the devices yet.
        states: of the newest checkpoint; every array leads with S seeds.
        seeds: their numbers.
        step: of the checkpoint.
    """

    program: str
    groups: list[Any]
    dataset: Dataset
    system: System
    loop: DeviceLoop
    states: Any
    seeds: list[int]
    step: int

    def state(self, place: int) -> Any:
        """The state of one seed, by its place in ``seeds``."""
        return jax.tree.map(lambda leaf: leaf[place], self.states)


def load(workdir: str | Path, flag: str, data_dir: str | None = None) -> Trained:
    """Reads a run back.

    Args:
        workdir: the run's folder.
        flag: the flag that named it, for errors.
        data_dir: folder of the data set's files, if not that of the run.

    Returns:
        The run.

    Raises:
        UserError: the folder holds no run, no checkpoint, or a damaged one.
    """
    folder = Path(workdir)
    name, stored = read_config(folder, flag)
    program: Program = importlib.import_module(f"experiments.{name}").PROGRAM
    if data_dir is not None:
        stored["data_dir"] = data_dir
    groups: list[Any] = [_group(group, stored) for group in program.groups]
    settings = groups[0]
    dataset = data.load(settings.dataset, settings.data_dir, settings.data_options())
    system = program.make_system(*groups, dataset=dataset)
    loop = DeviceLoop(
        system,
        dataset,
        settings.seed,
        settings.num_seeds,
        settings.batch_size,
        Mesh(np.array(jax.devices()[:1]), ("batch",)),
        resident_bytes=2**62,  # none are moved: nothing is trained
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        step = checkpoints.latest_step()
        if step is None:
            raise UserError(f"--{flag} must hold a checkpoint, got {str(folder)!r}")
        states = checkpoints.restore(step, loop.abstract_state(), ".state")
    finally:
        checkpoints.close()
    seeds = list(range(settings.seed, settings.seed + settings.num_seeds))
    return Trained(name, groups, dataset, system, loop, states, seeds, step)


def read_config(folder: Path, flag: str) -> tuple[str, dict[str, Any]]:
    """The program and the flags of a run, from its ``config.json``.

    Args:
        folder: the run's folder.
        flag: the flag that named it, for errors.

    Returns:
        Name of the program without ``experiments.``, and its flags by name.

    Raises:
        UserError: no such file, or not the configuration of a known program.
    """
    try:
        stored = json.loads((folder / "config.json").read_text())
        name, values = stored["program"], dict(stored["flags"])
    except FileNotFoundError:
        raise UserError(
            f"--{flag} must be the folder of a run, but there is no config.json in "
            f"{str(folder)!r}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / 'config.json'} is not the configuration of a run"
        ) from None
    name = str(name).removeprefix("experiments.")
    if name not in PROGRAMS:
        raise UserError(
            f"--{flag} must be a run of {', '.join(PROGRAMS)}, got one of {name!r}"
        )
    return name, values


def _group(group: type, stored: dict[str, Any]) -> Any:
    """The flags of one group; those younger than the run have their defaults."""
    fields = {field.name for field in dataclasses.fields(group)}
    return group(**{k: v for k, v in stored.items() if k in fields})
