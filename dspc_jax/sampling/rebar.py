r"""Samples with the two relaxations of themselves that REBAR asks for.

An exact sample is a function of Gumbel noise :math:`g`: of the choices :math:`b` along
its path, arg maxes of :math:`\log w + g`, with the log-probability :math:`\log p(b)`.
The same noise gives a relaxed sample, a softmax at every choice,
:math:`\tilde x(g)`, correlated with the exact one. Given the choices the noise has the
law :math:`p(g \mid b)`, and a draw of it, :math:`\tilde g`, is a function of fresh
exponential noise and of the weights of the path
(`dspc_jax.sampling.conditional_gumbel`): where the path took :math:`D` among weights
:math:`p_d` that add up to 1,

.. math::
  e^{-\tilde g_D} = p_D E_D, \qquad e^{-\tilde g_d} = E_d + p_d E_D \quad (d \ne D).

It gives another relaxed sample, :math:`\tilde x(\tilde g)`. What the path did not reach
shares its noise with what it did (`dspc_jax.sampling.noise`), so nothing else is left
to draw.

See `dspc_jax.objectives.rebar` for what is made of them.

References:
  Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein, "REBAR: Low-variance, unbiased
  gradient estimates for discrete latent variable models", NeurIPS 2017.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax import parameters
from dspc_jax.ops.numerics import safe_log
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.sampling import downward, noise
from dspc_jax.sampling import path as path_sampling
from dspc_jax.sampling.conditional_gumbel import fresh_exponentials
from dspc_jax.sampling.noise import Noise
from dspc_jax.sampling.path import Path, Taken
from dspc_jax.types import Array, Key

LEAST = 2.0**-24
"""Least exponential number: beyond it ``exp(-E)`` is 1 in float32."""


class RebarSamples(NamedTuple):
    """Samples of one batch of keys.

    Attributes:
      exact: ``[N, V, C]``, those of `Circuit.sample`; differentiable in the leaves.
      relaxed: ``[N, V, C]``; differentiable in the weights.
      conditional: ``[N, V, C]``, relaxed with other noise that leads to the choices of
        ``exact``; differentiable in the weights.
      log_choices: ``[N]``: the log-probability of these choices, nats; differentiable
        in the weights.
    """

    exact: Array
    relaxed: Array
    conditional: Array
    log_choices: Array


def draw(
    layout: Layout, keys: Key, params: CircuitParams, temperature: Array | float
) -> RebarSamples:
    """Draws exact samples, and relaxed ones beside them.

    Args:
      layout: of a tree, or of equal trees mixed at the root (`Circuit.layout`).
      keys: ``[N]``, one for each sample.
      params: the circuit's.
      temperature: of the relaxation, a positive scalar.

    Returns:
      The samples.

    Raises:
      ValueError: a region is shared or split in more than one way below the root.
    """
    check(layout)
    weights = parameters.normalize(layout, params)
    drawn = noise.draw(layout, keys)
    path = path_sampling.descend(layout, weights, None, drawn)
    exact = path_sampling.at_leaves(layout, params, path, drawn, "sample")
    fixed = params._replace(leaves=jax.lax.stop_gradient(params.leaves))

    def relaxed(noise_: Noise) -> Array:
        chosen = downward.select(
            layout, weights, None, noise_, "gumbel_softmax", jnp.asarray(temperature)
        )
        return downward.blend(layout, fixed, chosen, drawn.leaves, "sample")

    return RebarSamples(
        exact, relaxed(drawn), relaxed(given_choices(path, drawn)), log_prob(path)
    )


def check(layout: Layout) -> None:
    """Raises ValueError where there is no single path to a sample.

    Args:
      layout: of any circuit.

    Raises:
      ValueError: a region is shared or split in more than one way below the root.
    """
    if layout.graph.alternatives is None:
        raise ValueError(
            "layout: must be that of a tree, or of equal trees mixed at the root, for "
            "REBAR, got a region graph that splits or shares regions below the root"
        )


def log_prob(path: Path) -> Array:
    """The log-probability of a path's choices, ``[N]`` nats; no evidence."""

    def one(taken: Taken) -> Array:
        chosen = jnp.take_along_axis(taken.weights, taken.chosen[..., None], axis=-1)
        return jnp.sum(safe_log(chosen).reshape(chosen.shape[0], -1), axis=1)

    kinds = jax.tree.leaves(path.taken, is_leaf=_is_taken)
    return functools.reduce(jnp.add, map(one, kinds))


def given_choices(path: Path, drawn: Noise) -> Noise:
    """Other noise that leads to the same choices.

    Args:
      path: the choices, without evidence.
      drawn: the noise that led to them.

    Returns:
      Noise of the law that it has given the choices, a differentiable function of the
      weights on the path; the leaves' is the same.
    """

    def one(taken: Taken, uniform: Array) -> Array:
        fresh = fresh_exponentials(uniform, 0)
        chosen = jax.nn.one_hot(taken.chosen, fresh.shape[-1], dtype=fresh.dtype)
        first = jnp.sum(chosen * fresh, axis=-1, keepdims=True)
        exponentials = (1 - chosen) * fresh + taken.weights * first
        return jnp.exp(-jnp.maximum(exponentials, LEAST))

    without_leaves = drawn._replace(leaves=())
    given = jax.tree.map(one, path.taken, without_leaves, is_leaf=_is_taken)
    return given._replace(leaves=drawn.leaves)


def _is_taken(node: object) -> bool:
    return isinstance(node, Taken)
