"""Chunks of steps: even time, and enough steps where these are long."""

import time

import pytest

from experiments.engine.pace import Pace


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(1e-4, 128), (0.01, 50), (0.1, 5), (2.0, 4), (5.0, 2), (30, 1)],
)
def test_chunks_follow_the_time_of_a_step(seconds, wanted, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace(128)
    with pace.measure(1):
        now[0] += 60  # compilation, which says nothing of the steps
    assert pace.steps == 1
    for _ in range(6):
        num = pace.steps
        with pace.measure(num):
            now[0] += seconds * num
    assert pace.steps == wanted
    assert pace.rate == pytest.approx(1 / seconds)
