"""Poisson leaves."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
import numpy as np

from dspc_jax.leaves.count_quantiles import poisson_quantile
from dspc_jax.leaves.family import Natural, flat, impossible, matched_count
from dspc_jax.types import Array

LEAST_RATE = math.exp(-16.0)
"""Of an M-step: the rate of a leaf that counts nothing but zeros."""


class PoissonParams(NamedTuple):
    """``log_rate``, the logarithm of the mean, ``[G, K, L, C]``; finite."""

    log_rate: Array


@dataclasses.dataclass(frozen=True)
class Poisson:
    """Poisson leaf: counts 0, 1, 2, ... with mean and variance equal.

    In float32 the rounding of ``log p`` is about 1e-7 of ``x log x``: 1e-3 nats at a
    count of 1,000, and 0.1 nats at 100,000. Draws take time that grows with the root of
    the greatest rate, see `dspc_jax.leaves.count_quantiles`.
    """

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = True

    @property
    def support(self):  # noqa: D102
        return (0, np.inf)

    def init(self, key, shape):  # noqa: D102
        return PoissonParams(flat(jax.random.normal, key, shape))

    def from_moments(self, mean, std):  # noqa: D102
        del std
        # A mean of 0 has a finite logarithm (-6.9), from which gradients lead away.
        return PoissonParams(jnp.log(jnp.maximum(mean, 1e-3)))

    def natural(self, params):
        """Statistic ``x``."""
        return Natural((params.log_rate,), jnp.exp(params.log_rate))

    def statistics(self, x):  # noqa: D102
        return (x,)

    def log_base(self, x):
        """``-log x!``; -inf outside the support."""
        return log_base_of_counts(x, lambda x: -gammaln(x + 1))

    def counts(self, natural, gradient):
        """Sums of ``x``."""
        del natural
        return gradient.eta, -gradient.log_partition

    def from_statistics(self, statistics, params):
        """The maximum likelihood parameters for ``E[x]``; a rate of at least e^-16."""
        del params
        (mean,) = statistics
        return PoissonParams(jnp.log(jnp.maximum(mean, LEAST_RATE)))

    def expected_statistics(self, params):
        """``E[x]``."""
        return (jnp.exp(params.log_rate),)

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        log_p = x * params.log_rate - jnp.exp(params.log_rate)
        return self.log_base(x) + log_p

    def components(self, params):
        """Mean and deviation."""
        return self.moments(params)

    def moments(self, params):  # noqa: D102
        return jnp.exp(params.log_rate), jnp.exp(0.5 * params.log_rate)

    def draw(self, uniform, components):  # noqa: D102
        mean, std = components
        draw = poisson_quantile(uniform, mean)
        return matched_count(draw, mean, std, jax.lax.stop_gradient(mean))

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        return jnp.floor(jnp.exp(params.log_rate))


def log_base_of_counts(x, log_base):
    """A base measure over the whole numbers from 0 on; -inf elsewhere, NaN of NaN."""
    legal = (x >= 0) & (x == jnp.round(x))
    return jnp.where(legal, log_base(jnp.maximum(x, 0.0)), impossible(x))
