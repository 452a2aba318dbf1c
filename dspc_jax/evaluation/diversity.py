"""Distances between samples, in units of those between data."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dspc_jax.evaluation.features import (
    as_features,
    blocks_of_rows,
    check_same_size,
    device_dtype,
)
from dspc_jax.objectives.kernels import squared_distances
from dspc_jax.types import Array


def diversity(
    sample_features: ArrayLike, data_features: ArrayLike, *, block_size: int = 1024
) -> float:
    r"""The mean distance of two samples over the mean distance of two data points.

    .. math:: \frac{E \|y - y'\|}{E \|x - x'\|}, \quad y \ne y', x \ne x'

    It is 0 if all samples are equal (a collapsed model), 1 for samples from the data's
    distribution, and above 1 for samples that scatter more (such as noise). Both means
    are unbiased, and there is no scale to choose. It does not measure quality, and a
    model of two distant points may have the value 1: read it beside recall and
    coverage.

    Args:
        sample_features: ``[N, D]``, ``N >= 2``; pixels or features of a network.
        data_features: ``[M, D]``, ``M >= 2``, the same for data.
        block_size: number of rows of distances in memory at once.

    Returns:
        The ratio, ``>= 0``; ``inf`` or NaN where all data points are equal. It is
        computed on JAX's device in float32.

    Raises:
        ValueError: too few points, features that differ in size or are not finite.
    """
    samples = as_features("sample_features", sample_features, device_dtype(), least=2)
    data = as_features("data_features", data_features, device_dtype(), least=2)
    check_same_size(samples, data)
    means = [
        float(_mean_distance(jnp.asarray(points), block_size=block_size))
        for points in (samples, data)
    ]
    if means[1] == 0:
        return float("inf") if means[0] else float("nan")
    return means[0] / means[1]


@functools.partial(jax.jit, static_argnames="block_size")
def _mean_distance(points: Array, *, block_size: int) -> Array:
    center = jnp.mean(points, 0)
    total = points.shape[0]

    def mean(block: tuple[Array, Array]) -> Array:
        rows, is_point = block
        distances = jnp.sqrt(squared_distances(points[rows], points, center=center))
        itself = rows[:, None] == jnp.arange(total)[None]
        distances = jnp.where(itself, 0.0, distances)
        return jnp.where(is_point, jnp.sum(distances, 1), 0.0) / (total - 1)

    return jnp.sum(jax.lax.map(mean, blocks_of_rows(total, block_size))) / total
