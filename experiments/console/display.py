"""How far a run is: a bar on a terminal, elsewhere lines."""

from collections.abc import Iterator, Mapping
import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

import tqdm

from experiments.console.ticker import ticking

_SECONDS = 30.0  # between lines while there are steps
_MOST_SECONDS = 60.0  # between lines, whatever the program does
_PATIENCE = 2.0  # seconds of evaluating, drawing, ... before that is said


class _Activity(NamedTuple):
    """What the program does between steps, and since when."""

    what: str
    since: float


class Display:
    """Steps done, their rate, and the time that is left, on stderr.

    A line comes at every evaluation, every 30 seconds while there are steps, and every
    minute whatever happens. The first steps, the first evaluation and the like are
    compiled, so no time left is computed from them.
    """

    def __init__(
        self, name: str, done: int, total: int, units: Mapping[str, str] | None = None
    ):
        """Begins with ``done`` of ``total`` steps.

        Args:
            name: of the program.
            done: steps.
            total: steps.
            units: the metrics of steps that are shown, with their units; None: all.
        """
        self._name, self._done, self._total, self._units = name, done, total, units
        self._facts, self._validation = "", ""
        self._lock = threading.RLock()
        self._activity: _Activity | None = None
        self._is_said = True
        self._compiled = False
        self._done_before: set[str] = set()
        now = time.perf_counter()
        self._line_time, self._mark = now, now
        # Since the last line with a rate: steps, their seconds, all others.
        self._steps, self._seconds, self._others = 0, 0.0, 0.0
        self._rate, self._per_step = "", 0.0
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, initial=done, desc=name, unit="step")
        self._clock = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._clock.enter_context(ticking(self.tick))
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
        """Leaves the terminal to others."""
        self._clock.close()
        if self._bar is not None:
            self._bar.close()

    # ---- what happens --------------------------------------------------------------

    @contextlib.contextmanager
    def steps(self, num: int) -> Iterator[None]:
        """Steps that are done inside; the first ones are compiled there, too."""
        with contextlib.nullcontext() if self._compiled else self.doing("compiling"):
            yield
        self.advance(num)

    def advance(self, steps: int) -> None:
        """Counts steps."""
        with self._lock:
            now = time.perf_counter()
            self._done += steps
            if self._compiled:
                self._steps += steps
                self._seconds += now - self._mark
            elif self._bar is not None:
                self._bar.unpause()  # nor does the bar count the compiler's time
                self._bar.initial = self._done
            self._compiled, self._mark = True, now
            if self._bar is not None:
                self._bar.update(steps)
            elif now - self._line_time >= _SECONDS and self._done < self._total:
                self._write(now)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Something that is done inside, and that may take long."""
        with self._lock:
            before = self._activity
            self._activity = _Activity(what, time.perf_counter())
            self._is_said = False
            self._refresh()
        try:
            yield
        finally:
            with self._lock:
                now = time.perf_counter()
                if what in self._done_before:
                    self._others += now - self._mark
                self._done_before.add(what)
                self._mark, self._activity = now, before
                self._refresh()

    def show(self, facts: Mapping[str, float]) -> None:
        """Shows numbers beside the steps."""
        with self._lock:
            units = dict.fromkeys(facts, "") if self._units is None else self._units
            texts = [
                f"{name} {facts[name]:.4g}{unit and f' [{unit}]'}"
                for name, unit in units.items()
                if name in facts
            ]
            self._facts = ", ".join(texts)
            self._refresh()

    def evaluated(self, validation: str) -> None:
        """Shows the outcome of an evaluation, elsewhere than on a terminal at once."""
        with self._lock:
            self._validation = validation
            self._refresh()
            if self._bar is None:
                self._write(time.perf_counter())

    def tick(self) -> None:
        """Looks whether a line is due; called every second."""
        with self._lock:
            if self._bar is not None:
                return
            now = time.perf_counter()
            lasts = 0.0 if self._activity is None else now - self._activity.since
            is_unsaid = lasts >= _PATIENCE and not self._is_said
            if is_unsaid or now - self._line_time >= _MOST_SECONDS:
                self._write(now)

    # ---- lines ---------------------------------------------------------------------

    def _refresh(self) -> None:
        """Writes the words behind the bar, where there is one."""
        if self._bar is not None:
            what = "" if self._activity is None else self._activity.what
            words = filter(None, [what, self._facts, self._validation])
            self._bar.set_postfix_str(", ".join(words))

    def _write(self, now: float) -> None:
        """Writes a line."""
        words = [f"step {self._done} of {self._total}"]
        if self._activity is None:
            words.append(self._pace())
        else:
            lasts = now - self._activity.since
            since = f" since {_interval(lasts)}" if lasts >= _MOST_SECONDS else ""
            words.append(self._activity.what + since)
            self._is_said = True
        words += [self._facts, self._validation]
        sys.stderr.write(f"{self._name}: {', '.join(filter(None, words))}\n")
        sys.stderr.flush()
        self._line_time = now

    def _pace(self) -> str:
        """Rate and time left by the steps since the last line that had them.

        Evaluations and the like are in the time, not in the rate.
        """
        if self._steps and self._seconds:
            self._rate = f"{self._steps / self._seconds:.3g} steps/s"
            self._per_step = (self._seconds + self._others) / self._steps
            self._steps, self._seconds, self._others = 0, 0.0, 0.0
        if not self._rate or self._done >= self._total:
            return self._rate
        left = (self._total - self._done) * self._per_step
        return f"{self._rate}, {_interval(left)} left"


def _interval(seconds: float) -> str:
    return tqdm.tqdm.format_interval(seconds)
