"""Objectives: pure functions ``loss(params, key, batch, ...) -> (scalar, metrics)``.

They see a circuit through its functions (``log_prob``, a sampler) and never import a
layer. Any weighted sum of them is again one: `weighted_sum`.
"""

from dspc_jax.objectives.composition import Objective, weighted_sum
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
from dspc_jax.objectives.score_function import (
    mean_advantages,
    mmd_advantages,
    score_function_loss,
    score_surrogate,
    set_advantages,
)

__all__ = [
    "Kernel",
    "Objective",
    "clip_encoder",
    "critic_loss",
    "critic_steps",
    "gaussian_kernel",
    "mean_advantages",
    "median_bandwidths",
    "mmd2_biased",
    "mmd2_unbiased",
    "mmd_advantages",
    "mmd_loss",
    "negative_log_likelihood",
    "rank_hinge",
    "rational_quadratic_kernel",
    "repeat_update",
    "safe_sqrt",
    "sampler_loss",
    "score_function_loss",
    "score_surrogate",
    "set_advantages",
    "squared_distances",
    "weighted_sum",
]
