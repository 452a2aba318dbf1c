"""A trained run, read back from its folder: flags, data set, system, states."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from experiments import data
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import checkpointing, flags, run_folder
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.system import System
from experiments.measuring.programs import PROGRAMS


class Trained(NamedTuple):
    """A run as its newest checkpoint has it: the best states, where it keeps them.

    Attributes:
        program: the program's name, e.g. ``ll``.
        groups: its flags, one instance a group, `flags.Settings` first.
        dataset: the images it was trained on.
        system: the functions that were trained.
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


def load(
    workdir: str | Path,
    flag: str,
    data_dir: str | None = None,
    sharpness: float | None = None,
) -> Trained:
    """Reads a run back.

    Args:
        workdir: the run's folder.
        flag: the flag that named it, for errors.
        data_dir: folder of the data set's files, if not that of the run.
        sharpness: of its samples, if not that of the run.

    Returns:
        The run.

    Raises:
        UserError: the folder holds no run, no checkpoint, or a damaged one.
    """
    folder = Path(workdir)
    config = run_folder.named_config(folder, flag)
    program = PROGRAMS.get(config.program)
    if program is None:
        raise UserError(
            f"--{flag} must be a run of {', '.join(PROGRAMS)}, got one of "
            f"{config.program!r}"
        )
    others = {"data_dir": data_dir, "sharpness": sharpness}
    values = config.flags | {k: v for k, v in others.items() if v is not None}
    groups = [flags.from_values(group, values) for group in program.groups]
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
    stored = checkpointing.read_newest(folder, flag)
    states = stored.part(loop.abstract_state(), stored.outcome)
    return Trained(
        program=config.program,
        groups=groups,
        dataset=dataset,
        system=system,
        loop=loop,
        states=states,
        seeds=settings.seeds,
        step=stored.step,
    )
