"""Functions of many examples, a batch at a time."""

from collections.abc import Callable

import jax
import numpy as np

from dspc_jax.types import Array


def in_batches(
    function: Callable[[Array], Array], x: Array, *, batch_size: int = 100
) -> np.ndarray:
    """A function of all examples, on the host, without all of them in memory at once.

    Args:
        function: ``[B, ...] -> [B, ...]``, whose rows depend on their examples alone.
            It is compiled once.
        x: ``[N, ...]`` examples, N at least 1.
        batch_size: of them at a time (a hundred images of 260 x 260 pixels take a
            network a GB); the last batch is filled up with the first ones.

    Returns:
        ``[N, ...]``, as NumPy's.
    """
    compiled = jax.jit(function)
    size = min(batch_size, len(x))
    parts = []
    for start in range(0, len(x), size):
        rows = np.arange(start, start + size) % len(x)
        parts.append(np.asarray(compiled(x[rows]))[: len(x) - start])
    return np.concatenate(parts)
