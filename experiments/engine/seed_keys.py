"""Keys of the seeds of a run, apart for all that draws random numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_FLIPS = 2**31 - 1  # folded into a seed's key: a stream apart from its splits


class Bits(NamedTuple):
    """Bits of the keys of all seeds: each call makes the same keys anew."""

    init: np.ndarray
    step: np.ndarray
    eval: np.ndarray
    sample: np.ndarray
    flip: np.ndarray


def bits_of(seeds: range) -> Bits:
    """Bits of the keys of these seeds; arrays lead with the seeds."""

    def of_seed(seed):
        # Flips are not one of the splits: those are the same with and without them.
        flip = jax.random.fold_in(jax.random.key(seed), _FLIPS)
        return (*jax.random.split(jax.random.key(seed), 4), flip)

    keys = jax.vmap(of_seed)(jnp.array(seeds, jnp.uint32))
    return Bits(*(np.asarray(jax.random.key_data(key)) for key in keys))
