r"""Adversarial losses: samples learn to pass for data before a discriminator.

With logits :math:`d` (log-odds of "data"), :math:`s = \operatorname{softplus}`, data x
and samples y:

=========  ===================================  ===================
loss       discriminator minimizes              sampler minimizes
=========  ===================================  ===================
vanilla    :math:`E\,s(-d(x)) + E\,s(d(y))`     :math:`E\,s(-d(y))`
minmax     the same                             :math:`-E\,s(d(y))`
log_ratio  the same                             :math:`-E\,d(y)`
hinge      :math:`E(1-d(x))_+ + E(1+d(y))_+`    :math:`-E\,d(y)`
=========  ===================================  ===================

``minmax`` is the value in the paper, ``vanilla`` (non-saturating) the one in its
source: there the sampler's gradient does not vanish while the discriminator is certain.
``log_ratio`` is, for the best discriminator, the divergence :math:`KL(q \| p)` of the
samples' distribution q from that of the data, p. The discriminator's loss may include
R1 or the gradient penalty.

One step of each, with pure functions throughout::

    grads, metrics = jax.grad(discriminator_loss, has_aux=True)(
        discriminator_params, key, batch,
        params=params, sample=sample, discriminator=discriminator,
    )
    grads, metrics = jax.grad(generator_loss, has_aux=True)(
        params, key, batch, sample=sample, discriminator=discriminator,
        discriminator_params=discriminator_params,
    )

References:
    Goodfellow et al., "Generative adversarial nets", NeurIPS 2014 (vanilla, minmax).
    Lim and Ye, "Geometric GAN", 2017 (hinge).
    Lucas, Shmelkov, Alahari, Schmid and Verbeek, "Adaptive Density Estimation for
    Generative Models", NeurIPS 2019 (log_ratio).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from dspc_jax.interfaces import Discriminator
from dspc_jax.ops.numerics import safe_sqrt
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree

ADVERSARIAL_LOSSES = ("vanilla", "minmax", "log_ratio", "hinge")

Augment: TypeAlias = Callable[[Array, Array], Array]
"""``(key, x[B, V, C]) -> [B, V, C]``, differentiable in x."""


def discriminator_risk(real: Array, fake: Array, *, loss: str = "vanilla") -> Array:
    """The discriminator's part of the table above.

    Args:
        real: ``[B]`` logits of data.
        fake: ``[M]`` logits of samples.
        loss: one of `ADVERSARIAL_LOSSES`.

    Returns:
        A scalar; ``2 log 2`` for logits of 0 (hinge: 2), 0 for a perfect discriminator.

    Raises:
        ValueError: an unknown loss.
    """
    _check_loss(loss)
    if loss == "hinge":
        return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_risk(fake: Array, *, loss: str = "vanilla") -> Array:
    """The sampler's part of the table above.

    Args:
        fake: ``[M]`` logits of samples.
        loss: one of `ADVERSARIAL_LOSSES`.

    Returns:
        A scalar; smaller where the samples pass for data.

    Raises:
        ValueError: an unknown loss.
    """
    _check_loss(loss)
    if loss in ("log_ratio", "hinge"):
        return -jnp.mean(fake)
    if loss == "minmax":
        return -jnp.mean(jax.nn.softplus(fake))
    return jnp.mean(jax.nn.softplus(-fake))


def discriminator_loss(
    discriminator_params: PyTree,
    key: Key,
    batch: Array,
    *,
    params: PyTree,
    sample: Callable[[Array, Any], Array],
    discriminator: Discriminator,
    loss: str = "vanilla",
    augment: Augment | None = None,
    r1_weight: float = 0.0,
    gradient_penalty_weight: float = 0.0,
) -> tuple[Array, Metrics]:
    r"""The discriminator's loss: its risk and its penalties.

    Args:
        discriminator_params: the parameters to train.
        key: one typed key.
        batch: ``[B, V, C]`` data in the discriminator's units.
        params: the sampler's parameters; no gradient reaches them.
        sample: ``sample(keys[B], params) -> [B, V, C]``; need not be differentiable.
        discriminator: its functions.
        loss: one of `ADVERSARIAL_LOSSES`.
        augment: augmentation of data and samples alike, each with its own key.
        r1_weight: :math:`\gamma` of `r1_penalty`, added as :math:`\frac\gamma2 R_1`.
        gradient_penalty_weight: weight of `gradient_penalty`; 10 in its source.

    Returns:
        The loss, and the metrics ``loss`` (without penalties), ``real_logit``,
        ``fake_logit`` (means), ``real_accuracy`` and ``fake_accuracy`` (shares of data
        and samples that are recognized: 0.5 each by chance, 1 each for a perfect
        discriminator), and ``r1`` and ``gradient_penalty`` where their weights are
        positive.

    Raises:
        ValueError: an unknown loss, or a negative weight.
    """
    for name, weight in (
        ("r1_weight", r1_weight),
        ("gradient_penalty_weight", gradient_penalty_weight),
    ):
        if weight < 0:
            raise ValueError(f"{name} must be at least 0, got {weight}")
    batch = as_values("batch", batch)
    sample_key, real_key, fake_key, noise_key, mix_key = jax.random.split(key, 5)
    real_noise, fake_noise = jax.random.split(noise_key)
    fake = sample(jax.random.split(sample_key, batch.shape[0]), params)
    fake, real = jax.lax.stop_gradient(fake), batch
    if augment is not None:
        real, fake = augment(real_key, real), augment(fake_key, fake)
    real_logits = discriminator.train_logits(real_noise, discriminator_params, real)
    fake_logits = discriminator.train_logits(fake_noise, discriminator_params, fake)
    risk = discriminator_risk(real_logits, fake_logits, loss=loss)
    metrics = {
        "loss": risk,
        "real_logit": jnp.mean(real_logits),
        "fake_logit": jnp.mean(fake_logits),
        "real_accuracy": _share_above(real_logits),
        "fake_accuracy": 1 - _share_above(fake_logits),
    }

    def logits(x: Array) -> Array:
        return discriminator.logits(discriminator_params, x)

    total = risk
    if r1_weight:
        metrics["r1"] = r1_penalty(logits, real)
        total = total + 0.5 * r1_weight * metrics["r1"]
    if gradient_penalty_weight:
        metrics["gradient_penalty"] = gradient_penalty(mix_key, logits, real, fake)
        total = total + gradient_penalty_weight * metrics["gradient_penalty"]
    return total, metrics


def generator_loss(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    discriminator_params: PyTree,
    sample: Callable[[Array, Any], Array],
    discriminator: Discriminator,
    loss: str = "vanilla",
    augment: Augment | None = None,
) -> tuple[Array, Metrics]:
    """The sampler's loss, on one sample per example of the batch.

    Args:
        params: the sampler's parameters.
        key: one typed key.
        batch: ``[B, V, C]`` data; it enters the metrics alone.
        discriminator_params: the discriminator's parameters; differentiate ``params``
            alone.
        sample: ``sample(keys[B], params) -> [B, V, C]``, differentiable.
        discriminator: its functions.
        loss: one of `ADVERSARIAL_LOSSES`.
        augment: the augmentation in the discriminator's loss.

    Returns:
        The loss, and the metrics ``deceived`` (the share of samples that pass for data)
        and ``sample_spread``: the total variance of the samples over that of the batch,
        near 1 where the sampler covers the data and near 0 where it has collapsed.

    Raises:
        ValueError: an unknown loss.
    """
    batch = as_values("batch", batch)
    sample_key, augment_key, noise_key = jax.random.split(key, 3)
    fake = sample(jax.random.split(sample_key, batch.shape[0]), params)
    augmented = fake if augment is None else augment(augment_key, fake)
    logits = discriminator.train_logits(noise_key, discriminator_params, augmented)
    return generator_risk(logits, loss=loss), {
        "deceived": _share_above(logits),
        "sample_spread": sample_spread(fake, batch),
    }


def r1_penalty(logits: Callable[[Array], Array], x: Array) -> Array:
    r"""The zero-centered penalty :math:`R_1 = E \|\nabla_x d(x)\|^2` on data.

    Args:
        logits: ``[B, V, C] -> [B]``; each depends on its own example alone.
        x: ``[B, V, C]`` data.

    Returns:
        A scalar, at least 0.

    References:
        Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually
        converge?", ICML 2018, equation 9.
    """
    return jnp.mean(_squared_norms(logits, as_values("x", x)))


def gradient_penalty(
    key: Key, logits: Callable[[Array], Array], x: Array, y: Array
) -> Array:
    r"""The one-centered penalty :math:`E(\|\nabla d(z)\| - 1)^2` on lines x to y.

    Args:
        key: one typed key, for the places :math:`z = x + u (y - x)`, u uniform per
            pair.
        logits: ``[B, V, C] -> [B]``; each depends on its own example alone.
        x: ``[B, V, C]`` data.
        y: ``[B, V, C]`` samples.

    Returns:
        A scalar, at least 0; its derivatives are finite where the gradient is 0.

    References:
        Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017.
    """
    x, y = as_values("x", x), as_values("y", y)
    place = jax.random.uniform(
        key, (x.shape[0],) + (1,) * (x.ndim - 1), jnp.float32
    ).astype(x.dtype)
    squares = _squared_norms(logits, x + place * (y - x))
    # The root of a sum of squares has no derivative at 0.
    return jnp.mean((safe_sqrt(squares) - 1) ** 2)


def sample_spread(samples: Array, batch: Array) -> Array:
    """The total variance of samples over that of data: a sign of collapse near 0.

    Args:
        samples: ``[M, V, C]``.
        batch: ``[B, V, C]``.

    Returns:
        A scalar, at least 0, without a gradient; finite for a batch of copies.
    """

    def total(x: Array) -> Array:
        return jnp.sum(jnp.var(x, axis=0))

    samples, batch = as_values("samples", samples), as_values("batch", batch)
    return jax.lax.stop_gradient(total(samples) / jnp.maximum(total(batch), 1e-12))


def _squared_norms(logits: Callable[[Array], Array], x: Array) -> Array:
    """The squared norm of every example's gradient, ``[B]``."""
    gradients = jax.grad(lambda x: jnp.sum(logits(x)))(x)
    return jnp.sum(gradients**2, axis=tuple(range(1, x.ndim)))


def _share_above(logits: Array) -> Array:
    """The share of logits above 0; those at 0 count half."""
    return jnp.mean(0.5 * (jnp.sign(logits) + 1))


def _check_loss(loss: str) -> None:
    if loss not in ADVERSARIAL_LOSSES:
        raise ValueError(
            f"loss must be one of {', '.join(ADVERSARIAL_LOSSES)}, got {loss!r}"
        )
