r"""Spectral normalization as a pure function of the parameters.

The power iteration runs inside the call and starts from a fixed vector, so there is no
state, and equal parameters give equal networks. It costs a few matrix-vector products
per layer, little beside a convolution of a batch.

References:
    Miyato, Kataoka, Koyama and Yoshida, "Spectral normalization for generative
    adversarial networks", ICLR 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.types import Array

_START = 20221  # seed of the fixed start vector; almost any vector serves


def spectral_norm(matrix: Array, *, num_iterations: int = 20) -> Array:
    r"""The largest singular value of a matrix, by power iteration.

    :math:`\sigma = u^\top W v` with the unit vectors :math:`u, v` of the last
    iteration, held fixed in the derivative: :math:`\partial \sigma / \partial W = u
    v^\top`, the exact gradient where the iteration has converged and the value is
    simple.

    Args:
        matrix: ``[n, m]``.
        num_iterations: at least 1. The result is never above the true value, and below
            it by a factor of at most about ``1 - log(m) / (4 num_iterations)`` when the
            leading values are close (Kuczynski and Wozniakowski 1992); when they are
            apart, convergence is geometric.

    Returns:
        A scalar; 0 for a matrix of zeros, with a gradient of 0.

    Raises:
        ValueError: not a matrix, or no iteration.
    """
    if matrix.ndim != 2:
        raise ValueError(f"matrix must have two axes, got the shape {matrix.shape}")
    num_iterations = whole_number("num_iterations", num_iterations, least=1)
    fixed = jax.lax.stop_gradient(matrix)

    def iterate(_: Array, v: Array) -> Array:
        return _unit((fixed @ v) @ fixed)

    start = _unit(jax.random.normal(jax.random.key(_START), matrix.shape[1:]))
    v = jax.lax.fori_loop(0, num_iterations, iterate, start)
    u = _unit(fixed @ v)
    return u @ (matrix @ v)


def spectrally_normalized(params: Any, *, num_iterations: int = 20) -> Any:
    """Divides every kernel of a network by its spectral norm.

    A kernel is a leaf named ``kernel``. Its last axis counts outputs, all others
    together count inputs (for convolutions this is the matrix of Miyato et al., whose
    norm bounds that of the convolution up to a factor of the kernel's size). Biases
    stay. A kernel of zeros stays 0.

    Args:
        params: parameters of Flax modules.
        num_iterations: see `spectral_norm`.

    Returns:
        Parameters in the same structure; gradients pass the division.
    """

    def normalize(path: Any, leaf: Array) -> Array:
        if getattr(path[-1], "key", None) != "kernel":
            return leaf
        norm = spectral_norm(
            leaf.reshape(-1, leaf.shape[-1]), num_iterations=num_iterations
        )
        return leaf / jnp.maximum(norm, 1e-12)

    return jax.tree_util.tree_map_with_path(normalize, params)


def _unit(vector: Array) -> Array:
    """The vector at length 1, or 0 where it is 0."""
    return vector / jnp.maximum(jnp.sqrt(jnp.sum(vector**2)), 1e-30)
