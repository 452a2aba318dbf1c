r"""The kernel distance of two sets of features: a squared MMD with a cubic kernel.

On the 2048 features of the original Inception network this is the KID; on features of
any other network it is not, and must not be called so.

References:
    Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018.
"""

from typing import NamedTuple

import jax
from jax.lax import Precision
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from dspc_jax.arguments import whole_number
from dspc_jax.evaluation.features import as_features, check_same_size, device_dtype
from dspc_jax.types import Array


class KernelDistance(NamedTuple):
    """A kernel distance, averaged over subsets.

    Attributes:
        distance: the mean over the subsets: unbiased, negative about half of the time
            where both sets have the same distribution.
        standard_error: an estimate of the error of ``distance`` as that of the two
            distributions, which more subsets of the same points cannot lower. NaN with
            one subset, or if a subset is as large as the smaller set.
        standard_deviation: over the subsets; the figure that is mostly published.
    """

    distance: float
    standard_error: float
    standard_deviation: float


def kernel_distance(
    x_features: ArrayLike,
    y_features: ArrayLike,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    r"""The unbiased squared MMD with a cubic kernel.

    .. math:: k(x, y) = (\langle x, y \rangle / D + 1)^3

    The estimate is averaged over random subsets, each drawn without replacement. The
    standard error is that of the delete-d jackknife: with n points in the smaller set,
    m in a subset, S subsets and s their standard deviation,
    :math:`s^2 \left(\frac{m}{n - m} + \frac1S\right)`, where the first term is the
    error of all points and the second that of using S subsets of them. It is too large
    rather than too small where the two distributions are equal.

    Args:
        x_features: ``[N, D]``, ``N >= subset_size``.
        y_features: ``[M, D]``, ``M >= subset_size``.
        num_subsets: S, ``>= 1``.
        subset_size: m, ``>= 2``; the published protocol is 1000.
        seed: seed of the subsets; fixed, so that the protocol is a function of its
            inputs.

    Returns:
        A `KernelDistance`. The kernel is evaluated on JAX's device in float32 (float64
        features stay float64 under x64), one subset at a time.

    Raises:
        ValueError: a set is smaller than a subset, features differ in size or are not
            finite, or there is no subset.

    References:
        Binkowski et al. 2018, section 4; Shao and Wu, "A General Theory for Jackknife
        Variance Estimation", Annals of Statistics 1989.
    """
    num_subsets = whole_number("num_subsets", num_subsets, least=1)
    subset_size = whole_number("subset_size", subset_size, least=2)
    x = as_features("x_features", x_features, device_dtype())
    y = as_features("y_features", y_features, device_dtype())
    check_same_size(x, y)
    least = min(len(x), len(y))
    if least < subset_size:
        raise ValueError(
            f"subset_size must be at most the number of points in each set, "
            f"got {subset_size} for {len(x)} and {len(y)} points"
        )
    generator = np.random.default_rng(seed)
    rows = [
        np.stack(
            [
                generator.choice(count, subset_size, replace=False)
                for _ in range(num_subsets)
            ]
        )
        for count in (len(x), len(y))
    ]
    estimates = np.asarray(_estimates(x, y, *rows), np.float64)
    if num_subsets == 1:
        return KernelDistance(float(estimates[0]), np.nan, np.nan)
    deviation = float(np.std(estimates, ddof=1))
    rest = least - subset_size
    error = (
        deviation * np.sqrt(subset_size / rest + 1 / num_subsets) if rest else np.nan
    )
    return KernelDistance(float(np.mean(estimates)), float(error), deviation)


@jax.jit
def _estimates(x: Array, y: Array, x_rows: Array, y_rows: Array) -> Array:
    """The unbiased estimates ``[S]`` of the subsets with these rows ``[S, m]``."""
    return jax.lax.map(
        lambda rows: _mmd2_unbiased(x[rows[0]], y[rows[1]]), (x_rows, y_rows)
    )


def _mmd2_unbiased(x: Array, y: Array) -> Array:
    """The unbiased squared MMD of two sets of m points."""
    size = x.shape[0]
    between = _kernel(x, y)
    # A constant added to the kernel changes nothing; without it few digits are lost.
    offset = jnp.mean(between)
    within = _kernel(x, x) + _kernel(y, y) - 2 * offset
    within = jnp.where(jnp.eye(size, dtype=bool), 0, within)
    return jnp.sum(within) / (size * (size - 1)) - 2 * jnp.mean(between - offset)


def _kernel(x: Array, y: Array) -> Array:
    product = jnp.matmul(x, y.T, precision=Precision.HIGHEST)
    return (product / x.shape[1] + 1) ** 3
