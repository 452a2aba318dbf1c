"""Measures of trained models: pure functions of values, never of files or clocks.

Distances take features ``[N, D]`` from any network. Only on the features of the
original Inception network (`dspc_jax.networks`) are they the FID and the KID.
"""

from dspc_jax.evaluation.code_length import bits_per_dimension
from dspc_jax.evaluation.discrepancy import MmdEstimate, mmd_estimate
from dspc_jax.evaluation.frechet import (
    FrechetInfinity,
    Statistics,
    frechet_distance,
    frechet_distance_infinity,
    frechet_distance_of_statistics,
    merge,
    statistics,
)
from dspc_jax.evaluation.kernel_distance import KernelDistance, kernel_distance

__all__ = [
    "FrechetInfinity",
    "KernelDistance",
    "MmdEstimate",
    "Statistics",
    "bits_per_dimension",
    "frechet_distance",
    "frechet_distance_infinity",
    "frechet_distance_of_statistics",
    "kernel_distance",
    "merge",
    "mmd_estimate",
    "statistics",
]
