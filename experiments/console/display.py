"""How far a run is: a bar on a terminal, elsewhere a line now and then."""

from collections.abc import Mapping
import sys
import time
from types import TracebackType
from typing import Self

import tqdm

_SECONDS = 30.0  # between lines


class Display:
    """Steps done, their rate, and the time that is left, on stderr."""

    def __init__(self, name: str, done: int, total: int):
        """Begins with ``done`` of ``total`` steps."""
        self._name, self._done, self._total = name, done, total
        self._facts = ""
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, initial=done, desc=name, unit="step")
        self._last_time, self._last_done = time.perf_counter(), done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, error, traceback
        if self._bar is not None:
            self._bar.close()

    def advance(self, steps: int) -> None:
        """Counts steps."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
            return
        now = time.perf_counter()
        if now - self._last_time < _SECONDS or self._done == self._total:
            return
        rate = (self._done - self._last_done) / (now - self._last_time)
        self._last_time, self._last_done = now, self._done
        left = tqdm.tqdm.format_interval((self._total - self._done) / rate)
        sys.stderr.write(
            f"{self._name}: step {self._done} of {self._total}, {rate:.3g} steps/s, "
            f"{left} left{self._facts}\n"
        )
        sys.stderr.flush()

    def show(self, facts: Mapping[str, float]) -> None:
        """Shows numbers beside the steps."""
        words = {name: f"{value:.4g}" for name, value in facts.items()}
        self._facts = "".join(f", {name} {value}" for name, value in words.items())
        if self._bar is not None:
            self._bar.set_postfix(words)
