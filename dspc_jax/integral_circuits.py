r"""Circuits from networks: integrals over latents in [-1, 1].

A region of an integral circuit has a continuous latent, and a unit is a function of it.
Sums are integrals over the latent of their input,

.. math:: s_p(z) = \int_{-1}^{1} f_p(z, y)\, \pi_p(y)\, dy \Big/
  \int_{-1}^{1} f_p(z, y)\, dy, \qquad f_p = \exp(h_p^\top \phi(z, y)),

and a leaf has the parameters :math:`b + H \phi(z)`. The features :math:`\phi` are
shared by all sums of a level, and by the leaves of a family; a sum or a leaf has a
linear head of its own. Gauss-Legendre quadrature with K points turns the integrals into
sums of K units: the circuit that computes them is an ordinary one, exact and normalized
for every K. The parameters of the networks do not depend on K, so a circuit may be
trained with few units and used with more.

References:
    Gala, de Campos, Peharz, Vergari and Quaeghebeur, "Probabilistic integral circuits",
    AISTATS 2024.
    Gala, de Campos, Vergari and Quaeghebeur, "Scaling continuous latent variable models
    as probabilistic integral circuits", NeurIPS 2024 (shared networks with many heads).
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import instance
from dspc_jax.circuit import Circuit
from dspc_jax.networks.layers import check_counts
from dspc_jax.parameters import CircuitParams
from dspc_jax.types import Array, Key, PyTree


class IntegralCircuit(NamedTuple):
    """Networks whose values are the parameters of a circuit, as pure functions.

    Attributes:
        init: ``(key, data=None) -> params``; with data ``[N, V, C]`` the leaves start
            as those of ``circuit.init(key, data)``, in mean and deviation over units.
        circuit_params: ``params -> CircuitParams``, differentiable: what every query of
            the circuit takes.
    """

    init: Callable[..., PyTree]
    circuit_params: Callable[[PyTree], CircuitParams]


def integral_circuit(
    circuit: Circuit,
    *,
    width: int = 64,
    leaf_width: int = 16,
    num_hidden: int = 2,
    num_frequencies: int = 32,
) -> IntegralCircuit:
    """Networks for the parameters of a circuit.

    Args:
        circuit: its numbers of units are the numbers of quadrature points.
        width: H, features for sums and mixtures. A head has H numbers where the circuit
            has a table of K^2 weights, or of K^3.
        leaf_width: features for leaves. A head has as many numbers for each parameter
            of a leaf, of which the circuit has K.
        num_hidden: layers of each network.
        num_frequencies: F, of the Fourier features of the latents.

    Returns:
        Pure functions; parameters are float32.

    Raises:
        ValueError: an argument below 1, or no circuit.
    """
    instance("circuit", circuit, Circuit)
    check_counts(
        width=width,
        leaf_width=leaf_width,
        num_hidden=num_hidden,
        num_frequencies=num_frequencies,
    )
    features = _Features(width, num_hidden, num_frequencies)
    leaf_features = _Features(leaf_width, num_hidden, num_frequencies)
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))

    def init(key: Key, data: Any = None) -> PyTree:
        start_key, key = jax.random.split(key)
        start = circuit.init(start_key, data, dtype=jnp.float32)
        tables, tree = jax.tree.flatten(start)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(tables))))

        def network(key, num_latents, shape, features=features):
            own, head = jax.random.split(key)
            normal = jax.random.normal(head, (features.width, *shape), jnp.float32)
            return {
                "features": features.init(own, jnp.zeros(num_latents, jnp.float32)),
                "head": normal / math.sqrt(features.width),
            }

        def leaf(table, key):
            own = network(key, 1, table[:, 0].shape, leaf_features)
            own["head"] *= jnp.std(table, axis=1)[None]
            return own | {"bias": jnp.mean(table, axis=1)}

        def logits(table, key):
            return network(key, table.ndim - 1, table.shape[:1])

        def mixture(table, key):
            return network(key, 1, table[:, 0].shape)

        return {
            "leaves": jax.tree.map(leaf, start.leaves, keys.leaves),
            "sums": jax.tree.map(logits, start.sums, keys.sums),
            "mixtures": jax.tree.map(mixture, start.mixtures, keys.mixtures),
            "classes": start.classes,
        }

    def values(network, sizes, features=features):
        """``[*sizes, *shape]``: functions at all points of the latents."""
        points = [quadrature(size)[0] for size in sizes]
        grid = np.stack(np.meshgrid(*points, indexing="ij"), axis=-1)
        outputs = features.apply(network["features"], jnp.asarray(grid, jnp.float32))
        assert isinstance(outputs, jax.Array)
        return jnp.tensordot(outputs, network["head"], 1)

    def leaf(table, network):
        outputs = values(network, table.shape[1:2], leaf_features)
        return jnp.moveaxis(outputs, 0, 1) + network["bias"][:, None]

    def logits(table, network):
        own = jnp.moveaxis(values(network, table.shape[1:]), -1, 0)
        weights = [quadrature(size)[1] for size in table.shape[2:]]
        log_weights = functools.reduce(np.add.outer, map(np.log, weights))
        return own + jnp.asarray(log_weights, jnp.float32)[None, None]

    def mixture(table, network):
        return jnp.moveaxis(values(network, table.shape[1:2]), 0, 1)

    def circuit_params(params: PyTree) -> CircuitParams:
        return CircuitParams(
            leaves=jax.tree.map(leaf, shapes.leaves, params["leaves"]),
            sums=jax.tree.map(logits, shapes.sums, params["sums"]),
            mixtures=jax.tree.map(mixture, shapes.mixtures, params["mixtures"]),
            classes=params["classes"],
        )

    return IntegralCircuit(init, circuit_params)


def quadrature(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss and Legendre on [-1, 1], weights adding up to 1."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    return points, weights / 2


class _Features(nn.Module):
    """``[..., D] -> [..., H]``: functions of latents in [-1, 1]."""

    width: int
    num_hidden: int
    num_frequencies: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        frequencies = self.param(
            "frequencies",
            nn.initializers.normal(1.0),
            (z.shape[-1], self.num_frequencies),
            jnp.float32,
        )
        angles = 2 * jnp.pi * z @ frequencies
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        for _ in range(self.num_hidden):
            x = nn.silu(nn.Dense(self.width)(x))
        return x
