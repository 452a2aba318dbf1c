r"""Samples with the two relaxations of themselves that REBAR needs.

An exact sample is a function of Gumbel noise :math:`g`: of the choices :math:`b` along
its path, arg maxes of :math:`\log w + g`, with the log-probability :math:`\log p(b)`.
The same noise gives a relaxed sample, a softmax at every choice,
:math:`\tilde x(g)`, correlated with the exact one. Given the choices, the noise has the
distribution :math:`p(g \mid b)`, and a draw from it, :math:`\tilde g`, is a function of
fresh exponential noise and of the weights of the path
(`dspc_jax.sampling.conditional_gumbel`): where the path took :math:`D` among weights
:math:`p_d` that add up to 1,

.. math::
  e^{-\tilde g_D} = p_D E_D, \qquad e^{-\tilde g_d} = E_d + p_d E_D \quad (d \ne D).

It gives another relaxed sample, :math:`\tilde x(\tilde g)`. Partitions off the path
share their noise with those on it (`dspc_jax.sampling.noise`), so nothing else is left
to draw.

`dspc_jax.objectives.rebar` turns these samples into a gradient.

References:
    Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein, "REBAR: Low-variance, unbiased
    gradient estimates for discrete latent variable models", NeurIPS 2017.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax import parameters
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.numerics import safe_log
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.sampling import downward
from dspc_jax.sampling import path as path_sampling
from dspc_jax.sampling.conditional_gumbel import fresh_exponentials
from dspc_jax.sampling.noise import Noise, expanded
from dspc_jax.sampling.noise import draw as draw_noise
from dspc_jax.sampling.path import Path, PathChoice
from dspc_jax.types import Array, Key

LEAST = 2.0**-24
"""Least exponential number: beyond it ``exp(-E)`` is 1 in float32."""


class RebarSamples(NamedTuple):
    """Samples of one batch of keys.

    Attributes:
        exact: ``[N, V, C]``, those of `Circuit.sample`; differentiable in the leaves.
        relaxed: ``[N, V, C]``; differentiable in the weights.
        conditional: ``[N, V, C]``, relaxed with other noise that leads to the choices
            of ``exact``; differentiable in the weights.
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
        params: the circuit's parameters.
        temperature: temperature of the relaxation, a positive scalar.

    Returns:
        The samples.

    Raises:
        ValueError: a region is shared or split in more than one way below the root.
    """
    check(layout)
    params, dtype = widened(params)
    params, weights = parameters.of_regions(layout, params)
    noise = expanded(layout, draw_noise(layout, keys, dtype))
    path = path_sampling.descend(layout, weights, None, noise)
    fixed = params._replace(leaves=jax.lax.stop_gradient(params.leaves))

    def relaxed(choice_noise: Noise) -> Array:
        selectors = downward.select(
            layout,
            weights,
            None,
            choice_noise,
            "gumbel_softmax",
            jnp.asarray(temperature, dtype),
        )
        return downward.blend(layout, fixed, selectors, noise.leaves, "sample")

    return RebarSamples(
        exact=path_sampling.at_leaves(layout, params, path, noise, "sample"),
        relaxed=relaxed(noise),
        conditional=relaxed(conditional_noise(path, noise)),
        log_choices=log_prob(path),
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
            "layout must be that of a tree, or of equal trees mixed at the root, for "
            "REBAR, got a region graph that splits or shares regions below the root"
        )


def log_prob(path: Path) -> Array:
    """The log-probability of a path's choices, ``[N]`` nats; no evidence."""

    def log_weight(choice: PathChoice) -> Array:
        weights = jnp.take_along_axis(choice.weights, choice.chosen[..., None], axis=-1)
        return jnp.sum(safe_log(weights).reshape(weights.shape[0], -1), axis=1)

    choices = jax.tree.leaves(path.choices, is_leaf=_is_choice)
    return functools.reduce(jnp.add, map(log_weight, choices))


def conditional_noise(path: Path, noise: Noise) -> Noise:
    """Draws other noise that leads to the same choices.

    Args:
        path: the choices, without evidence.
        noise: the noise that led to them.

    Returns:
        Noise from its distribution given the choices, a differentiable function of the
        weights on the path; the noise of the leaves is the same.
    """

    def redraw(choice: PathChoice, uniform: Array) -> Array:
        fresh = fresh_exponentials(uniform, 0)
        one_hot = jax.nn.one_hot(choice.chosen, fresh.shape[-1], dtype=fresh.dtype)
        chosen = jnp.sum(one_hot * fresh, axis=-1, keepdims=True)
        exponentials = (1 - one_hot) * fresh + choice.weights * chosen
        return jnp.exp(-jnp.maximum(exponentials, LEAST))

    without_leaves = noise._replace(leaves=())
    redrawn = jax.tree.map(redraw, path.choices, without_leaves, is_leaf=_is_choice)
    return redrawn._replace(leaves=noise.leaves)


def _is_choice(node: object) -> bool:
    return isinstance(node, PathChoice)
