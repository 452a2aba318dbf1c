"""A run that starts from another run's circuit: ``--start_from``."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.engine.system import Carry
from experiments.measuring import trained
from experiments.models.density_settings import DensitySettings

# Flags that make the circuit, what it stands behind, and the units of its data.
_SHAPING = (
    *("dataset", "image_size", "image_mode", "image_resize"),
    *("structure", "depth", "num_repetitions", "structure_seed"),
    *("num_sums", "num_leaves", "num_classes", "labels", "sum_layer", "leaf"),
    *("leaf_min_scale", "leaf_max_scale"),
    *(
        field.name
        for field in dataclasses.fields(DensitySettings)
        if field.name != "density_output"  # what a loss sees shapes nothing
    ),
)


def started(carry: Carry, groups: Sequence[Any]) -> Carry:
    """Puts the circuits of the run ``--start_from`` into a new run's first state.

    Seed by seed; optimizers and whatever is trained against the circuit start anew. Of
    `experiments.ade` it is the whole density, with its flow.

    Args:
        carry: the first state, every array leading with S seeds.
        groups: the flags, `Settings` first; ``start_from`` is the folder of a run.

    Returns:
        The carry, NumPy arrays where the circuit's parameters are.

    Raises:
        UserError: the other run trained another circuit, or lacks a seed.
    """
    settings: Settings = groups[0]
    assert settings.start_from is not None
    source = trained.load(settings.start_from, "start_from", settings.data_dir)
    theirs, ours = _flags(source.groups), _flags(groups)
    for name in _SHAPING:
        if name in theirs and name in ours and theirs[name] != ours[name]:
            raise UserError(
                f"--{name} must be that of --start_from, {theirs[name]!r}, got "
                f"{ours[name]!r}"
            )
    wanted = range(settings.seed, settings.seed + settings.num_seeds)
    missing = [seed for seed in wanted if seed not in source.seeds]
    if missing:
        raise UserError(
            f"--start_from must hold the seeds {list(wanted)}, got {source.seeds}"
        )
    places = np.array([source.seeds.index(seed) for seed in wanted])
    given = jax.tree.map(lambda leaf: leaf[places], _handed(source.states))
    own = _handed(carry.state)
    shapes = [jax.tree.map(np.shape, tree) for tree in (own, given)]
    if not own or shapes[0] != shapes[1]:
        raise UserError(
            "--start_from must be a run whose circuit is that of this program, got "
            f"a run of {source.program!r}"
        )
    params = carry.state.params
    is_part = isinstance(params, Mapping)
    params = {**params, **given} if is_part else given["circuit"]
    return carry._replace(state=carry.state._replace(params=params))


def _flags(groups: Sequence[Any]) -> dict[str, Any]:
    return {name: v for of in groups for name, v in dataclasses.asdict(of).items()}


def _handed(state: Any) -> dict[str, Any]:
    """What passes from run to run: a circuit, or a whole density behind a flow."""
    params = state.params
    if not isinstance(params, Mapping):
        return {"circuit": params}
    if "flow" in params:
        return {name: of for name, of in params.items() if name != "temperature"}
    return {name: of for name, of in params.items() if name == "circuit"}
