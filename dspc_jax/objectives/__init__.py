"""Objectives: pure functions ``loss(params, key, batch, ...) -> (scalar, metrics)``.

They see a circuit through its functions (``log_prob``, a sampler) and never import a
layer. `dspc_jax.learning.balance` adds their gradients.
"""

from dspc_jax.objectives.adversarial import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    discriminator_risk,
    generator_loss,
    generator_risk,
    gradient_penalty,
    r1_penalty,
    sample_spread,
)
from dspc_jax.objectives.augmentation import AUGMENTATIONS, augment_images
from dspc_jax.objectives.auto_encoding import (
    Decoder,
    Encoder,
    auto_encoding_loss,
    bernoulli_cross_entropy,
    circuit_decoder,
    circuit_encoder,
    squared_error,
)
from dspc_jax.objectives.circuit_discriminators import (
    class_discriminator,
    density_ratio_discriminator,
)
from dspc_jax.objectives.code_usage import (
    active_latents,
    code_divergences,
    code_spread,
)
from dspc_jax.objectives.exact_mmd import exact_mmd_loss
from dspc_jax.objectives.kernels import (
    Kernel,
    gaussian_kernel,
    median_bandwidths,
    rational_quadratic_kernel,
    squared_distances,
)
from dspc_jax.objectives.likelihood import negative_log_likelihood
from dspc_jax.objectives.mmd import mmd2_biased, mmd2_unbiased, mmd_loss, safe_sqrt
from dspc_jax.objectives.mmd_gan import (
    clip_encoder,
    critic_loss,
    critic_steps,
    rank_hinge,
    repeat_update,
    sampler_loss,
)
from dspc_jax.objectives.penalized_mmd import penalized_critic_loss, witness
from dspc_jax.objectives.perceptual import (
    Features,
    feature_discriminator,
    feature_kernel,
)
from dspc_jax.objectives.rebar import rebar_surrogate
from dspc_jax.objectives.score import SCORE_ESTIMATORS, Objective, with_score
from dspc_jax.objectives.score_function import (
    mean_advantages,
    mmd_advantages,
    score_surrogate,
    set_advantages,
)
from dspc_jax.objectives.variational import gaussian_kl, variational_loss

__all__ = [
    "AUGMENTATIONS",
    "ADVERSARIAL_LOSSES",
    "Decoder",
    "Encoder",
    "Features",
    "Kernel",
    "Objective",
    "SCORE_ESTIMATORS",
    "active_latents",
    "augment_images",
    "auto_encoding_loss",
    "bernoulli_cross_entropy",
    "circuit_decoder",
    "circuit_encoder",
    "squared_error",
    "class_discriminator",
    "clip_encoder",
    "code_divergences",
    "code_spread",
    "critic_loss",
    "critic_steps",
    "exact_mmd_loss",
    "density_ratio_discriminator",
    "discriminator_loss",
    "discriminator_risk",
    "feature_discriminator",
    "feature_kernel",
    "gaussian_kernel",
    "gaussian_kl",
    "generator_loss",
    "generator_risk",
    "gradient_penalty",
    "mean_advantages",
    "median_bandwidths",
    "mmd2_biased",
    "mmd2_unbiased",
    "mmd_advantages",
    "mmd_loss",
    "negative_log_likelihood",
    "penalized_critic_loss",
    "r1_penalty",
    "rank_hinge",
    "rational_quadratic_kernel",
    "rebar_surrogate",
    "repeat_update",
    "safe_sqrt",
    "sample_spread",
    "sampler_loss",
    "score_surrogate",
    "set_advantages",
    "squared_distances",
    "variational_loss",
    "with_score",
    "witness",
]
