"""Poisson leaves."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from dspc_jax.leaves.count_family import CountFamily, log_base_of_counts
from dspc_jax.leaves.count_quantiles import poisson_quantile
from dspc_jax.leaves.family import Natural, matched_count
from dspc_jax.types import Array


class PoissonParams(NamedTuple):
    """``log_rate``, the logarithm of the mean, ``[G, K, L, C]``; finite."""

    log_rate: Array


@dataclasses.dataclass(frozen=True)
class Poisson(CountFamily):
    """Poisson leaf: counts 0, 1, 2, ... with mean and variance equal.

    In float32 the rounding of ``log p`` is about 1e-7 of ``x log x``: 1e-3 nats at a
    count of 1,000, and 0.1 nats at 100,000. Draws take time that grows with the root of
    the greatest rate, see `dspc_jax.leaves.count_quantiles`.
    """

    params: ClassVar[type] = PoissonParams

    def natural(self, params):
        """Statistic ``x``."""
        return Natural((params.log_rate,), jnp.exp(params.log_rate))

    def log_base(self, x):
        """``-log x!``; -inf outside the support."""
        return log_base_of_counts(x, lambda x: -gammaln(x + 1))

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        log_p = x * params.log_rate - jnp.exp(params.log_rate)
        return self.log_base(x) + log_p

    def moments(self, params):  # noqa: D102
        return jnp.exp(params.log_rate), jnp.exp(0.5 * params.log_rate)

    def draw(self, uniform, components):  # noqa: D102
        mean, std = components
        draw = poisson_quantile(uniform, mean)
        return matched_count(draw, mean, std, jax.lax.stop_gradient(mean))

    def mode(self, params):  # noqa: D102
        return jnp.floor(jnp.exp(params.log_rate))
