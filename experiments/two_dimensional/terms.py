"""The objectives of the two-dimensional study, as terms that programs share."""

import jax
import numpy as np
import optax

import dspc_jax as pc
from dspc_jax.interfaces import Discriminator
from dspc_jax.networks import mlp_discriminator
from dspc_jax.objectives import (
    class_discriminator,
    exact_mmd_loss,
    gaussian_kernel,
    mmd_advantages,
    negative_log_likelihood,
)
from experiments.losses.discriminator import discriminator_term
from experiments.losses.mmd import MmdSettings, kernel_term
from experiments.losses.term import Term
from experiments.two_dimensional.settings import TrainingSettings, numbers

OBJECTIVES = ("ll", "mmd", "exact_mmd", "adv")
_MIN_SCALE, _MAX_SCALE = 0.05, 0.5  # the paper's bounds


def make_mixture(num_components: int, num_classes: int = 1) -> pc.Circuit:
    """A mixture of diagonal Gaussians with the paper's bounds on the deviation.

    Args:
        num_components: how many Gaussians.
        num_classes: mixtures of them, each with weights of its own.

    Returns:
        The circuit, over points ``[2, 1]``.
    """
    return pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(num_variables=2, depth=0),
            pc.UnitNormal(min_scale=_MIN_SCALE, max_scale=_MAX_SCALE),
            num_leaves=num_components,
            num_classes=num_classes,
        )
    )


def make_term(
    settings: TrainingSettings, name: str, circuit: pc.Circuit, data: jax.Array
) -> Term:
    """The loss of an objective, and what is trained against it.

    Args:
        settings: how.
        name: one of `OBJECTIVES`.
        circuit: what is trained; the parameters are ``{"circuit": ...}``.
        data: ``[N, 2, 1]`` training points.

    Returns:
        The term.
    """
    if name == "adv":
        return _adversarial_term(settings, data)
    if name == "mmd":
        return _mmd_term(settings)
    loss = _likelihood if name == "ll" else _exact_mmd
    return Term(name, loss(settings, circuit), draws=False)


def _likelihood(settings: TrainingSettings, circuit: pc.Circuit):
    del settings

    def loss(params, key, x, adversary, sample):
        del adversary, sample
        own = params["circuit"]
        return negative_log_likelihood(own, key, x, log_prob=circuit.log_prob)

    return loss


def _exact_mmd(settings: TrainingSettings, circuit: pc.Circuit):
    bandwidths, weights = _kernels(settings)

    def loss(params, key, x, adversary, sample):
        del adversary, sample
        return exact_mmd_loss(
            params["circuit"],
            key,
            x,
            circuit=circuit,
            bandwidths=bandwidths,
            weights=weights,
        )

    return loss


def _kernels(settings: TrainingSettings) -> tuple[tuple[float, ...], list[float]]:
    """Bandwidths and weights of the Gaussian kernels."""
    bandwidths = numbers(settings.bandwidths)
    return bandwidths, [h**-settings.kernel_slope for h in bandwidths]


def _mmd_term(settings: TrainingSettings) -> Term:
    kernel = gaussian_kernel(*_kernels(settings))
    root = settings.mmd_power == 1
    mmd = MmdSettings(
        mmd_estimator="biased" if root else "unbiased", mmd_power=settings.mmd_power
    )

    def advantages(x, samples, adversary):
        """Of the square, whose gradient is that of the root but for a factor."""
        del adversary
        return mmd_advantages(x, samples, kernel)

    return kernel_term(kernel, mmd)._replace(advantages=advantages)


def _adversarial_term(settings: TrainingSettings, data: jax.Array) -> Term:
    rate = optax.cosine_decay_schedule(
        settings.adv_learning_rate, settings.adv_steps * settings.num_steps
    )
    return discriminator_term(
        _discriminator(settings, data),
        optax.adam(rate, b1=0.5),
        loss=settings.adv_loss,
        num_steps=settings.adv_steps,
        r1_weight=settings.adv_r1_weight,
    )


def _discriminator(settings: TrainingSettings, data: jax.Array) -> Discriminator:
    if settings.adv_discriminator == "circuit":
        circuit = make_mixture(settings.adv_leaves, num_classes=2)
        return class_discriminator(
            circuit.class_log_probs, lambda key: circuit.init(key, data)
        )
    # Scaled to the data, so that one network does for all sets.
    low, high = (float(v) for v in np.quantile(np.asarray(data), (0.005, 0.995)))
    return mlp_discriminator(
        2,
        value_range=(low, high),
        hidden_sizes=numbers(settings.adv_hidden, int),
        dropout_rate=0.0,
    )
