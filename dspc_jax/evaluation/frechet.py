r"""The Frechet distance of two sets of features, as if both were Gaussian.

.. math:: d^2 = \|\mu_x - \mu_y\|^2 + \operatorname{tr}\left(
          \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2}\right)

On the 2048 features of the original Inception network this is the FID; on features of
any other network it is not, and must not be called so. Everything here runs in float64
on the host: in float32 the difference of three traces would lose all digits.

References:
    Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, "GANs Trained by a Two
    Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.
"""

from typing import NamedTuple

from jax.typing import ArrayLike
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.evaluation.features import as_features, check_same_size


class Statistics(NamedTuple):
    """Moments of a set of features.

    Attributes:
        num_images: N.
        mean: ``[D]`` float64.
        covariance: ``[D, D]`` float64, with N - 1 in the denominator; 0 if ``N < 2``.
    """

    num_images: int
    mean: np.ndarray
    covariance: np.ndarray


def statistics(features: ArrayLike) -> Statistics:
    """The moments of one batch of features; batches are joined by `merge`.

    Args:
        features: ``[N, D]``, finite, ``N >= 1``.

    Returns:
        The `Statistics`, computed in two passes (the mean is taken off first).

    Raises:
        ValueError: the shape is another, or a value is not finite.
    """
    x = as_features("features", features, least=1)
    mean = x.mean(0)
    x = x - mean[None]
    return Statistics(len(x), mean, x.T @ x / max(len(x) - 1, 1))


