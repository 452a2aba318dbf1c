"""A run that is asked to end ends: by itself, or within seconds."""

import os
import signal
import time

import pytest

from experiments.engine.signals import Signals
from tests.experiments import runs

# A call into XLA that takes hours: Python's own handlers wait for it.
LONG_STEP = """
import jax
from experiments.engine.signals import Signals

@jax.jit
def hours():
    return jax.lax.fori_loop(0, 10**9, lambda i, x: jax.numpy.sin(x) + i, 1.0)

with Signals(0.5, lambda: "the checkpoint of step 7 is kept"):
    print("started", flush=True)
    hours().block_until_ready()
"""


def test_a_step_of_hours_is_ended():
    process = runs.start(LONG_STEP, program="-c")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "the checkpoint of step 7 is kept\n"


def test_who_looks_may_take_the_time_to_save(monkeypatch: pytest.MonkeyPatch):
    ended = []
    with Signals(0.05) as signals:
        monkeypatch.setattr(signals, "_end", ended.append)
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        time.sleep(0.2)  # saves
    assert not ended
    with Signals(0.05) as signals:
        monkeypatch.setattr(signals, "_end", ended.append)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # a long step
        assert ended == [signal.SIGTERM]


def test_handlers_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Signals():
            assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > descriptors:
        assert time.monotonic() < deadline  # the threads close their ends
        time.sleep(0.01)
