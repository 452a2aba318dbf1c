"""Lines of progress where there is no terminal."""

import time

from experiments.console.display import Display


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
