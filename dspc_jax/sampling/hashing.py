r"""Random bits of an alternative, from those of its choice and its number.

JAX's generator, threefry, takes about 50 times as long for a number as the hash here
(CPU). So a choice draws 64 bits from the generator, and the bits of alternative
:math:`d` are a hash of these and of :math:`d`: two rounds of a 32-bit mixer :math:`m`,
one for each half of the 64 bits,

.. math:: b_d = m\big(b'' + m(b' + d \gamma)\big), \qquad \gamma = 2^{32} / \phi,

with odd :math:`\gamma`: a counter that the mixer scrambles, as in SplitMix. It is
a bijection, so no two alternatives of a choice have the same bits; choices with one
half in common still differ by the other. XLA computes it where it
is used. It is not cryptographic; `tests/sampling/test_hashing.py` has what it is good
for.

References:
    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014
    (counters of step gamma, scrambled).
    Appleby, "MurmurHash3", 2011 (`scramble`, its 32-bit finalizer, whose
    constants an annealing chose for the avalanche of all bits).
"""

import jax.numpy as jnp
import numpy as np

from dspc_jax.types import Array

GOLDEN = np.uint32(0x9E3779B9)
"""2**32 over the golden ratio, odd: the step between counters."""


def scramble(bits: Array) -> Array:
    """A bijection of 32-bit numbers, with the constants of MurmurHash3.

    Args:
        bits: uint32, any shape.

    Returns:
        uint32, the same shape; 0 for 0.
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def alternative_bits(first: Array, second: Array, number: Array) -> Array:
    """Bits of alternatives.

    Args:
        first: half of the choice's random bits, uint32.
        second: the other half.
        number: the alternative's number, uint32; the three shapes broadcast.

    Returns:
        uint32, of the common shape.
    """
    return scramble(second + scramble(first + number * GOLDEN))


def open_uniform(bits: Array) -> Array:
    """Numbers in (0, 1), float32, centered on a grid of 2**-23: neither 0 nor 1.

    Args:
        bits: uint32, any shape; the 23 highest ones count.
    """
    # Signed numbers, which CPUs convert faster.
    return (bits >> 9).astype(jnp.int32).astype(jnp.float32) * 2.0**-23 + 2.0**-24


def more_digits(uniform: Array, bits: Array) -> Array:
    """Float64 numbers with the digits of float32 ones, and 23 more.

    Args:
        uniform: as of `open_uniform`.
        bits: other bits, uint32, of the same shape.

    Returns:
        Numbers in (0, 1), centered on a grid of 2**-46.
    """
    above = uniform.astype(jnp.float64) - 2.0**-24
    digits = (bits >> 9).astype(jnp.float64) * 2.0**-23
    return above + (2.0**-23 * digits + 2.0**-47)


def is_bits(array: Array) -> bool:
    """Whether an array holds bits of choices, and not numbers of alternatives."""
    return array.dtype == np.uint32
