"""Gamma-Poisson leaves: negative binomial ones whose concentration is learned."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.leaves import gamma_functions
from dspc_jax.leaves.count_family import log_base_of_counts
from dspc_jax.leaves.count_quantiles import (
    negative_binomial_log_mass,
    negative_binomial_quantile,
)
from dspc_jax.leaves.family import matched_count
from dspc_jax.leaves.gamma import GammaFamily


@dataclasses.dataclass(frozen=True)
class GammaPoisson(GammaFamily):
    r"""Gamma-Poisson leaf: counts 0, 1, 2, ... of a mean m and a dispersion d, learned.

    The variance is :math:`m + d\, m^2`: a `NegativeBinomial` leaf of the concentration
    1 / d. A count is a Poisson draw whose rate has a gamma distribution of the same
    parameters. The gradient of a count's log-probability with respect to these is that
    of the rate's log-density, averaged over the rate given the count; so an M-step is
    that of `Gamma` leaves, for the rates, and the likelihood never falls. Every count
    of every unit is evaluated for itself; no matrix product does it.

    Attributes:
        min_dispersion: least d, from 1e-3 to 1.
    """

    min_dispersion: float = 1e-3

    integer: ClassVar[bool] = True
    varying: ClassVar[tuple[str, ...]] = ("min_dispersion",)

    least: ClassVar[float] = 1e-3

    @property
    def support(self):  # noqa: D102
        return (0, np.inf)

    def from_moments(self, mean, std):  # noqa: D102
        mean = jnp.maximum(mean, 1e-3)
        excess = jnp.maximum(std**2 - mean, 0.0)
        return self.of(jnp.log(mean), excess / mean**2)

    def log_base(self, x):
        """0; -inf of what is no count."""
        return log_base_of_counts(x, jnp.zeros_like)

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        As a function of ``log_peak`` it is that of a gamma leaf, see the class.
        """
        log_mean, shape, log_peak = (p[..., None] for p in natural)
        x = jnp.maximum(x, 0.0)[:, None]
        log_p = negative_binomial_log_mass(x, jnp.exp(log_mean) / shape, shape)
        return log_p - gamma_functions.log_peak(shape) + log_peak

    def mode_log_prob(self, params):  # noqa: D102
        shape = self.shape(params)
        odds = jnp.exp(params.log_mean) / shape
        return negative_binomial_log_mass(self.mode(params), odds, shape)

    def components(self, params):
        """Mean, deviation and dispersion."""
        return (*self.moments(params), 1 / self.shape(params))

    def moments(self, params):  # noqa: D102
        mean = jnp.exp(params.log_mean)
        return mean, jnp.sqrt(mean * (1 + mean / self.shape(params)))

    def draw(self, uniform, components):  # noqa: D102
        mean, std, dispersion = components
        draw = negative_binomial_quantile(uniform, mean, 1 / dispersion)
        exact, dispersion = jax.lax.stop_gradient((mean, dispersion))
        return matched_count(draw, mean, std, exact * (1 + exact * dispersion))

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        share = jnp.maximum(1 - 1 / self.shape(params), 0.0)
        return jnp.floor(share * jnp.exp(params.log_mean))
