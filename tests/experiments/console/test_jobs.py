"""Lines about jobs, and the bar where there is a terminal."""

import sys
import time

import pytest

from experiments.console.jobs import Jobs


def test_lines_have_the_number_and_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    jobs = Jobs("study", 5, 3)  # two were finished before
    jobs.passed()
    for name in ("first", "second", "third"):
        with jobs.running(name, lambda: "at step 3 of 9") as say:
            for _ in range(90):
                now[0] += 1.0
                jobs.tick()
            say("done")
    jobs.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[2/5] first: started",
        "[2/5] first: at step 3 of 9, 01:00 so far",
        "[2/5] first: done",
        "[3/5] second: started, about 03:00 left",
        "[3/5] second: at step 3 of 9, 01:00 so far, about 02:00 left",
        "[3/5] second: done, about 01:30 left",
        "[4/5] third: started, about 01:30 left",
        "[4/5] third: at step 3 of 9, 01:00 so far, about 00:30 left",
        "[4/5] third: done, about 00:00 left",
    ]


def test_a_terminal_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    jobs = Jobs("study", 2, 1)
    jobs.passed()
    with jobs.running("second", lambda: "at step 3 of 9"):
        jobs.tick()
    jobs.close()
    err = capsys.readouterr().err
    assert "second at step 3 of 9" in err
    assert "2/2" in err.split("\r")[-1]
