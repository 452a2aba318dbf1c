r"""Circuits as discriminators: exact densities instead of a learned score.

- `class_discriminator`: a circuit with two roots, one density for data and one for
  samples, trained as a classifier.
- `density_ratio_discriminator`: the generator circuit itself. A sampler that knows its
  own density :math:`p_\theta` needs only one density more, that of the data: the
  optimal discriminator is :math:`\log p_{data} - \log p_\theta`. A copy
  :math:`\phi` of the circuit stands for the data, and the logit is

  .. math:: d(x) = \log p_\phi(x) - \log p_\theta(x),

  with :math:`\theta` frozen: 0 everywhere as long as they agree. Training
  :math:`\phi` by the logistic risk is noise-contrastive estimation with the sampler as
  noise (Gutmann and Hyvarinen 2010; Goodfellow 2015): its optimum is the density of
  the data whatever :math:`\theta` is, and unlike a free logit :math:`p_\phi` is always
  a normalized density, the generator one step ahead of itself. This is introspective
  learning (Tu 2007; Lazarow, Jin and Tu 2017): one model is sampler and discriminator,
  and improves on its own frozen state. For the sampler, :math:`-E\,d(y)`
  (the hinge loss) is exactly :math:`KL(p_\theta \| p_\phi)`, and its gradient through
  the samples alone is that of the divergence, since the score has mean 0 (Roeder, Wu
  and Duvenaud 2017): the reverse divergence, which LL training does not minimize.

References:
    Gutmann and Hyvarinen, "Noise-contrastive estimation", AISTATS 2010.
    Goodfellow, "On distinguishability criteria for estimating generative models", ICLR
    workshop 2015.
    Lazarow, Jin and Tu, "Introspective neural networks for generative modeling", ICCV
    2017; Tu, "Learning generative models via discriminative approaches", CVPR 2007.
    Roeder, Wu and Duvenaud, "Sticking the landing", NeurIPS 2017.
"""

from collections.abc import Callable
from typing import Any

import jax

from dspc_jax.networks.discriminators import Discriminator
from dspc_jax.types import Array, PyTree


def class_discriminator(
    class_log_probs: Callable[[Any, Array], Array],
    init: Callable[[Array], Any],
) -> Discriminator:
    r"""A discriminative circuit: :math:`d(x) = \log p(x|y=1) - \log p(x|y=0)`.

    Args:
        class_log_probs: ``(params, x[V, C]) -> [2]`` nats, of one example: a circuit's
            with two classes. Its leaves must be differentiable in x (Normal are).
        init: ``key -> params``.

    Returns:
        A `Discriminator`. Its logits are differences of log-densities of all variables,
        and so much larger than a network's; a penalty (R1) or the leaves' least scale
        keeps their gradients in bounds.

    Raises:
        ValueError: on use, the circuit does not have two classes.
    """

    def logits(params: PyTree, x: Array) -> Array:
        joint = jax.vmap(class_log_probs, (None, 0))(params, x)
        if joint.shape[1:] != (2,):
            raise ValueError(
                "class_log_probs must be those of a circuit with 2 classes, got "
                f"{joint.shape[-1]}"
            )
        return joint[:, 1] - joint[:, 0]

    return _without_noise(init, logits)


def density_ratio_discriminator(
    log_prob: Callable[[Any, Array], Array],
    generator_params: PyTree,
    init: Callable[[Array], Any],
) -> Discriminator:
    r"""The generator as discriminator, :math:`\log p_\phi(x) - \log p_\theta(x)`.

    Args:
        log_prob: ``(params, x[V, C]) -> []`` nats, of one example. The sampler learns
            from it only where it is differentiable in x.
        generator_params: :math:`\theta`, the sampler's current parameters, frozen: no
            gradient reaches them through this function.
        init: ``key -> params``, for :math:`\phi`; training should start from a copy of
            :math:`\theta`.

    Returns:
        A `Discriminator` of the parameters :math:`\phi`.
    """
    frozen = jax.lax.stop_gradient(generator_params)

    def logits(params: PyTree, x: Array) -> Array:
        log_probs = jax.vmap(log_prob, (None, 0))
        return log_probs(params, x) - log_probs(frozen, x)

    return _without_noise(init, logits)


def _without_noise(
    init: Callable[[Array], Any], logits: Callable[[Any, Array], Array]
) -> Discriminator:
    def train_logits(key: Array, params: PyTree, x: Array) -> Array:
        del key
        return logits(params, x)

    return Discriminator(init, logits, train_logits)
