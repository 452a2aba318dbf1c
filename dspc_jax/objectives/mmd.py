r"""Maximum mean discrepancy between data and differentiable samples.

For a kernel with feature map :math:`\phi`,
:math:`\mathrm{MMD}^2(p, q) = \|E_p \phi(x) - E_q \phi(y)\|^2
= E k(x, x') + E k(y, y') - 2 E k(x, y)`; with a characteristic kernel (both of
`dspc_jax.objectives.kernels`) it is 0 only where :math:`p = q`.

References:
    Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A Kernel Two-Sample Test",
    JMLR 2012.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dspc_jax.arguments import shown, whole_number
from dspc_jax.objectives.kernels import Kernel, common_center, squared_distances
from dspc_jax.ops.numerics import safe_sqrt
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree


def mmd2_unbiased(x: Array, y: Array, kernel: Kernel) -> Array:
    r"""The unbiased estimator of the squared MMD.

    .. math:: \frac{1}{N(N-1)} \sum_{i \ne j} k(x_i, x_j)
              + \frac{1}{M(M-1)} \sum_{i \ne j} k(y_i, y_j)
              - \frac{2}{NM} \sum_{i, j} k(x_i, y_j)

    Its gradient is unbiased too, at any batch size.

    Args:
        x: ``[N, ...]`` points, ``N >= 2``.
        y: ``[M, ...]`` points, ``M >= 2``.
        kernel: a `Kernel`.

    Returns:
        A scalar. It is negative about half of the time where both samples have the same
        distribution.

    Raises:
        ValueError: fewer than two points in a set, or points of different sizes.

    References:
        Gretton et al. 2012, equation 3.
    """
    _check_counts(x, y, 2)
    k_xx, k_xy, k_yy = _excess_matrices(x, y, kernel)
    # The diagonals are 0 exactly: the excess at distance 0.
    n, m = k_xy.shape
    return (
        jnp.sum(k_xx) / (n * (n - 1))
        + jnp.sum(k_yy) / (m * (m - 1))
        - 2 * jnp.mean(k_xy)
    )


def mmd2_biased(x: Array, y: Array, kernel: Kernel) -> Array:
    r"""The squared MMD of the two empirical distributions.

    .. math:: \frac{1}{N^2} \sum_{i, j} k(x_i, x_j)
              + \frac{1}{M^2} \sum_{i, j} k(y_i, y_j)
              - \frac{2}{NM} \sum_{i, j} k(x_i, y_j)

    It is a squared norm, so never negative. Its mean exceeds the squared MMD of the
    distributions by at most :math:`k(0) (1/N + 1/M)`, and this excess rewards samples
    that lie close together.

    Args:
        x: ``[N, ...]`` points, ``N >= 1``.
        y: ``[M, ...]`` points, ``M >= 1``.
        kernel: a `Kernel`.

    Returns:
        A scalar, ``>= 0``: 0 with the gradient 0 where rounding makes it negative.

    Raises:
        ValueError: an empty set, or points of different sizes.

    References:
        Gretton et al. 2012, equation 5 (its square).
    """
    _check_counts(x, y, 1)
    k_xx, k_xy, k_yy = _excess_matrices(x, y, kernel)
    return jnp.maximum(jnp.mean(k_xx) + jnp.mean(k_yy) - 2 * jnp.mean(k_xy), 0)


def mmd_loss(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    sample: Callable[[Array, Any], Array],
    kernel: Kernel,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    num_samples: int | None = None,
    square_root: bool = False,
    features: Callable[[Array], Array] | None = None,
) -> tuple[Array, Metrics]:
    r"""The (squared) MMD between a batch of data and fresh differentiable samples.

    Gradients reach ``params`` through the samples: ``sample`` is differentiable, such
    as ``lambda keys, params: jax.vmap(lambda k: circuit.sample_differentiable(k,
    params, relaxation=..., temperature=...))(keys)``.

    Args:
        params: the sampler's parameters.
        key: one typed key; split into one key per sample.
        batch: ``[B, V, C]`` data.
        sample: ``sample(keys[S], params) -> [S, V, C]``, in the units of the data.
        kernel: a `Kernel` on the points, or on their features.
        estimator: ``"unbiased"`` or ``"biased"``.
        num_samples: S; the size of the batch by default.
        square_root: whether the loss is the MMD and not its square; with the biased
            estimator only, since a negative estimate has no root. The gradient of the
            root does not vanish with the MMD.
        features: ``features(points[N, V, C]) -> [N, ...]``, applied to both sets.

    Returns:
        The loss, and the metrics ``mmd2`` (the estimate) and ``kernel_mean`` (the mean
        kernel value between data and samples: near 0 the two are too far apart for the
        bandwidths, and there is no gradient; near ``k(0)`` the bandwidths are too wide
        for details).

    Raises:
        ValueError: an unknown estimator, ``square_root`` of the unbiased one, too few
            points, or samples that do not have the size of the data.
    """
    if estimator not in ("unbiased", "biased"):
        raise ValueError(f"estimator must be 'unbiased' or 'biased', got {estimator!r}")
    if square_root and estimator != "biased":
        raise ValueError(
            f"square_root must go with estimator='biased', got {estimator!r}: "
            "a negative estimate has no square root"
        )
    batch = as_values("batch", batch)
    num_samples = batch.shape[0] if num_samples is None else num_samples
    num_samples = whole_number("num_samples", num_samples, least=1)
    samples = sample(jax.random.split(key, num_samples), params)
    batch = batch.astype(samples.dtype)
    if samples.shape[1:] != batch.shape[1:]:
        raise ValueError(
            "sample must return values in the shape of the data, got "
            f"{samples.shape[1:]} for {batch.shape[1:]} per example"
        )
    x, y = (
        (batch, samples) if features is None else (features(batch), features(samples))
    )
    mmd2 = (mmd2_unbiased if estimator == "unbiased" else mmd2_biased)(x, y, kernel)
    between = jax.lax.stop_gradient(jnp.mean(kernel.value(squared_distances(x, y))))
    metrics = {"mmd2": mmd2, "kernel_mean": between}
    return (safe_sqrt(mmd2) if square_root else mmd2), metrics


def _excess_matrices(x: Array, y: Array, kernel: Kernel) -> tuple[Array, Array, Array]:
    """The matrices ``k - k(0)`` within x, between x and y, and within y."""
    if not isinstance(kernel, Kernel):
        raise ValueError(
            "kernel must be a Kernel such as gaussian_kernel([1.0]), got "
            f"{shown(kernel)}"
        )
    center = common_center(x, y)
    return (
        kernel.excess(squared_distances(x, center=center)),
        kernel.excess(squared_distances(x, y, center=center)),
        kernel.excess(squared_distances(y, center=center)),
    )


def _check_counts(x: Array, y: Array, least: int) -> None:
    for name, points in (("x", x), ("y", y)):
        count = jnp.shape(points)[0] if jnp.ndim(points) else 0
        if count < least:
            raise ValueError(f"{name} must hold at least {least} points, got {count}")
