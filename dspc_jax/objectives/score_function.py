r"""The score function of the exact log-likelihood, with a leave-one-out baseline.

Let :math:`L(Y)` be any function of :math:`n` samples, not necessarily differentiable or
even known in closed form. Then

.. math:: \nabla E L(Y) = E \sum_i L(Y) \nabla \log p(y_i),

and whatever does not depend on :math:`y_i` may be taken off the factor of its score.
What the loss is without the sample, :math:`L(Y_{-i})`, is such a thing, so

.. math:: \sum_i a_i \nabla \log p(y_i), \qquad a_i = L(Y) - L(Y_{-i}),

is unbiased (if :math:`L` is an average, so that both are of one size, its variance is
small). For a mean of losses :math:`r_i` this is REINFORCE with the others' mean as its
baseline, :math:`a_i = (r_i - \frac{1}{n-1} \sum_{j \ne i} r_j) / n`; for the MMD it is
the witness function at :math:`y_i` against its mean over the other samples,
`mmd_advantages`.

A tractable model knows :math:`\log p(y)` with all latent choices summed out. The score
of choices and leaves together has the same mean given :math:`y` and a greater variance
(Rao-Blackwell). No relaxation is involved, and leaves of any kind have exact gradients.

*With pathwise leaves.* The gradients with respect to weights and to leaves may be
estimated in two ways: weights by the score, Normal leaves by reparametrisation given
the choices (a `circuit.sample` is differentiable in its leaves). Both are unbiased, and
the score of sharp leaves, most of the variance, is gone.

References:
  Williams, "Simple Statistical Gradient-Following Algorithms", 1992 (REINFORCE).
  Kool, van Hoof and Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dspc_jax.objectives.kernels import Kernel, common_center, squared_distances
from dspc_jax.types import Array


def mean_advantages(losses: Array) -> Array:
    """The advantages of samples whose losses are averaged.

    Args:
      losses: ``[n]``, ``n >= 2``; entry i depends on sample i alone.

    Returns:
      ``[n]``: ``(loss_i - mean of the others) / n``.

    Raises:
      ValueError: fewer than two losses.
    """
    count = _at_least("losses", losses, 2)
    return (losses - jnp.mean(losses)) / (count - 1)


def set_advantages(
    loss: Callable[[Array], Array], samples: Array, *, batch_size: int | None = None
) -> Array:
    """The advantages of samples under any loss on a set of them.

    Args:
      loss: ``[m, ...]`` samples to a scalar, for ``m = n`` and ``m = n - 1``; the same
        function both times (fix its key).
      samples: ``[n, ...]``, ``n >= 2`` (or more, if the loss needs more than one).
      batch_size: how many losses are computed side by side; one by default.

    Returns:
      ``[n]``: ``L(Y) - L(Y without i)``, from ``n + 1`` losses; without a gradient.

    Raises:
      ValueError: fewer than two samples.
    """
    count = _at_least("samples", samples, 2)
    samples = jax.lax.stop_gradient(samples)
    total = loss(samples)

    def without(i):
        rest = jnp.arange(count - 1)
        return loss(samples[jnp.where(rest < i, rest, rest + 1)])

    left_out = jax.lax.map(without, jnp.arange(count), batch_size=batch_size)
    return jax.lax.stop_gradient(total - left_out)


def mmd_advantages(x: Array, y: Array, kernel: Kernel) -> Array:
    r"""The advantages of samples under the unbiased squared MMD to data.

    With the estimate of the witness function at sample :math:`j` from the others
    without :math:`i`, :math:`w_j^{-i} = \frac{2}{n-2} \sum_{l \ne i,j} k(y_j, y_l)
    - \frac{2}{m} \sum_l k(y_j, x_l)`,

    .. math:: a_i = \frac1n \Big(w_i^{-i}
      - \frac{1}{n-1} \sum_{j \ne i} w_j^{-i} \Big),
      \qquad w_i^{-i} = \frac{2}{n-1} \sum_{l \ne i} k(y_i, y_l)
      - \frac2m \sum_l k(y_i, x_l),

    which is ``set_advantages`` of ``mmd2_unbiased(x, ., kernel)``, in one pass.

    Args:
      x: ``[m, ...]`` data, ``m >= 1``.
      y: ``[n, ...]`` samples, ``n >= 3``.
      kernel: a `Kernel`.

    Returns:
      ``[n]``.

    Raises:
      ValueError: too few points.
    """
    _at_least("x", x, 1)
    count = _at_least("y", y, 3)
    center = common_center(x, y)
    # Advantages do not change when a constant is added to the kernel.
    within = jnp.sum(kernel.excess(squared_distances(y, center=center)), axis=1)
    between = jnp.mean(kernel.excess(squared_distances(y, x, center=center)), axis=1)
    others = (jnp.sum(within) - 2 * within) / (count - 2)
    attraction = count * (between - jnp.mean(between)) / (count - 1)
    return 2 / count * ((within - others) / (count - 1) - attraction)


def score_surrogate(log_probs: Array, advantages: Array) -> Array:
    r"""A scalar 0 with the gradient :math:`\sum_i a_i \nabla \log p(y_i)`.

    Args:
      log_probs: ``[n]`` nats, differentiable; of samples that carry no gradient.
      advantages: ``[n]``; no gradient flows through them. Where one is 0 the score
        does not count, whatever it is (an impossible sample's is not defined).

    Raises:
      ValueError: shapes differ.
    """
    if jnp.shape(log_probs) != jnp.shape(advantages):
        raise ValueError(
            "log_probs and advantages must have one shape, got "
            f"{jnp.shape(log_probs)} and {jnp.shape(advantages)}"
        )
    advantages = jax.lax.stop_gradient(advantages)
    change = log_probs - jax.lax.stop_gradient(log_probs)
    return jnp.sum(jnp.where(advantages == 0, 0.0, advantages * change))


def _at_least(name: str, values: Array, least: int) -> int:
    count = jnp.shape(values)[0] if jnp.ndim(values) else 0
    if count < least:
        raise ValueError(f"{name} must hold at least {least} entries, got {count}")
    return count
