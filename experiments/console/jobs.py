"""Which of many jobs runs: a bar on a terminal, elsewhere lines."""

from collections.abc import Callable, Iterator
import contextlib
import sys
import threading
import time

import tqdm

from experiments.console.ticker import ticking

_MOST_SECONDS = 60.0  # between lines


class Jobs:
    """Jobs one after the other, and the time that is left, on stderr.

    The time left is that of as many mean jobs of this session as are left.
    """

    def __init__(self, name: str, total: int, to_run: int):
        """Begins before the first of ``total`` jobs, ``to_run`` of them to be run.

        Args:
            name: of the program.
            total: jobs.
            to_run: those that are not finished from an earlier session.
        """
        self._total, self._to_run = total, to_run
        self._number, self._label = 0, ""
        self._start, self._line_time = 0.0, 0.0
        self._num_ran, self._seconds = 0, 0.0
        self._progress: Callable[[], str] = str
        self._lock = threading.RLock()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, desc=name, unit="job")

    def passed(self) -> None:
        """Counts a job that is not run."""
        self._number += 1
        if self._bar is not None:
            self._bar.update()

    @contextlib.contextmanager
    def running(
        self, label: str, progress: Callable[[], str] = str
    ) -> Iterator[Callable[[str], None]]:
        """A job that is run inside.

        Args:
            label: of the job.
            progress: how far it is, in words; asked now and then.

        Yields:
            A function that writes a line about its outcome.
        """
        with self._lock:
            self._number += 1
            self._label, self._progress = label, progress
            self._start = self._line_time = time.perf_counter()
            self._write("started")
        try:
            with ticking(self.tick):
                yield self._write
        finally:
            with self._lock:
                self._num_ran += 1
                self._seconds += time.perf_counter() - self._start
                self._label, self._progress = "", str
        if self._bar is not None:
            self._bar.update()

    def tick(self) -> None:
        """Looks whether a line is due; called every second."""
        with self._lock:
            now = time.perf_counter()
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self._label} {self._progress()}".rstrip())
            elif now - self._line_time >= _MOST_SECONDS:
                lasts = tqdm.tqdm.format_interval(now - self._start)
                self._write(f"{self._progress() or 'running'}, {lasts} so far")

    def close(self) -> None:
        """Leaves the terminal to others."""
        if self._bar is not None:
            self._bar.close()

    def _write(self, words: str) -> None:
        """Writes a line about the job that runs, where there is no bar."""
        with self._lock:
            now = time.perf_counter()
            self._line_time = now
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self._label}: {words}")
                return
            sys.stderr.write(
                f"[{self._number}/{self._total}] {self._label}: {words}"
                f"{self._left(now)}\n"
            )
            sys.stderr.flush()

    def _left(self, now: float) -> str:
        """The time that is left, after the first job that was run."""
        if not self._num_ran:
            return ""
        mean = self._seconds / self._num_ran
        left = (self._to_run - self._num_ran) * mean - (now - self._start)
        return f", about {tqdm.tqdm.format_interval(max(left, 0.0))} left"
