"""Checkpoints of any pytree of arrays of numbers (not of typed keys), by Orbax.

A checkpoint is written to a temporary folder and renamed when it is complete, so a
process that dies while writing leaves the ones before it as they were.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.console.errors import UserError
from experiments.engine.run_folder import CHECKPOINTS


class OtherState(UserError):
    """A checkpoint holds another state than the one that is asked for."""


class Stored(NamedTuple):
    """The arrays of a checkpoint.

    Attributes:
        path: of its folder.
        step: after which it was saved.
        arrays: by the path of the leaf in the state; those with elements.
    """

    path: Path
    step: int
    arrays: Mapping[str, np.ndarray]

    @property
    def outcome(self) -> str:
        """The path of the state that the run stands for: the best, where it is kept."""
        return ".best.state" if ".best.step" in self.arrays else ".state"

    def part(self, target: Any, prefix: str = "") -> Any:
        """A part of the state.

        Args:
            target: the abstract part (`jax.eval_shape` of the function that makes it).
            prefix: its path in the state (``.state``); empty: all of it.

        Returns:
            The part, NumPy arrays.

        Raises:
            OtherState: the checkpoint holds another state; one line.
        """
        wanted = _stored_leaves(target, prefix)
        stored = {k: v for k, v in self.arrays.items() if k.startswith(prefix)}
        for name in sorted(set(wanted) | set(stored)):
            want, got = (
                f"{tree[name].dtype}{tree[name].shape}" if name in tree else "absent"
                for tree in (wanted, stored)
            )
            if want != got:
                raise OtherState(
                    f"the checkpoint {self.path} holds another state: {name} must be "
                    f"{want}, got {got}"
                )
        return jax.tree.map_with_path(
            lambda path, leaf: stored.get(
                prefix + jax.tree_util.keystr(path), np.empty(leaf.shape, leaf.dtype)
            ),
            target,
        )


class Checkpoints:
    """The checkpoints of one run, ``checkpoints/STEP/``; the newest few are kept.

    Stored is the flat mapping of each leaf's path to its array; arrays without elements
    are left out (Orbax refuses them) and made anew.
    """

    def __init__(self, folder: Path, max_to_keep: int = 2, *, read_only: bool = False):
        """Opens the checkpoints of a run.

        Args:
            folder: of the run.
            max_to_keep: the newest so many are kept.
            read_only: nothing is made, and nothing of another process removed.
        """
        self._folder = (folder / CHECKPOINTS).absolute()  # Orbax refuses relative paths
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                create=not read_only,
                # Of a process that died while writing, or is writing now.
                cleanup_tmp_directories=not read_only,
                # The state is donated to the next step, so it must be on disk before.
                enable_async_checkpointing=False,
            ),
        )

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None without any."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Writes ``state`` as the checkpoint of ``step`` and waits for the disk."""
        arrays = {name: np.array(leaf) for name, leaf in _stored_leaves(state).items()}
        self._manager.save(step, args=ocp.args.StandardSave(arrays))
        self._manager.wait_until_finished()

    def read(self, step: int) -> Stored:
        """Reads a checkpoint.

        Args:
            step: one that was saved.

        Returns:
            Its arrays.

        Raises:
            UserError: the checkpoint is damaged; one line.
        """
        path = self._folder / str(step)
        try:
            # Without a target: with one, Orbax cuts or pads arrays to the shapes asked.
            arrays = self._manager.restore(step, args=ocp.args.StandardRestore())
        except Exception as error:  # Orbax and TensorStore raise many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"the checkpoint {path} cannot be read ({lines[0][:200]}); remove it "
                "to continue from the one before"
            ) from error
        return Stored(path, step, arrays)

    def restore(self, step: int, target: Any) -> Any:
        """Reads a whole state.

        Args:
            step: one that was saved.
            target: the abstract state (`jax.eval_shape` of the function that makes it).

        Returns:
            The state, NumPy arrays.

        Raises:
            UserError: the checkpoint is damaged, or holds another state; one line.
        """
        return self.read(step).part(target)

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


def read_newest(folder: Path, flag: str) -> Stored:
    """Reads the newest checkpoint of a run that a flag names.

    Args:
        folder: the value of the flag.
        flag: its name, for errors.

    Returns:
        The checkpoint.

    Raises:
        UserError: there is none, or it is damaged; one line.
    """
    missing = UserError(f"--{flag} must hold a checkpoint, got {str(folder)!r}")
    if not (folder / CHECKPOINTS).is_dir():
        raise missing
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = checkpoints.latest_step()
        if step is None:
            raise missing
        return checkpoints.read(step)
    finally:
        checkpoints.close()


def _stored_leaves(state: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves that have elements, by their paths."""
    return {
        prefix + jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(state)
        if leaf.size
    }
