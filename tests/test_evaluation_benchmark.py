"""The benchmark of the measures runs, and measures time."""

import time

import pytest

from benchmarks import evaluation


def test_every_measure_is_timed(capsys):
    evaluation.main(["--batches=", "--num_points=40", "--num_features=3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 6
    assert all(line.count("|") == 5 for line in lines)


def test_the_fastest_call_counts():
    pauses = iter((0.0, 0.05, 0.02))  # the first compiles
    found = evaluation.measure(lambda: time.sleep(next(pauses)), num_calls=2)
    assert 0.02 <= found.seconds < 0.05
    assert found.cpu_seconds < 0.02


@pytest.mark.slow
def test_the_network_is_timed():
    assert evaluation.network(1, 8, num_calls=1).seconds > 0