def merge(a: Statistics, b: Statistics) -> Statistics:
    r"""The moments of the union of two sets, from theirs.

    With :math:`\delta = \mu_b - \mu_a`, the sums of squares :math:`(N - 1) \Sigma` add
    up, together with :math:`\frac{N_a N_b}{N_a + N_b} \delta \delta^T`: no large
    numbers are subtracted, whatever the mean. Associative and commutative up to
    rounding, so that batches may come in any order: ``functools.reduce(merge,
    map(statistics, batches))``.

    Args:
        a: the moments of one set.
        b: the moments of another, with features of the same size.

    Returns:
        The `Statistics` of both.

    Raises:
        ValueError: the features differ in size.

    References:
        Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The
        American Statistician 1983.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            "statistics must be of features of one size, "
            f"got {a.mean.size} and {b.mean.size}"
        )
    count = a.num_images + b.num_images
    if count == 0:
        return a
    step = b.mean - a.mean
    squares = (
        max(a.num_images - 1, 0) * a.covariance
        + max(b.num_images - 1, 0) * b.covariance
    )
    squares += np.outer(step, step) * (a.num_images * b.num_images / count)
    mean = a.mean + step * (b.num_images / count)
    return Statistics(count, mean, squares / max(count - 1, 1))


def frechet_distance(x_features: ArrayLike, y_features: ArrayLike) -> float:
    """The (squared) Frechet distance of two sets of features.

    Biased upwards, by about a constant over N that depends on the model; compare sets
    of equal size only, or see `frechet_distance_infinity`.

    Args:
        x_features: ``[N, D]``, ``N >= 2``.
        y_features: ``[M, D]``, ``M >= 2``.

    Returns:
        The distance, ``>= 0``, in squared units of the features.

    Raises:
        ValueError: fewer than two points in a set, sizes that differ, or a value that
            is not finite.
    """
    x = as_features("x_features", x_features, least=2)
    y = as_features("y_features", y_features, least=2)
    check_same_size(x, y)
    return frechet_distance_of_statistics(statistics(x), statistics(y))


def frechet_distance_of_statistics(x: Statistics, y: Statistics) -> float:
    r"""The (squared) Frechet distance from the moments of both sets.

    With :math:`\Sigma_x = A A^T` and :math:`\Sigma_y = B B^T`, the trace of
    :math:`(\Sigma_x \Sigma_y)^{1/2}` is the sum of the singular values of
    :math:`A^T B`. Singular covariances (fewer images than features) need no ridge, and
    there are no complex numbers.

    Args:
        x: moments of a set of at least two images.
        y: moments of another.

    Returns:
        The distance, ``>= 0``; symmetric, and 0 for equal moments up to rounding.

    Raises:
        ValueError: fewer than two images in a set, sizes that differ, or a moment that
            is not finite.
    """
    _check_pair(x, y)
    return _distance(x, _factor(x.covariance), y, _factor(y.covariance))


class FrechetInfinity(NamedTuple):
    """A Frechet distance extrapolated to infinitely many samples.

    Attributes:
        distance: the intercept of the line; may be negative where the distance is
            small.
        standard_error: that of the intercept under independent errors. The subsets
            share samples, so that the true error is larger; repeat with other samples
            to see it.
        slope: slope of the distance in 1/N: the bias of N samples is ``slope / N``.
        sizes: ``[P]`` the numbers of samples N.
        distances: ``[P]`` the distance with each.
    """

    distance: float
    standard_error: float
    slope: float
    sizes: np.ndarray
    distances: np.ndarray


def frechet_distance_infinity(
    x_features: ArrayLike,
    y: Statistics,
    *,
    min_size: int = 5000,
    num_sizes: int = 15,
    seed: int = 0,
) -> FrechetInfinity:
    """The Frechet distance to fixed data, extrapolated to infinitely many samples.

    The bias of N samples is about proportional to 1/N, with a constant that differs
    between models and can reverse their order. The distance is computed for random
    subsets of evenly spaced sizes, and a least squares line in 1/N is continued to 0.
    The finite size of the data on the other side is not corrected.

    Args:
        x_features: ``[N, D]`` features of samples, ``N > min_size``.
        y: moments of the data.
        min_size: the smallest subset, ``>= 2``. The published protocol is 5000 of
            50000; below D the relation to 1/N is no line.
        num_sizes: the number of subsets, ``>= 3``, evenly spaced from ``min_size`` to
            N.
        seed: seed of the subsets. It is fixed so that the protocol is a function of its
            inputs; all models have the same subsets.

    Returns:
        A `FrechetInfinity`.

    Raises:
        ValueError: too few samples or sizes, sizes of features that differ, or a value
            that is not finite.

    References:
        Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to
        find them", CVPR 2020.
    """
    min_size = whole_number("min_size", min_size, least=2)
    num_sizes = whole_number("num_sizes", num_sizes, least=3)
    x = as_features("x_features", x_features, least=min_size + num_sizes - 1)
    generator = np.random.default_rng(seed)
    factor = _factor(y.covariance)
    sizes = np.linspace(min_size, len(x), num_sizes).astype(int)
    distances = []
    for size in sizes:
        subset = statistics(x[generator.permutation(len(x))[:size]])
        _check_pair(subset, y)
        distances.append(_distance(subset, _factor(subset.covariance), y, factor))
    design = np.stack([np.ones(num_sizes), 1 / sizes], 1)
    (intercept, slope), *_ = np.linalg.lstsq(design, np.asarray(distances))
    residuals = np.asarray(distances) - design @ [intercept, slope]
    variance = residuals @ residuals / (num_sizes - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    return FrechetInfinity(
        float(intercept), float(error), float(slope), sizes, np.asarray(distances)
    )


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A with ``A A^T`` the covariance, without eigenvalues that are rounding errors."""
    values, vectors = np.linalg.eigh(covariance)
    largest = max(values[-1], 0.0)
    kept = values > len(values) * np.finfo(np.float64).eps * largest
    return vectors[:, kept] * np.sqrt(values[kept])[None]


def _distance(
    x: Statistics, x_factor: np.ndarray, y: Statistics, y_factor: np.ndarray
) -> float:
    step = x.mean - y.mean
    shared = np.linalg.svd(x_factor.T @ y_factor, compute_uv=False).sum()
    traces = np.trace(x.covariance) + np.trace(y.covariance)
    return float(max(step @ step + traces - 2 * shared, 0.0))


def _check_pair(x: Statistics, y: Statistics) -> None:
    for name, moments in (("x", x), ("y", y)):
        if moments.num_images < 2:
            raise ValueError(
                f"{name} must be moments of at least 2 images, got {moments.num_images}"
            )
        if not (
            np.isfinite(moments.mean).all() and np.isfinite(moments.covariance).all()
        ):
            raise ValueError(f"{name} must have finite moments, got NaN or infinity")
    if x.mean.shape != y.mean.shape:
        raise ValueError(
            "x and y must be moments of features of one size, "
            f"got {x.mean.size} and {y.mean.size}"
        )
