"""A clock beside the work: what is said while one long call keeps a program busy."""

from collections.abc import Callable, Iterator
import contextlib
import threading


@contextlib.contextmanager
def ticking(tick: Callable[[], None], seconds: float = 1.0) -> Iterator[None]:
    """Calls a function again and again from a thread of its own, while entered.

    Args:
        tick: the function; it is not called after the end.
        seconds: from one call to the next.
    """
    over = threading.Event()

    def run():
        while not over.wait(seconds):
            tick()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
