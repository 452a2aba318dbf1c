"""Measures of trained models: pure functions of values, never of files or clocks.

Distances take features ``[N, D]`` of any network. On those of the original Inception
network (`dspc_jax.evaluation.inception`), and on no others, they are the FID and the
KID.
"""

from dspc_jax.evaluation.code_length import bits_per_dimension
from dspc_jax.evaluation.colors import (
    NUM_COLOR_VALUES,
    color_codec,
    rgb_to_ycocg,
    ycocg_to_rgb,
)
from dspc_jax.evaluation.dequantization import (
    Codec,
    binary_codec,
    bits_per_example,
    level_codec,
    logit_codec,
    uniform_codec,
)
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
from dspc_jax.evaluation.wavelets import (
    inverse_wavelet_transform,
    num_wavelet_values,
    wavelet_codec,
    wavelet_transform,
)

__all__ = [
    "NUM_COLOR_VALUES",
    "Codec",
    "FrechetInfinity",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "Statistics",
    "binary_codec",
    "bits_per_dimension",
    "bits_per_example",
    "color_codec",
    "diversity",
    "frechet_distance",
    "frechet_distance_infinity",
    "frechet_distance_of_statistics",
    "inception_score",
    "inverse_wavelet_transform",
    "kernel_distance",
    "level_codec",
    "logit_codec",
    "merge",
    "num_wavelet_values",
    "precision_recall",
    "random_masks",
    "rgb_to_ycocg",
    "statistics",
    "stripe_masks",
    "uniform_codec",
    "wavelet_codec",
    "wavelet_transform",
    "ycocg_to_rgb",
]
