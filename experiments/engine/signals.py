"""Signals that ask a run to end: remembered, so that it saves its state first."""

import signal
import threading
from typing import Any


class Signals:
    """Remembers the first SIGTERM or SIGINT; a second one acts as without us.

    Attributes:
        received: its number, None as long as there is none.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
