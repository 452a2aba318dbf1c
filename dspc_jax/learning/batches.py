"""Which examples a step sees: a pure function of (seed, step), on the host."""

import functools

import numpy as np


@functools.lru_cache(maxsize=64)  # a chunk of 5 seeds touches few epochs at a time
def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of one epoch, ``[num_examples]`` int32; depends on nothing else.

    Philox is counter based: the pair (seed, epoch) is its key, so epochs are
    independent and any one can be had without the ones before it.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(num_examples).astype(np.int32)
    order.flags.writeable = False
    return order


def batch_indices(
    seed: int, first_step: int, num_steps: int, batch_size: int, num_examples: int
) -> np.ndarray:
    """Indices of consecutive batches.

    The epochs' permutations are laid end to end and cut into batches, so every example
    comes once an epoch, a batch may straddle two epochs, and a batch may be larger than
    the data set.

    Args:
        seed: the run's seed.
        first_step: the step of the first batch, from 0.
        num_steps: number of batches.
        batch_size: B.
        num_examples: size of the training set.

    Returns:
        ``[num_steps, B]`` int32 in ``0 .. num_examples - 1``.
    """
    start, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    first_epoch, last_epoch = start // num_examples, -(-stop // num_examples)
    stream = np.concatenate(
        [
            permutation(seed, epoch, num_examples)
            for epoch in range(first_epoch, max(last_epoch, first_epoch + 1))
        ]
    )
    offset = first_epoch * num_examples
    return stream[start - offset : stop - offset].reshape(num_steps, batch_size)
