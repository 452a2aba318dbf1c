r"""Small circuits, three functions, and the exact gradients of their means.

On circuits small enough to enumerate, the exact gradient of ``E f(x)`` is

.. math:: \nabla \sum_x p(x) f(x)

With Normal leaves the sum is an integral, on a grid.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc

FUNCTIONS = ("linear", "quadratic", "kernel")

CIRCUITS = {
    "trees, tucker": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 1, 2, seed=3),
        pc.Bernoulli(),
        num_leaves=3,
        num_sums=2,
        sum_layer="tucker",
    ),
    "trees, cp": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2, 2, seed=3),
        pc.Binomial(2),
        num_leaves=3,
        num_sums=2,
        sum_layer="cp_t",
    ),
    "quad tree": pc.CircuitConfig(
        pc.QuadTree(2, 2), pc.Bernoulli(), num_leaves=2, num_sums=2, sum_layer="tucker"
    ),
    "two variables, normal": pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 1, 2, seed=3),
        pc.UnitNormal(0.3, 1.0),
        num_leaves=3,
        num_sums=2,
        sum_layer="tucker",
    ),
}


def functions(x: jax.Array, top: float) -> jax.Array:
    """The three objectives of one value ``[V, C]``, ``[3]``; ``top`` is its maximum.

    The linear and the quadratic one have terms between pixels of all sizes; the kernel
    is the Gaussian one of an MMD, at one fixed point.
    """
    x = x.ravel() / top
    weights = jnp.array([1.0, -0.5, 0.75, 1.5])[: x.size]
    point = jnp.array([1.0, 0.0, 1.0, 1.0])[: x.size]
    linear = weights @ x
    distance = jnp.sum((x - point) ** 2)
    return jnp.stack([linear, (linear - 0.5) ** 2, jnp.exp(-distance)])


def parameters(circuit: pc.Circuit) -> Any:
    """Fixed parameters, wide enough for choices and leaves of all probabilities."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
    )


def top_of(name: str) -> float:
    """The scale of values: the greatest one, or 1 if there is none."""
    top = float(CIRCUITS[name].leaves[0].support[1])
    return top if np.isfinite(top) else 1.0


def points(name: str) -> tuple[np.ndarray, float]:
    """All values ``[S, V, C]``, or a grid of them, and the volume that each stands for.

    Densities are smooth and vanish at the grid's ends, where sums over it are exact to
    rounding: its step is a quarter of the least deviation, 0.3, and all means are
    within 4.
    """
    num_variables = CIRCUITS[name].structure.num_variables
    top = CIRCUITS[name].leaves[0].support[1]
    if np.isfinite(top):
        axis, step = np.arange(top + 1), 1.0
    else:
        step = 0.075
        axis = np.arange(-9, 9 + step, step)
    values = np.array(list(itertools.product(axis, repeat=num_variables)))
    return values[..., None], step**num_variables


@functools.cache
def exact_gradients(name: str) -> Any:
    """Gradients of ``E f(x)`` by enumeration, a tree with leading axis 3."""
    circuit = pc.build(CIRCUITS[name])
    values, volume = points(name)
    x = jnp.asarray(values, jnp.float32)
    f = volume * jax.vmap(functools.partial(functions, top=top_of(name)))(x)

    def means(params):
        return jnp.exp(jax.vmap(circuit.log_prob, (None, 0))(params, x)) @ f

    return jax.jit(jax.jacrev(means))(parameters(circuit))
