r"""The MMD between a circuit and data in closed form: no samples, no estimator noise.

.. math::
  \mathrm{MMD}^2(p, \hat q) = E\, k(x, x') - \frac{2}{N} \sum_n E_x\, k(x, y_n)
    + \frac{1}{N (N - 1)} \sum_{i \ne j} k(y_i, y_j)

See `dspc_jax.objectives.expected_kernels` for the first two terms.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dspc_jax.circuit import Circuit
from dspc_jax.objectives.expected_kernels import log_expected_kernel, log_mean_kernel
from dspc_jax.objectives.kernels import squared_distances
from dspc_jax.ops.float_types import widened
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree


def exact_mmd_loss(
    params: PyTree,
    key: Key | None,
    batch: Array,
    *,
    circuit: Circuit,
    bandwidths: Array | Sequence[float],
    weights: Sequence[float] | None = None,
    patches: Array | None = None,
) -> tuple[Array, Metrics]:
    r"""The squared MMD between a circuit and the distribution of the data.

    Its expectation over batches is the squared MMD itself, as that of
    `dspc_jax.objectives.mmd2_unbiased` is, without the variance of samples.

    Args:
        params: the circuit's parameters.
        key: not used (objectives share one form).
        batch: ``[B, V, C]`` data in the leaves' units, ``B >= 2``.
        circuit: over one partition tree, with Normal leaves.
        bandwidths: bandwidths of the Gaussian kernels in the sum, ``[S]``.
        weights: weights of these kernels; 1 each by default, see `gaussian_kernel`.
        patches: bool ``[J, V]``: the kernel is the mean over patches of Gaussian
            kernels on the variables of one patch. None: one kernel on all variables,
            which distinguishes little where there are many (all images are far apart).

    Returns:
        The loss, and the metrics ``mmd2`` (the same) and ``kernel_mean`` (the mean
        kernel value between circuit and data).

    Raises:
        ValueError: fewer than two examples, a leaf that is not Normal, or a circuit
            that mixes partitions.
    """
    del key
    params, dtype = widened(params)
    batch = as_values("batch", batch, dtype)
    if batch.shape[0] < 2:
        raise ValueError(f"batch must hold at least 2 points, got {batch.shape[0]}")
    if patches is None:
        patches = jnp.ones((1, batch.shape[1]), bool)

    def term(bandwidth, patch):
        within = jnp.exp(log_expected_kernel(circuit, params, params, bandwidth, patch))
        between = jnp.mean(
            jnp.exp(log_mean_kernel(circuit, params, batch, bandwidth, patch))
        )
        values = jnp.where(patch[:, None], batch, 0.0)
        k = jnp.exp(-squared_distances(values) / (2 * bandwidth**2))
        count = batch.shape[0]
        data = (jnp.sum(k) - count) / (count * (count - 1))  # the diagonal is 1
        return within - 2 * between + data, between

    sigmas = jnp.asarray(bandwidths, dtype)
    factors = jnp.ones_like(sigmas) if weights is None else jnp.asarray(weights, dtype)
    num_patches = patches.shape[0]
    # One computation for all pairs, compiled once.
    terms, means = jax.lax.map(
        lambda pair: term(*pair),
        (jnp.repeat(sigmas, num_patches), jnp.tile(patches, (sigmas.size, 1))),
    )
    shares = jnp.repeat(factors, num_patches) / num_patches
    mmd2, between = jnp.sum(shares * terms), jnp.sum(shares * means)
    return mmd2, {"mmd2": mmd2, "kernel_mean": between}
