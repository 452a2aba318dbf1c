"""When and how a run saves its state."""

import time

import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console.errors import RunFailed
from experiments.engine.best import Best, Progress
from experiments.engine.checkpointing import Checkpoints
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings


class Saver:
    """Saves states, unless they are broken.

    Attributes:
        step: of the newest checkpoint; None: there is none.
    """

    def __init__(self, checkpoints: Checkpoints, loop: DeviceLoop, settings: Settings):
        """Continues after the newest checkpoint."""
        self._checkpoints, self._loop, self._settings = checkpoints, loop, settings
        self.step = checkpoints.latest_step()
        self._time = time.monotonic()

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is older than ``--checkpoint_minutes``."""
        most = 60 * self._settings.checkpoint_minutes
        return most > 0 and time.monotonic() - self._time >= most

    def save(self, carry: Carry, best: Best | None, num_closed: int, step: int) -> None:
        """Saves and waits for the disk.

        Args:
            carry: after ``step``.
            best: the best state, where it is kept.
            num_closed: closing steps among the steps.
            step: all steps done.

        Raises:
            RunFailed: the state is broken in a way that no metric has shown yet.
        """
        broken = self._loop.seeds_with_nan(carry)
        if broken:
            raise RunFailed(
                f"the state is nan after step {step} (seed {broken[0]}); {self.kept()}"
            )
        closed = closed_steps(self._settings, num_closed)
        self._checkpoints.save(step, Progress(*carry, best, closed))
        self.step, self._time = step, time.monotonic()

    def kept(self) -> str:
        """Which checkpoint there is, in words."""
        if self.step is None:
            return "no checkpoint had been written"
        return f"the checkpoint of step {self.step} is kept"


def closed_steps(settings: Settings, num: int) -> np.ndarray | None:
    """`Progress.num_closed`."""
    return np.array(num, np.int64) if settings.em_closing_steps else None
