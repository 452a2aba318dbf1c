"""A leaf family of a user, made of what is public: durations with a mean.

The property tables have it as a row (`tests.leaves.families`), as they have those of
the package.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

import dspc_jax as pc
from dspc_jax.leaves import Natural, impossible


class DurationParams(NamedTuple):
    """``log_mean`` ``[G, K, L, C]``."""

    log_mean: jax.Array


@pc.register
@dataclasses.dataclass(frozen=True)
class Duration:
    """The exponential distribution: ``log p(x) = -x / m - log m`` from 0 on."""

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = False

    @property
    def support(self):
        return (0.0, float("inf"))

    def init(self, key, shape):
        return DurationParams(jax.random.normal(key, shape))

    def from_moments(self, mean, std):
        del std
        return DurationParams(jnp.log(jnp.maximum(mean, 1e-6)))

    # Evaluation: a matrix product of statistics with natural parameters.
    def natural(self, params):
        return Natural((-jnp.exp(-params.log_mean),), params.log_mean)

    def statistics(self, x):
        return (x,)

    def log_base(self, x):
        return jnp.where(x >= 0, 0.0, impossible(x))

    # Draws: m log(1 / (1 - u)), and what a soft selection blends.
    def components(self, params):
        return (jnp.exp(params.log_mean),)

    def draw(self, uniform, components):
        (mean,) = components
        return -mean * jnp.log1p(-uniform)

    def mean(self, components):
        return components[0]

    # Max-product.
    def mode(self, params):
        return jnp.zeros_like(params.log_mean)

    def mode_log_prob(self, params):
        return -params.log_mean

    # EM (a `FittableLeaf`).
    def counts(self, natural, gradient):
        del natural
        return gradient.eta, -gradient.log_partition

    def from_statistics(self, statistics, params):
        del params
        return DurationParams(jnp.log(jnp.maximum(statistics[0], 1e-6)))

    def expected_statistics(self, params):
        return (jnp.exp(params.log_mean),)

    # Implicit gradients of samples (a `ContinuousLeaf`).
    def log_density(self, params, x):
        log_p = -x * jnp.exp(-params.log_mean) - params.log_mean
        return jnp.where(x >= 0, log_p, impossible(x))

    def log_tails(self, params, x):
        log_above = -x * jnp.exp(-params.log_mean)
        return jnp.log(-jnp.expm1(log_above)), log_above
