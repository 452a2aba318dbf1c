"""Signals that ask a run to end: remembered, so that it saves its state first."""

from collections.abc import Callable
import os
import signal
import sys
import threading
from typing import Any

_SECONDS = 8.0  # that a long step, or the compiler, may go on
_STOPS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Remembers the first SIGTERM or SIGINT; a second one acts as without us.

    Python's own handlers wait until a call into the compiler, or a step, returns, which
    may take minutes. A thread hears of a signal at once; if nobody has asked for
    `received` some seconds later, it ends the process, which continues from its newest
    checkpoint another time.
    """

    def __init__(
        self, seconds: float = _SECONDS, last_words: Callable[[], str] = lambda: ""
    ):
        """Of how long the run may go on, and of what is said if it is ended then."""
        self._seconds, self._last_words = seconds, last_words
        self._received: int | None = None
        self._seen = threading.Event()
        self._before: dict[int, Any] = {}
        self._wakeup: tuple[int, int] | None = None

    @property
    def received(self) -> int | None:
        """The number of the signal, None as long as there is none.

        Who gets a number takes the time that it needs to end.
        """
        if self._received is not None:
            self._seen.set()
        return self._received

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
            self._wakeup = writing, int(before)
            threading.Thread(target=self._listen, args=(reading,), daemon=True).start()
            for number in _STOPS:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._seen.set()
        self._restore()
        if self._wakeup is not None:
            writing, before = self._wakeup
            signal.set_wakeup_fd(before)
            os.close(writing)  # which ends the thread
            self._wakeup = None

    def _listen(self, reading: int) -> None:
        """Reads the numbers of signals as they come, until the pipe is closed."""
        with open(reading, "rb", buffering=0) as pipe:
            while numbers := pipe.read(1):
                if numbers[0] in _STOPS:
                    if not self._seen.wait(self._seconds):
                        self._end(numbers[0])
                    return

    def _end(self, number: int) -> None:
        """Ends the process, whatever it does."""
        if words := self._last_words():
            sys.stderr.write(words + "\n")
        sys.stderr.flush()
        os._exit(128 + number)

    def _remember(self, number: int, frame: Any) -> None:
        del frame
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
