"""Lines of progress where there is no terminal, and the bar where there is one."""

import re
import sys
import threading
import time

import pytest

from experiments.console.display import Display
from experiments.console.ticker import ticking


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run(self, display: Display, seconds: int) -> None:
        """Seconds in which nothing but the clock reaches the display."""
        for _ in range(seconds):
            self.now += 1.0
            display.tick()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_have_the_rate_and_the_time_that_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with Display("ll", 100, 400) as display:
        for _ in range(100):
            now[0] += 1.0
            display.advance(2)
            display.show({"loss": 1.23456})
        now[0] += 1000
        display.advance(100)  # the last step: the result says the rest
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "ll: step 160 of 400, 2 steps/s, 02:00 left, loss 1.235"
    assert lines[2] == "ll: step 280 of 400, 2 steps/s, 01:00 left, loss 1.235"


def test_compiling_is_said_and_counts_in_no_rate(clock, capsys):
    display = Display("mmd", 0, 100, {"loss": "nats/dimension"})
    with display.steps(1):
        clock.run(display, 130)
    with display.steps(9):
        clock.run(display, 90)
    first, second, third, fourth, *more = capsys.readouterr().err.splitlines()
    assert first == "mmd: step 0 of 100, compiling"
    assert second == "mmd: step 0 of 100, compiling since 01:02"
    assert third == "mmd: step 0 of 100, compiling since 02:02"
    # No step was measured when this minute was over.
    assert fourth == "mmd: step 1 of 100"
    assert more == ["mmd: step 10 of 100, 0.1 steps/s, 15:00 left"]


def test_an_evaluation_has_a_line_and_its_time_is_in_the_time_left(clock, capsys):
    display = Display("ll", 0, 40, {"loss": "nats/dimension"})
    display.advance(1)
    for _ in range(9):
        clock.now += 1.0
        display.advance(1)
    display.show({"loss": 1.5, "grad_norm": 3.0})
    with display.doing("evaluating"):
        clock.now += 1000.0  # most of it the compiler's
    with display.doing("evaluating"):
        clock.now += 9.0
    display.evaluated("validation 2.125 bits/dimension")
    with display.doing("drawing"):
        clock.run(display, 3)
    clock.now += 1.0
    display.advance(30)
    display.evaluated("validation 2 bits/dimension")
    assert capsys.readouterr().err.splitlines() == [
        "ll: step 10 of 40, 1 steps/s, 01:00 left, loss 1.5 [nats/dimension], "
        "validation 2.125 bits/dimension",
        "ll: step 10 of 40, drawing, loss 1.5 [nats/dimension], "
        "validation 2.125 bits/dimension",
        "ll: step 40 of 40, 30 steps/s, loss 1.5 [nats/dimension], "
        "validation 2 bits/dimension",
    ]


def test_what_is_done_fast_is_not_said(clock, capsys):
    display = Display("ll", 0, 40)
    for what in ("evaluating", "drawing"):
        with display.doing(what):
            clock.run(display, 1)
    assert capsys.readouterr().err == ""


def test_the_bar_has_what_is_done_and_the_bits(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Display("ll", 0, 4, {"loss": "nats/dimension"}) as display:
        for done in range(4):
            with display.steps(1):
                if not done:
                    time.sleep(1.0)  # the compiler's
        display.show({"loss": 1.5})
        display.evaluated("validation 2.125 bits/dimension")
    err = capsys.readouterr().err
    assert "compiling" in err
    last = err.rstrip().split("\r")[-1]
    assert "4/4" in last
    assert "loss 1.5 [nats/dimension], validation 2.125 bits/dimension" in last
    assert re.search(r"\[00:00<00:00", last)  # without the compiler's second


def test_a_clock_ticks_until_it_is_over():
    ticked = threading.Event()
    with ticking(ticked.set, 0.001):
        assert ticked.wait(10)
    ticked.clear()
    assert not ticked.wait(0.02)
