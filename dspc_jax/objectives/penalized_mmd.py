r"""The MMD on features of a critic with a gradient penalty: Binkowski et al. (2018).

A network (`dspc_jax.networks.convolutional_critic`) defines the kernel
:math:`k(f(x), f(y))` of its features :math:`f`. It is trained to maximize the MMD, the
sampler to minimize it. The MMD is the mean difference, between data x and samples y, of
the witness function

.. math:: w(t) = \frac1N \sum_i k(f(x_i), f(t)) - \frac1M \sum_j k(f(y_j), f(t)),

and a penalty on the slope of this function, which should be 1, keeps the critic bounded
in the place of the clipped weights of `dspc_jax.objectives.mmd_gan`:

.. math::
  \text{critic:}\; \min_f\; -\mathrm{MMD}^2_u + \lambda\, E(\|\nabla w(z)\| - 1)^2
    + \mu\, a(x) + \mu\, a(y),
  \qquad \text{sampler:}\; \min_\theta\; \mathrm{MMD}^2_u

with the unbiased estimate, places :math:`z` on lines from data to samples, and
:math:`a`, the sum of the mean squared activations of all layers. The source has
:math:`\lambda = \mu = 1`, 16 features, Adam with step size 1e-4 and betas 0.5 and 0.9,
five steps of the critic before each of the sampler, and the kernel
``rational_quadratic_kernel(linear_weight=1.0)``. It also clips the gradient of every
array to norm 1 and halves step sizes by a three-sample test; neither is here.

The sampler's loss is `dspc_jax.objectives.mmd_loss` with
``features=lambda x: critic.features(critic_params, x)``.

References:
    Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018, and
    its published code for constants.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.interfaces import FeatureCritic
from dspc_jax.objectives.adversarial import gradient_penalty
from dspc_jax.objectives.kernels import Kernel, common_center, squared_distances
from dspc_jax.objectives.mmd import mmd2_unbiased
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree


def witness(points: Array, x: Array, y: Array, kernel: Kernel) -> Array:
    r"""The witness function of the MMD between two sets.

    .. math:: w(t) = \frac1N \sum_i k(x_i, t) - \frac1M \sum_j k(y_j, t)

    Args:
        points: ``[P, ...]``: the places t.
        x: ``[N, ...]`` data, or features of data.
        y: ``[M, ...]`` samples, or their features.
        kernel: a `Kernel`.

    Returns:
        ``[P]``; above 0 where data are denser. With a kernel up to functions of one
        point (`rational_quadratic_kernel` with a linear part) it is correct up to a
        constant.

    Raises:
        ValueError: points of different sizes.
    """
    center = common_center(x, y)

    def mean(others: Array) -> Array:
        distances = squared_distances(points, others, center=center)
        return jnp.mean(kernel.excess(distances), axis=1)

    return mean(x) - mean(y)


def penalized_critic_loss(
    critic_params: PyTree,
    key: Key,
    batch: Array,
    *,
    params: PyTree,
    sample: Callable[[Array, Any], Array],
    critic: FeatureCritic,
    kernel: Kernel,
    gradient_penalty_weight: float = 1.0,
    activation_penalty_weight: float = 1.0,
) -> tuple[Array, Metrics]:
    """The critic's loss of the module's formula.

    Args:
        critic_params: the parameters to train.
        key: one typed key, for the samples and the places of the penalty.
        batch: ``[B, V, C]`` data in the critic's units, ``B >= 2``.
        params: the sampler's parameters; no gradient reaches them.
        sample: ``sample(keys[B], params) -> [B, V, C]``; need not be differentiable.
        critic: its functions.
        kernel: a `Kernel` on features.
        gradient_penalty_weight: weight of the penalty on the witness function's slope.
        activation_penalty_weight: weight of the mean squared activations.

    Returns:
        The loss, and the metrics ``mmd2``, ``gradient_penalty`` (1 where the witness
        function is flat: the critic distinguishes nothing) and ``activation_penalty``.

    Raises:
        ValueError: a negative weight, or fewer than two examples.
    """
    for name, weight in (
        ("gradient_penalty_weight", gradient_penalty_weight),
        ("activation_penalty_weight", activation_penalty_weight),
    ):
        if weight < 0:
            raise ValueError(f"{name} must be at least 0, got {weight}")
    batch = as_values("batch", batch)
    sample_key, place_key = jax.random.split(key)
    samples = sample(jax.random.split(sample_key, batch.shape[0]), params)
    samples = jax.lax.stop_gradient(samples)
    data_layers = critic.activations(critic_params, batch)
    sample_layers = critic.activations(critic_params, samples)
    x, y = data_layers[-1], sample_layers[-1]
    mmd2 = mmd2_unbiased(x, y, kernel)

    def score(points: Array) -> Array:
        return witness(critic.features(critic_params, points), x, y, kernel)

    slope = gradient_penalty(place_key, score, batch, samples)
    layers = (*data_layers, *sample_layers)
    squares = jnp.stack([jnp.mean(layer**2) for layer in layers])
    size = jnp.sum(squares)
    loss = gradient_penalty_weight * slope + activation_penalty_weight * size - mmd2
    metrics = {"mmd2": mmd2, "gradient_penalty": slope, "activation_penalty": size}
    return loss, metrics
