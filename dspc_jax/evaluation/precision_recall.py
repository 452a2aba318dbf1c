r"""Precision, recall, density and coverage: separate measures of quality and variety.

Both sets of features stand for unions of balls: around each point, with the distance of
its k-th nearest neighbor in its own set as radius. With the balls of the data
:math:`B(x_i)` and those of the samples :math:`B(y_j)`:

- precision: the share of samples that lie in some :math:`B(x_i)`;
- recall: the share of data that lie in some :math:`B(y_j)`;
- density: the number of :math:`B(x_i)` around a sample, over k, on average. Unlike
  precision it does not take a single outlier of the data for support; it may exceed 1;
- coverage: the share of :math:`B(x_i)` that hold a sample. Unlike recall it does not
  trust balls around outliers among the samples.

References:
    Kynkaanniemi, Karras, Laine, Lehtinen and Aila, "Improved Precision and Recall
    Metric for Assessing Generative Models", NeurIPS 2019.
    Naeem, Oh, Uh, Choi and Yoo, "Reliable Fidelity and Diversity Metrics for Generative
    Models", ICML 2020.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dspc_jax.arguments import whole_number
from dspc_jax.evaluation.features import (
    as_features,
    blocks_of_rows,
    check_same_size,
    device_dtype,
)
from dspc_jax.objectives.kernels import common_center, squared_distances
from dspc_jax.types import Array


class PrecisionRecall(NamedTuple):
    """Four shares; see the module. Each but ``density`` lies between 0 and 1.

    Attributes:
        precision: share of the samples that lie in balls of data.
        recall: share of the data that lie in balls of samples.
        density: how many balls of data a sample lies in, in units of the expected
            number.
        coverage: share of the balls of data that hold a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    sample_features: ArrayLike,
    data_features: ArrayLike,
    *,
    num_neighbors: int = 5,
    block_size: int = 1024,
) -> PrecisionRecall:
    """Precision, recall, density and coverage of samples against data.

    All four depend on the sizes of both sets; compare sets of equal size only. For two
    sets drawn from the same distribution, precision and recall are below 1, density is
    1, and coverage is ``1 - 2 ** -num_neighbors`` if the sets are of equal size.

    Args:
        sample_features: ``[N, D]``, ``N > num_neighbors``.
        data_features: ``[M, D]``, ``M > num_neighbors``.
        num_neighbors: k. The published values are 5 (Naeem et al.) and, for precision
            and recall alone, 3 (Kynkaanniemi et al.).
        block_size: number of rows of distances in memory at once; memory is
            ``block_size * max(N, M)`` values beside the features.

    Returns:
        A `PrecisionRecall`. Distances are computed on JAX's device in float32; the
        balls are closed, up to the rounding of distances.

    Raises:
        ValueError: too few points, features that differ in size or are not finite.
    """
    num_neighbors = whole_number("num_neighbors", num_neighbors, least=1)
    least = num_neighbors + 1
    samples = as_features(
        "sample_features", sample_features, device_dtype(), least=least
    )
    data = as_features("data_features", data_features, device_dtype(), least=least)
    check_same_size(samples, data)
    shares = _shares(
        jnp.asarray(samples),
        jnp.asarray(data),
        num_neighbors=num_neighbors,
        block_size=block_size,
    )
    return PrecisionRecall(*map(float, shares))


@functools.partial(jax.jit, static_argnames=("num_neighbors", "block_size"))
def _shares(
    samples: Array, data: Array, *, num_neighbors: int, block_size: int
) -> tuple[Array, Array, Array, Array]:
    center = common_center(samples, data)
    sample_radii = _squared_radii(samples, center, num_neighbors, block_size)
    data_radii = _squared_radii(data, center, num_neighbors, block_size)
    # The distance of copies up to rounding (see squared_distances), so that a point on
    # the border of a ball lies in it, as the definition requires.
    largest = [jnp.max(jnp.sum((z - center[None]) ** 2, 1)) for z in (samples, data)]
    rounding = 8 * jnp.finfo(data.dtype).eps * jnp.maximum(*largest)
    sample_radii, data_radii = sample_radii + rounding, data_radii + rounding

    def compare(block: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        """For some samples: balls around each, balls that hold any, data in theirs."""
        rows, is_point = block
        distances = squared_distances(samples[rows], data, center=center)
        in_data = (distances <= data_radii[None]) & is_point[:, None]
        in_samples = (distances <= sample_radii[rows][:, None]) & is_point[:, None]
        return jnp.sum(in_data, 1), jnp.any(in_data, 0), jnp.any(in_samples, 0)

    rows = blocks_of_rows(samples.shape[0], block_size)
    num_balls, covered, reached = jax.lax.map(compare, rows)
    total = samples.shape[0]
    return (
        jnp.sum(num_balls > 0) / total,
        jnp.mean(jnp.any(reached, 0)),
        jnp.sum(num_balls) / (total * num_neighbors),
        jnp.mean(jnp.any(covered, 0)),
    )


def _squared_radii(
    points: Array, center: Array, num_neighbors: int, block_size: int
) -> Array:
    """Squared distances ``[N]`` to the k-th nearest other point."""

    def radii(block: tuple[Array, Array]) -> Array:
        rows, _ = block
        distances = squared_distances(points, points[rows], center=center)
        itself = jnp.arange(points.shape[0])[:, None] == rows[None]
        return _kth_smallest(jnp.where(itself, jnp.inf, distances), num_neighbors)

    blocks = blocks_of_rows(points.shape[0], block_size)
    return jax.lax.map(radii, blocks).reshape(-1)[: points.shape[0]]


def _kth_smallest(values: Array, k: int) -> Array:
    """The k-th smallest of each column, ``[N, B] -> [B]``, without sorting.

    Each step takes the next larger value and counts the values up to it, until there
    are k: a few passes over the values, where XLA's top_k on CPU sorts all of them.
    """

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        value, count = state
        larger = jnp.min(jnp.where(values > value[None], values, jnp.inf), 0)
        larger = jnp.where(count < k, larger, value)
        return larger, jnp.sum(values <= larger[None], 0)

    lowest = jnp.full(values.shape[1:], -jnp.inf, values.dtype)
    return jax.lax.fori_loop(0, k, step, (lowest, jnp.zeros_like(lowest, int)))[0]
