r"""Gumbel noise conditioned on the choice that it led to.

The scores of a choice are :math:`s_d = w_d e^{g_d} = w_d / E_d` with standard
exponential :math:`E_d`, and the greatest is taken. Given that it was :math:`D`,

.. math::
  \frac1{s_D} = \frac{E_D}{\sum_d w_d}, \qquad
  \frac1{s_d} = \frac{E_d}{w_d} + \frac1{s_D} \quad (d \ne D)

with fresh :math:`E`: the minimum of exponentials is independent of its index, and an
exponential beyond a bound is one again (it has no memory).

References:
    Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014.
    Paulus, Maddison and Krause, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax
    Gradient Estimator", ICLR 2021, section 3.
"""

import jax
import jax.numpy as jnp

from dspc_jax.sampling.hashing import GOLDEN, open_uniform, scramble
from dspc_jax.types import Array


def fresh_exponentials(noise: Array, number: Array | int) -> Array:
    """Standard exponential numbers, a function of noise that has been used already.

    Each depends on the bits of one number of the noise alone, scrambled twice by
    MurmurHash3's finalizer. So they need no key and no memory, and those of an example
    depend on no other example. For Monte Carlo they may count as independent of the
    noise and of one another (tested); they are not cryptographic.

    Args:
        noise: of any shape.
        number: index of the array of numbers, below 2**32.

    Returns:
        Positive finite numbers in the shape and type of the noise.
    """
    bits = jax.lax.bitcast_convert_type(noise.astype(jnp.float32), jnp.uint32)
    # The offset makes the salt of number 0 nonzero.
    salt = scramble(jnp.asarray(number).astype(jnp.uint32) + GOLDEN)
    uniform = open_uniform(scramble(scramble(bits) ^ salt))
    return -jnp.log(uniform).astype(noise.dtype)


def conditional_scores(probs: Array, chosen: Array, exponentials: Array) -> Array:
    r"""Scores given the choice, relative to the greatest.

    :math:`s_d / s_D = E_D p_d / (E_d + E_D p_d)`, and 1 for the choice itself.

    Args:
        probs: ``[P, I, J, N]``, adding up to 1 over pairs ``I, J``; 0 is impossible.
        chosen: one-hot, the same shape.
        exponentials: fresh standard exponential numbers, the same shape.

    Returns:
        In [0, 1], the same shape; 0 where impossible.
    """
    chosen_exponential = jnp.sum(chosen * exponentials, axis=(1, 2), keepdims=True)
    share = chosen_exponential * probs
    return jnp.where(chosen > 0, 1.0, share / (exponentials + share))
