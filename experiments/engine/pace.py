"""How many steps run before the host may look again: a chunk of even time."""

from collections.abc import Iterator
import contextlib
import time

import numpy as np

_CHUNK_SECONDS = 0.5  # how long a signal or the progress bar may have to wait
# Each chunk asks the system for its memory anew, which takes as long as a third of a
# large step: long steps come in fours, if these end soon.
_LEAST_STEPS = 4
_MOST_SECONDS = 10.0


class Pace:
    """Chooses the next chunk by the time of the last, and knows the rate.

    Attributes:
        steps: of the next chunk.
    """

    def __init__(self, max_steps: int):
        self.steps, self._max = 1, max_steps
        self._compiled, self._done, self._seconds = False, 0, 0.0

    @contextlib.contextmanager
    def measure(self, num: int) -> Iterator[None]:
        """Takes the time of a chunk of ``num`` steps, which runs inside."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        if not self._compiled:  # the first chunk's time is the compiler's
            self._compiled = True
            return
        self._done, self._seconds = self._done + num, self._seconds + seconds
        wanted = _CHUNK_SECONDS * num / max(seconds, 1e-9)
        least = min(_LEAST_STEPS, _MOST_SECONDS * num / max(seconds, 1e-9))
        wanted = max(wanted, least)
        self.steps = int(np.clip(wanted, 1, min(self._max, 4 * self.steps)))

    @property
    def rate(self) -> float | None:
        """Steps a second after the first chunk; None if there were none."""
        return self._done / self._seconds if self._done else None
