"""A run that starts from another run's circuit: ``--start_from``."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments import trained
from experiments.device_loop import Carry
from experiments.errors import UserError
from experiments.flags import Settings

# Flags that make the circuit and the units of its data.
_SHAPING = (
    *("dataset", "image_size", "image_mode", "image_resize"),
    *("structure", "depth", "num_repetitions", "structure_seed"),
    *("num_sums", "num_leaves", "num_classes", "labels", "sum_layer", "leaf"),
    *("leaf_min_scale", "leaf_max_scale"),
)


def started(carry: Carry, settings: Settings) -> Carry:
    """Puts the circuits of the run ``--start_from`` into a new run's first state.

    Seed by seed; optimizers and whatever is trained against the circuit start anew.

    Args:
        carry: the first state, every array leading with S seeds.
        settings: the shared flags; ``start_from`` is the folder of a run.

    Returns:
        The carry, NumPy arrays where the circuit's parameters are.

    Raises:
        UserError: the other run trained another circuit, or lacks a seed.
    """
    assert settings.start_from is not None
    source = trained.load(settings.start_from, "start_from", settings.data_dir)
    theirs: Settings = source.groups[0]
    for name in _SHAPING:
        there, now = getattr(theirs, name), getattr(settings, name)
        if there != now:
            raise UserError(
                f"--{name} must be that of --start_from, {there!r}, got {now!r}"
            )
    wanted = range(settings.seed, settings.seed + settings.num_seeds)
    missing = [seed for seed in wanted if seed not in source.seeds]
    if missing:
        raise UserError(
            f"--start_from must hold the seeds {list(wanted)}, got {source.seeds}"
        )
    places = np.array([source.seeds.index(seed) for seed in wanted])
    given = jax.tree.map(lambda leaf: leaf[places], _circuit(source.carry.state))
    own = _circuit(carry.state)
    shapes = [jax.tree.map(np.shape, tree) for tree in (own, given)]
    if own is None or shapes[0] != shapes[1]:
        raise UserError(
            "--start_from must be a run whose circuit is that of this program, got "
            f"a run of {source.program!r}"
        )
    params = carry.state.params
    is_part = isinstance(params, Mapping)
    params = {**params, "circuit": given} if is_part else given
    return carry._replace(state=carry.state._replace(params=params))


def _circuit(state: Any) -> Any:
    """The circuit's parameters in a program's state."""
    params = state.params
    return params.get("circuit") if isinstance(params, Mapping) else params
