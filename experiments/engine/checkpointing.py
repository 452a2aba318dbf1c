"""Checkpoints of any pytree of arrays of numbers (not of typed keys), by Orbax.

A checkpoint is written to a temporary folder and renamed when it is complete, so a
process that dies while writing leaves the ones before it as they were.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.console.errors import UserError


class Checkpoints:
    """The checkpoints of one run, ``<folder>/<step>/``; the newest few are kept.

    Stored is the flat mapping of each leaf's path to its array; arrays without elements
    are left out (Orbax refuses them) and made anew.
    """

    def __init__(self, folder: Path, max_to_keep: int = 2):
        self._folder = folder.absolute()  # Orbax refuses relative paths
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                cleanup_tmp_directories=True,  # of a process that died while writing
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

    def restore(self, step: int, target: Any, part: str = "") -> Any:
        """Reads a checkpoint.

        Args:
            step: one that was saved.
            target: the abstract state (`jax.eval_shape` of the function that makes it).
            part: the path of the target in what was saved (``.state``); all of it.

        Returns:
            The state, NumPy arrays.

        Raises:
            UserError: the checkpoint is damaged, or holds another state; one line.
        """
        where, wanted = self._folder / str(step), _stored_leaves(target, part)
        try:
            # Without a target: with one, Orbax cuts or pads arrays to the shapes asked.
            stored = self._manager.restore(step, args=ocp.args.StandardRestore())
        except Exception as error:  # Orbax and TensorStore raise many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"the checkpoint {where} cannot be read ({lines[0][:200]}); remove it "
                "to continue from the one before"
            ) from error
        stored = {k: v for k, v in stored.items() if k.startswith(part)}
        for name in sorted(set(wanted) | set(stored)):
            want, got = (
                f"{tree[name].dtype}{tree[name].shape}" if name in tree else "absent"
                for tree in (wanted, stored)
            )
            if want != got:
                raise UserError(
                    f"the checkpoint {where} holds another state: {name} must be "
                    f"{want}, got {got}"
                )
        return jax.tree.map_with_path(
            lambda path, leaf: stored.get(
                part + jax.tree_util.keystr(path), np.empty(leaf.shape, leaf.dtype)
            ),
            target,
        )

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


def _stored_leaves(state: Any, part: str = "") -> dict[str, Any]:
    """The leaves that have elements, by their paths."""
    return {
        part + jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(state)
        if leaf.size
    }
