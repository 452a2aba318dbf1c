r"""Kernels of pairwise squared distances, for the maximum mean discrepancy.

A `Kernel` is a pair of pure functions of squared distances: the kernel itself,
:math:`k(d^2)`, and its excess :math:`k(d^2) - k(0)` without cancellation. The
estimators of the MMD do not change when a constant is added to the kernel, and where
all distances are far below the bandwidths (the features of an encoder with clipped
weights) :math:`k` is 1 up to the last bits of float32, while its excess keeps its
digits.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import math
from typing import NamedTuple

import jax
from jax.core import Tracer
from jax.lax import Precision
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.ops.meshes import placed
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array


class Kernel(NamedTuple):
    """A kernel that depends on the Euclidean distance alone.

    Attributes:
        value: ``value(squared_distances) -> k``, elementwise, positive definite.
        excess: ``excess(squared_distances) -> k - k(0)``, elementwise, ``<= 0``,
            accurate to rounding where ``value`` is close to ``k(0)``.
    """

    value: Callable[[Array], Array]
    excess: Callable[[Array], Array]


def as_points(x: ArrayLike) -> Array:
    """Flattens ``[N, ...]`` to float32 points ``[N, D]`` (float64 stays float64)."""
    x = as_values("points", x)
    if x.ndim < 1:
        raise ValueError(
            f"points must have an axis of examples, got the shape {x.shape}"
        )
    return x.reshape(x.shape[0], -1)


def squared_distances(
    x: ArrayLike, y: ArrayLike | None = None, *, center: Array | None = None
) -> Array:
    r"""All pairwise squared Euclidean distances of two sets of points.

    With the center :math:`c` taken off both sets,
    :math:`d^2_{ij} = \|x_i\|^2 + \|y_j\|^2 - 2 \langle x_i, y_j \rangle`: one matrix
    product and no array ``[N, M, D]``. The rounding error is about
    :math:`10^{-7} (\|x_i - c\|^2 + \|y_j - c\|^2)`, small against the typical distance
    because the points are centered; it is not small against :math:`\|x_i - y_j\|^2` of
    two near copies, which are read as copies. The product runs in full float32 on
    every device.

    Args:
        x: ``[N, ...]`` points; the trailing axes are flattened.
        y: ``[M, ...]`` points, or None for the distances within ``x``, where the
            diagonal is 0 exactly, and so is its gradient.
        center: ``[D]``, a point near the data; the mean of all points by default.
            Distances do not depend on it, and no gradient flows through it.

    Returns:
        ``[N, M]``, ``>= 0``. The gradient of an entry that rounding made negative is 0.

    Raises:
        ValueError: the points of the two sets differ in size.
    """
    x = as_points(x)
    other = x if y is None else as_points(y)
    if x.shape[1] != other.shape[1]:
        raise ValueError(
            "x and y must hold points of one size, "
            f"got {x.shape[1]} and {other.shape[1]} values per point"
        )
    if center is None:
        center = common_center(x, other)
    center = jax.lax.stop_gradient(center)
    rows = PartitionSpec(jax.typeof(x).sharding.spec[0])
    distances = placed(_squared_distances, rows)(x, other, center)
    if y is None:
        distances = jnp.where(jnp.eye(x.shape[0], dtype=bool), 0, distances)
    return distances


def _squared_distances(x: Array, y: Array, center: Array) -> Array:
    x, y = x - center[None], y - center[None]
    product = jnp.matmul(x, y.T, precision=Precision.HIGHEST)
    norms = jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)[None, :]
    return jnp.maximum(norms - 2 * product, 0)


def common_center(x: ArrayLike, y: ArrayLike) -> Array:
    """The mean point ``[D]`` of two sets of points, each counted half."""
    return (jnp.mean(as_points(x), 0) + jnp.mean(as_points(y), 0)) / 2


def gaussian_kernel(
    bandwidths: Array | Sequence[float] | float,
    *,
    weights: Sequence[float] | None = None,
) -> Kernel:
    r"""A sum of Gaussian kernels.

    .. math:: k(d^2) = \sum_s w_s \exp\left(-\frac{d^2}{2 \sigma_s^2}\right)

    Args:
        bandwidths: the :math:`\sigma_s > 0`, ``[S]`` or a scalar, in the units of the
            points; may be traced. Several bandwidths, a factor of two apart, replace
            the choice of a single one; `median_bandwidths` scales them to the data.
        weights: the :math:`w_s > 0`, one per bandwidth; 1 each by default. Few pairs of
            points are as near as a small bandwidth, so that larger ones outweigh it
            unless, say, :math:`w_s = 1 / \sigma_s`.

    Returns:
        The kernel; :math:`k(0) = \sum_s w_s`.

    Raises:
        ValueError: no bandwidth, a plain number among them is not positive and finite,
            or another number of weights than of bandwidths.

    References:
        Li, Chang, Cheng, Yang and Poczos, "MMD GAN", NeurIPS 2017 (section 4).
    """
    sigmas = _positive("bandwidths", bandwidths)
    factors = [1.0] * len(sigmas) if weights is None else _positive("weights", weights)
    if len(factors) != len(sigmas):
        raise ValueError(
            f"weights must be as many as the {len(sigmas)} bandwidths, "
            f"got {len(factors)}"
        )
    terms = list(zip(sigmas, factors, strict=True))

    def value(distances: Array) -> Array:
        return _sum(w * jnp.exp(-distances / (2 * s**2)) for s, w in terms)

    def excess(distances: Array) -> Array:
        return _sum(w * jnp.expm1(-distances / (2 * s**2)) for s, w in terms)

    return Kernel(value, excess)


def rational_quadratic_kernel(
    alphas: Array | Sequence[float] | float = (0.2, 0.5, 1.0, 2.0, 5.0),
    bandwidth: Array | float = 1.0,
    *,
    linear_weight: float = 0.0,
) -> Kernel:
    r"""A sum of rational quadratic kernels, scale mixtures of Gaussian kernels.

    .. math:: k(d^2) = \sum_a \left(1 + \frac{d^2}{2 a \sigma^2}\right)^{-a}

    Its tails are heavy: its gradient stays useful for samples far from the data.

    *With a linear kernel.* :math:`w \langle x, y \rangle / \sigma^2` may be added. As a
    function of distances it is :math:`-w d^2 / 2 \sigma^2`: since
    :math:`\langle x, y \rangle = (\|x\|^2 + \|y\|^2 - d^2) / 2`, and since functions
    of one of the two points drop out of every estimate of the MMD, of the differences
    of its witness function, and of their gradients, both give the same.

    Args:
        alphas: the exponents :math:`a > 0`, ``[S]`` or a scalar.
        bandwidth: :math:`\sigma > 0` in the units of the points; may be traced.
        linear_weight: :math:`w \ge 0`. Where it is positive, ``value`` is the kernel up
            to functions of one point: positive definite on differences only.

    Returns:
        The kernel; :math:`k(0) = S`.

    Raises:
        ValueError: no exponent, a plain number is not positive and finite, or the
            weight is negative.

    References:
        Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018.
    """
    if not 0 <= linear_weight < math.inf:
        raise ValueError(
            f"linear_weight must be at least 0 and finite, got {linear_weight}"
        )
    exponents = _positive("alphas", alphas)
    (sigma,) = _positive("bandwidth", bandwidth)

    def log_terms(distances: Array) -> list[Array]:
        return [-a * jnp.log1p(distances / (2 * a * sigma**2)) for a in exponents]

    def linear(distances: Array) -> list[Array]:
        return [-linear_weight / (2 * sigma**2) * distances] if linear_weight else []

    def value(distances: Array) -> Array:
        terms = [jnp.exp(t) for t in log_terms(distances)]
        return _sum(terms + linear(distances))

    def excess(distances: Array) -> Array:
        terms = [jnp.expm1(t) for t in log_terms(distances)]
        return _sum(terms + linear(distances))

    return Kernel(value, excess)


def median_bandwidths(
    data: Array,
    multipliers: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    *,
    max_points: int = 1000,
) -> Array:
    r"""Bandwidths in proportion to the median distance of the data.

    :math:`\sigma_s = m_s \operatorname{median}_{i<j} \|x_i - x_j\|`, so that data in
    other units (``c x`` for ``x``) give ``c`` times the bandwidths and the same kernel.

    Args:
        data: ``[N, ...]`` points, ``N >= 2``. At most ``max_points`` of them, evenly
            spaced in their order, enter the median.
        multipliers: the :math:`m_s > 0`, at least one.
        max_points: the largest subset, at least 2; its distances are one array.

    Returns:
        ``[S]`` positive bandwidths. Where the median distance is 0 (more than half of
        the pairs are copies) the mean of the positive distances stands in for it, and 1
        where there is none. No gradient flows through bandwidths.

    Raises:
        ValueError: fewer than two points, or a multiplier that is not positive.

    References:
        Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, section 8 (the median
        heuristic).
    """
    scales = _positive("multipliers", multipliers)
    max_points = whole_number("max_points", max_points, least=2)
    data = as_values("data", data)
    num_points = data.shape[0] if data.ndim else 0
    if num_points < 2:
        raise ValueError(f"data must hold at least two points, got {num_points}")
    num_used = min(num_points, max_points)
    rows = [i * num_points // num_used for i in range(num_used)]
    unit = _typical_distance(as_points(data[jnp.asarray(rows)]))
    return jax.lax.stop_gradient(unit * jnp.asarray(scales, unit.dtype))


@jax.jit
def _typical_distance(points: Array) -> Array:
    """The unit of `median_bandwidths` for points ``[N, D]``."""
    squares = squared_distances(points)[jnp.triu_indices(len(points), 1)]
    # Distances of exact copies up to rounding (see squared_distances) count as 0.
    radius = jnp.max(jnp.sum((points - jnp.mean(points, 0)[None]) ** 2, 1))
    rounding = 8 * jnp.finfo(points.dtype).eps * radius  # a few roundings of two norms
    distances = jnp.sqrt(jnp.where(squares <= rounding, 0, squares))
    median = jnp.median(distances)
    num_positive = jnp.sum((distances > 0).astype(distances.dtype))
    mean = jnp.sum(distances) / jnp.maximum(num_positive, 1)
    instead = jnp.where(num_positive > 0, mean, 1.0)
    return jnp.where(median == 0, instead, median)


def _sum(terms: Iterable[Array]) -> Array:
    """The sum of at least one array."""
    return functools.reduce(jnp.add, terms)


def _positive(name: str, values: Array | Sequence[float] | float) -> list:
    """Splits into scalars; checks them where they are known while tracing."""
    if isinstance(values, Tracer):
        scalars = list(jnp.reshape(values, (-1,)))
    else:
        scalars = [float(value) for value in np.ravel(values)]
        for value in scalars:
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
    if not scalars:
        raise ValueError(f"{name} must hold at least one number, got none")
    return scalars
