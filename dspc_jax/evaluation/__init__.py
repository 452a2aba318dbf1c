"""Measures of trained models: pure functions of values, never of files or clocks.

Distances take features ``[N, D]`` from any network. Only on the features of the
original Inception network (`dspc_jax.networks`) are they the FID and the KID.
"""

from dspc_jax.evaluation.code_length import bits_per_dimension
from dspc_jax.evaluation.diversity import diversity
from dspc_jax.evaluation.frechet import (
    FrechetInfinity,
    Statistics,
    frechet_distance,
    frechet_distance_infinity,
    frechet_distance_of_statistics,
    merge,
    statistics,
)
from dspc_jax.evaluation.inception_score import InceptionScore, inception_score
from dspc_jax.evaluation.kernel_distance import KernelDistance, kernel_distance
from dspc_jax.evaluation.masks import random_masks, stripe_masks
from dspc_jax.evaluation.precision_recall import PrecisionRecall, precision_recall

__all__ = [
    "FrechetInfinity",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "Statistics",
    "bits_per_dimension",
    "diversity",
    "frechet_distance",
    "frechet_distance_infinity",
    "frechet_distance_of_statistics",
    "inception_score",
    "kernel_distance",
    "merge",
    "precision_recall",
    "random_masks",
    "statistics",
    "stripe_masks",
]
