"""A clock beside the work: what is said while one long call keeps a program busy."""

from collections.abc import Callable
import threading
from types import TracebackType
from typing import Self


class Ticker:
    """Calls a function every second from a thread of its own, while entered."""

    def __init__(self, tick: Callable[[], None], seconds: float = 1.0):
        """Of what to call, and how often."""
        self._tick, self._seconds = tick, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, error, traceback
        self.close()

    def close(self) -> None:
        """Ends the thread; nothing is called after this returns."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self._tick()
