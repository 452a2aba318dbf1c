"""Objectives: pure functions ``loss(params, key, batch, ...) -> (scalar, metrics)``.

They see a circuit through its functions (``log_prob``, a sampler) and never import a
layer. Any weighted sum of them is again one: `weighted_sum`.
"""

from dspc_jax.objectives.composition import Objective, weighted_sum
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

__all__ = [
    "Kernel",
    "Objective",
    "clip_encoder",
    "critic_loss",
    "critic_steps",
    "exact_mmd_loss",
    "gaussian_kernel",
    "median_bandwidths",
    "mmd2_biased",
    "mmd2_unbiased",
    "mmd_loss",
    "negative_log_likelihood",
    "rank_hinge",
    "rational_quadratic_kernel",
    "repeat_update",
    "safe_sqrt",
    "sampler_loss",
    "squared_distances",
    "weighted_sum",
]
