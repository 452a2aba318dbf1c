"""A run that starts from another run's circuit: ``--start_from``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console.errors import UserError
from experiments.engine import checkpointing, flags, run_folder
from experiments.engine.checkpointing import OtherState, Stored
from experiments.engine.flags import Settings

_OF_DATA = "train_fraction"  # the flag that shapes what is learned from the data
_FLOW = "flow"  # the flag, and the parameters, of the flow before a circuit


def started(carry: Carry, groups: Sequence[Any]) -> Carry:
    """Puts the circuits of the run ``--start_from`` into a new run's first state.

    Seed by seed; optimizers and whatever is trained against the circuit start anew. Of
    a density behind a flow it is all of it. From the other run are read its
    configuration and the arrays of its newest checkpoint, neither program nor data.

    Args:
        carry: the first state, every array leading with S seeds.
        groups: the flags, `Settings` first; ``start_from`` is the folder of a run.

    Returns:
        The carry, NumPy arrays where the circuit's parameters are.

    Raises:
        UserError: the folder holds no run or no whole checkpoint, or the run trained
            another circuit or lacks a seed.
    """
    settings: Settings = groups[0]
    assert settings.start_from is not None
    folder = Path(settings.start_from)
    config = run_folder.named_config(folder, "start_from")
    parts = _passed_on(carry.state.params)
    other_circuit = UserError(
        "--start_from must be a run whose circuit is that of this program, got a run "
        f"of {config.program!r}"
    )
    # A flow without parameters leaves no trace among the arrays.
    if not parts or (_FLOW in config.flags) != (_FLOW in parts):
        raise other_circuit
    _check_flags(groups, config.flags)
    source = flags.from_values(Settings, config.flags)
    rows = _rows(settings, source)
    stored = checkpointing.read_newest(folder, "start_from")
    try:
        parts = _read(stored, parts, source.num_seeds)
    except OtherState as error:
        raise other_circuit from error
    params = carry.state.params | jax.tree.map(lambda leaf: leaf[rows], parts)
    return carry._replace(state=carry.state._replace(params=params))


def _passed_on(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that pass from run to run: a circuit, or all of a density."""
    if _FLOW in params:
        return {name: part for name, part in params.items() if name != "temperature"}
    return {name: part for name, part in params.items() if name == "circuit"}


def _check_flags(groups: Sequence[Any], source: Mapping[str, Any]) -> None:
    """Refuses a run whose circuit, or the flow before it, is of another shape."""
    values = flags.by_name(groups)
    learned = values["structure"] == "hidden_chow_liu"
    for field in flags.fields_of(groups):
        value, needed = values[field.name], source.get(field.name, field.default)
        shapes = field.metadata["shapes"] or (learned and field.name == _OF_DATA)
        if shapes and value != needed:
            raise UserError(
                f"--{field.name} must be that of --start_from, {needed!r}, got "
                f"{value!r}"
            )


def _rows(settings: Settings, source: Settings) -> np.ndarray:
    """Where the seeds of this run are among those of the other."""
    if not set(settings.seeds) <= set(source.seeds):
        raise UserError(
            f"--start_from must hold the seeds {settings.seeds}, got {source.seeds}"
        )
    return np.array([source.seeds.index(seed) for seed in settings.seeds])


def _read(stored: Stored, parts: Mapping[str, Any], num_seeds: int) -> dict[str, Any]:
    """Stored parameters of the same shapes, for as many seeds as there are."""
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((num_seeds, *leaf.shape[1:]), leaf.dtype),
        parts,
    )
    return {
        name: stored.part(part, f"{stored.outcome}.params[{name!r}]")
        for name, part in target.items()
    }
