r"""Categorical choices, hard and relaxed, and their gradients.

A choice among :math:`D` alternatives has logits :math:`a` and noise
:math:`g \sim \mathrm{Gumbel}(0, 1)`:

=====================  ==============================  =================================
relaxation             forward                         gradient of
=====================  ==============================  =================================
``hard``               one-hot of arg max ``a + g``    nothing
``gumbel_softmax``     softmax ``(a + g) / t``         itself
``straight_through``   one-hot of arg max ``a + g``    softmax ``(a + g) / t``
``simple``             one-hot of arg max ``a + g``    softmax ``a``
=====================  ==============================  =================================

As ``t -> 0`` all four give the same choice for the same noise.

References:
  Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
  Maddison et al., "The Concrete Distribution", ICLR 2017.
  Ahmed et al., "SIMPLE: A Gradient Estimator for k-Subset Sampling", ICLR 2023.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from dspc_jax.numerics import max_slices, safe_divide, sum_slices
from dspc_jax.types import Array

RELAXATIONS = ("hard", "gumbel_softmax", "straight_through", "simple")


def check(relaxation: str, *, allowed: tuple[str, ...] = RELAXATIONS) -> None:
    """Raises ValueError unless the relaxation is one of ``allowed``."""
    if relaxation not in allowed:
        raise ValueError(f"relaxation: must be one of {allowed}, got {relaxation!r}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def choose(
    relaxation: str, logits: Array, noise: Array, temperature: Array
) -> tuple[Array, Array]:
    """Chooses a pair and returns its marginals.

    Args:
      relaxation: see the module's docstring; static.
      logits: ``[P, I, J, N]``, unnormalised; -inf is impossible.
      noise: Gumbel noise, broadcastable to the logits; 0 for an arg max.
      temperature: ``t``, a scalar (traced).

    Returns:
      Weights over ``I`` and over ``J``: ``[P, I, N]`` and ``[P, J, N]``, each adding up
      to 1. Where all is impossible a hard choice is the first pair, a soft one all 0,
      and the gradient is 0.
    """
    if relaxation == "gumbel_softmax":
        weights, total = _softmax_parts((logits + noise) / temperature)
        left, right = sum_slices(weights, 2), sum_slices(weights, 1)
        return safe_divide(left, total), safe_divide(right, total)
    i, j = _argmax_pair(logits + noise)
    return _one_hot(i, logits.shape[1], logits), _one_hot(j, logits.shape[2], logits)


def choose_one(
    relaxation: str, logits: Array, noise: Array, temperature: Array
) -> Array:
    """Chooses among ``[P, D, N]``: weights of the same shape."""
    noise = jnp.broadcast_to(noise, logits.shape)[:, :, None]
    return choose(relaxation, logits[:, :, None], noise, temperature)[0]


def _softmax_parts(z: Array) -> tuple[Array, Array]:
    """Unnormalised softmax over the axes I and J and its total ``[P, 1, N]``."""
    top = max_slices(max_slices(z, 2), 1)[:, None, None]
    weights = jnp.exp(z - jnp.where(top > -jnp.inf, top, 0.0))
    return weights, sum_slices(sum_slices(weights, 2), 1)[:, None]


def _argmax_pair(z: Array) -> tuple[Array, Array]:
    """The first greatest pair: indices ``[P, N]``."""
    best, j = _running_argmax([z[:, :, j] for j in range(z.shape[2])])
    _, i = _running_argmax([best[:, i] for i in range(z.shape[1])])
    one_hot = _one_hot(i, z.shape[1], z)
    return i, sum_slices(j * one_hot.astype(j.dtype), 1)


def _running_argmax(slices: list[Array]) -> tuple[Array, Array]:
    best, index = slices[0], jnp.zeros(slices[0].shape, jnp.int32)
    for number, value in enumerate(slices[1:], start=1):
        index = jnp.where(value > best, number, index)
        best = jnp.maximum(value, best)
    return best, index


def _one_hot(index: Array, size: int, like: Array) -> Array:
    return (index[:, None] == jnp.arange(size)[:, None]).astype(like.dtype)


def _choose_fwd(relaxation, logits, noise, temperature):
    out = choose(relaxation, logits, noise, temperature)
    return out, (logits, noise, temperature)


def _choose_bwd(relaxation, residuals, g):
    """Through ``y = softmax(z)``: ``dz = y (dy - sum y dy)`` with ``dy = dl_i + dr_j``."""
    logits, noise, temperature = residuals
    zeros = jnp.zeros_like(noise)
    if relaxation == "hard":
        return jnp.zeros_like(logits), zeros, jnp.zeros_like(temperature)
    simple = relaxation == "simple"
    z = logits if simple else (logits + noise) / temperature
    weights, total = _softmax_parts(z)
    left = safe_divide(sum_slices(weights, 2), total)
    right = safe_divide(sum_slices(weights, 1), total)
    center = sum_slices(left * g[0], 1) + sum_slices(right * g[1], 1)
    dy = (g[0] - center[:, None])[:, :, None] + g[1][:, None]
    dz = safe_divide(weights, total[:, None]) * dy
    if simple:
        return dz, zeros, jnp.zeros_like(temperature)
    d_temperature = -jnp.sum(jnp.where(dz != 0, dz * z, 0.0)) / temperature
    return dz / temperature, zeros, d_temperature


choose.defvjp(_choose_fwd, _choose_bwd)

Schedule = Callable[[Array], Array]
"""Temperature as a pure function of the (traced) step."""


def constant_temperature(value: float) -> Schedule:
    """``t = value`` at every step."""
    return lambda step: jnp.full(jnp.shape(step), value, jnp.float32)


def annealed_temperature(
    num_steps: int, start: float = 1.0, end: float = 0.5
) -> Schedule:
    """``max(end, start * exp(-step / num_steps))``; the paper's is start 1, end 0.5."""
    if num_steps < 1:
        raise ValueError(f"num_steps: must be at least 1, got {num_steps}")
    return lambda step: jnp.maximum(end, start * jnp.exp(-step / num_steps))


def learned_temperature(logit: Array) -> Array:
    """``sigmoid(logit)``: a parameter to train; 0 gives 0.5, as in the paper's code."""
    return jax.nn.sigmoid(logit)
