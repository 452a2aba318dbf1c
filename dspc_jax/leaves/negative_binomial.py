"""Negative binomial and geometric leaves."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from dspc_jax.arguments import real_number, store
from dspc_jax.leaves.count_family import CountFamily, log_base_of_counts
from dspc_jax.leaves.count_quantiles import (
    geometric_quantile,
    negative_binomial_quantile,
)
from dspc_jax.leaves.family import Natural, matched_count
from dspc_jax.leaves.joining import aligned
from dspc_jax.types import Array


class NegativeBinomialParams(NamedTuple):
    """``log_mean``, the logarithm of the mean, ``[G, K, L, C]``; finite."""

    log_mean: Array


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(CountFamily):
    r"""Negative binomial leaf: counts 0, 1, 2, ... that vary more than Poisson ones.

    Of a mean m and a concentration r the variance is :math:`m + m^2 / r`: a Poisson
    leaf whose rate has a gamma distribution of the shape r; for a whole number r, the
    failures before the r-th success. The mean is learned and the concentration is
    given, so that the family is exponential, with an M-step in closed form. Units of a
    mixture have one concentration; together they vary more.

    Rounding and time of draws are as for `dspc_jax.leaves.Poisson`.

    Attributes:
        concentration: r, from 0.01 to 1000 (beyond, a Poisson leaf is alike).
    """

    concentration: float

    params: ClassVar[type] = NegativeBinomialParams
    varying: ClassVar[tuple[str, ...]] = ("concentration",)
    cost: ClassVar[float] = 1.0

    def __post_init__(self):
        store(self, concentration=real_number("concentration", self.concentration))
        if not 0.01 <= self.concentration <= 1000:
            raise ValueError(
                f"concentration must be from 0.01 to 1000, got {self.concentration}"
            )

    def _log_odds(self, params):
        """Of the mean in units of the concentration."""
        log_r = jnp.log(jnp.asarray(self.concentration, params.log_mean.dtype))
        return params.log_mean - aligned(log_r, params.log_mean)

    def natural(self, params):
        """Statistic ``x``."""
        log_odds = self._log_odds(params)
        r = aligned(self.concentration, log_odds)
        return Natural((jax.nn.log_sigmoid(log_odds),), r * jax.nn.softplus(log_odds))

    def log_base(self, x):
        """``log Gamma(x + r) / (Gamma(r) x!)``; -inf outside the support."""
        r = aligned(self.concentration, x)
        log_r = gammaln(jnp.asarray(r, x.dtype))

        def log_base(x):
            return gammaln(x + r) - log_r - gammaln(x + 1)

        return log_base_of_counts(x, log_base)

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        natural = self.natural(params)
        return self.log_base(x) + x * natural.eta[0] - natural.log_partition

    def moments(self, params):  # noqa: D102
        log_variance = params.log_mean + jax.nn.softplus(self._log_odds(params))
        return jnp.exp(params.log_mean), jnp.exp(0.5 * log_variance)

    def draw(self, uniform, components):  # noqa: D102
        mean, std = components
        r = aligned(self.concentration, mean)
        draw = self._quantile(uniform, mean, jnp.zeros_like(mean) + r)
        exact = jax.lax.stop_gradient(mean)
        return matched_count(draw, mean, std, exact * (1 + exact / r))

    def _quantile(self, uniform, mean, concentration):
        return negative_binomial_quantile(uniform, mean, concentration)

    def mode(self, params):  # noqa: D102
        r = aligned(self.concentration, params.log_mean)
        return jnp.floor(jnp.maximum(r - 1, 0.0) / r * jnp.exp(params.log_mean))


@dataclasses.dataclass(frozen=True)
class Geometric(NegativeBinomial):
    """Geometric leaf: the failures before the first success, 0, 1, 2, ...

    A `NegativeBinomial` leaf with a concentration of 1, whose draws need no search.
    """

    concentration: float = dataclasses.field(default=1.0, init=False)

    def _quantile(self, uniform, mean, concentration):
        del concentration
        return geometric_quantile(uniform, mean)
