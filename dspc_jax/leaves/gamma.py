"""Gamma leaves."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma

from dspc_jax.arguments import real_number, store
from dspc_jax.leaves import gamma_functions
from dspc_jax.leaves.family import Natural, flat
from dspc_jax.leaves.joining import aligned
from dspc_jax.leaves.positive import GREATEST, LEAST, log_of, possible
from dspc_jax.types import Array

_LOG_FAR = math.log(1e15)  # of means beyond which all values are as far

_MOST_DISPERSION = 1e3  # draws of a smaller shape have no digits in float32


class GammaParams(NamedTuple):
    """``log_mean`` and ``log_dispersion``, both ``[G, K, L, C]``.

    The dispersion is one over the shape, the squared deviation in units of the mean;
    ``log_dispersion`` is the logarithm of what it exceeds the least one by.
    """

    log_mean: Array
    log_dispersion: Array


class GammaForm(NamedTuple):
    """The parameters as the evaluation takes them.

    ``log_peak`` is the logarithm of x times the density, at the mean.
    """

    log_mean: Array
    shape: Array
    log_peak: Array


@dataclasses.dataclass(frozen=True)
class GammaFamily:
    """Leaves of gamma distributed values or rates: their parameters and statistics.

    Attributes:
        min_dispersion: least squared deviation in units of the mean.
    """

    min_dispersion: float

    exponential: ClassVar[bool] = False
    cost: ClassVar[float] = 1.0
    least: ClassVar[float]

    def __post_init__(self):
        store(self, min_dispersion=real_number("min_dispersion", self.min_dispersion))
        if not self.least <= self.min_dispersion <= 1:
            raise ValueError(
                f"min_dispersion must be from {self.least:g} to 1, got "
                f"{self.min_dispersion}"
            )

    def init(self, key, shape):  # noqa: D102
        key_mean, key_dispersion = jax.random.split(key)
        return GammaParams(
            flat(jax.random.normal, key_mean, shape),
            -1.0 + 0.5 * flat(jax.random.normal, key_dispersion, shape),
        )

    def of(self, log_mean: Array, dispersion: Array) -> GammaParams:
        """Parameters of a dispersion that is brought within its bounds."""
        least = aligned(self.min_dispersion, dispersion)
        excess = jnp.minimum(dispersion, _MOST_DISPERSION) - least
        return GammaParams(log_mean, jnp.log(jnp.maximum(excess, 1e-3 * least)))

    def shape(self, params: GammaParams) -> Array:
        """One over the dispersion."""
        least = aligned(self.min_dispersion, params.log_dispersion)
        return 1 / (least + jnp.exp(params.log_dispersion))

    def natural(self, params):
        """Logarithm of the mean, shape, and the logarithm of the peak."""
        shape = self.shape(params)
        return GammaForm(params.log_mean, shape, gamma_functions.log_peak(shape))

    def counts(self, natural, gradient):
        """Sums of ``x / m - 1`` and ``x / m - 1 - log(x / m)``, m each leaf's own."""
        statistics = (gradient.log_mean / natural.shape, -gradient.shape)
        return statistics, gradient.log_peak

    def from_statistics(self, statistics, params):
        """The maximum likelihood parameters; the dispersion stays within its bounds."""
        excess, deviance = statistics
        change = jnp.log1p(jnp.maximum(excess, -1 + 1e-6))
        # log E[x] - E[log x]
        spread = jnp.maximum(deviance - excess + change, 0.0)
        return self.of(params.log_mean + change, 1 / _shape_of(spread))

    def expected_statistics(self, params):
        """0, and ``log a - digamma(a)``."""
        shape = self.shape(params)
        return (jnp.zeros_like(shape), _log_less_digamma(shape))

    def center(self, params):
        """Statistics are in units of each leaf's mean: its logarithm."""
        return params.log_mean

    def recentered(self, statistics, mass, shift):  # noqa: D102
        excess, deviance = statistics
        moved = jnp.exp(shift) * (excess + mass) - mass
        return (moved, deviance + moved - excess - shift * mass)


@dataclasses.dataclass(frozen=True)
class Gamma(GammaFamily):
    r"""Gamma leaf: positive values, such as durations and amounts.

    With the mean :math:`m` and the shape :math:`a`, and :math:`\lambda = x / m`,

    .. math::
        \log p(x) = -a (\lambda - 1 - \log \lambda) - \log x
            + a \log a - a - \log \Gamma(a) .

    Exponential leaves are those of a shape of 1. The M-step is exact: its equation for
    the shape is solved by Newton's method. Blended leaves are blended by their means
    and deviations. Draws and modes stay from 1.2e-38 to 1e15, where values are legal;
    the mode of a shape of 1 or less is the least of them.

    Attributes:
        min_dispersion: least squared deviation in units of the mean, from 1e-6 on (then
            a deviation is at least a thousandth of the mean); keeps likelihoods
            bounded.
    """

    min_dispersion: float = 1e-6

    integer: ClassVar[bool] = False
    varying: ClassVar[tuple[str, ...]] = ("min_dispersion",)
    least: ClassVar[float] = 1e-6

    @property
    def support(self):
        """From the least positive float32 number on."""
        return (LEAST, float("inf"))

    def from_moments(self, mean, std):  # noqa: D102
        mean = jnp.maximum(mean, LEAST)
        dispersion = jnp.minimum(std / mean, 1e4) ** 2
        return self.of(jnp.log(mean), dispersion)

    def log_base(self, x):
        """``-log x``; -inf of what is not positive."""
        return possible(x, -log_of(x))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        Without the base measure. Beyond 1e15 means all values are as far.
        """
        log_mean, shape, log_peak = (p[..., None] for p in natural)
        log_ratio = log_of(x)[:, None] - log_mean
        ratio = jnp.exp(jnp.minimum(log_ratio, _LOG_FAR))
        return log_peak - shape * gamma_functions.deviance(ratio, log_ratio)

    def expand(self, natural):
        r"""The density as linear in x and log x, in units of the units' mean mean c.

        .. math:: \log p = a \log(x / c) - a (c / m) (x / c - 1) - A

        Its terms cancel where shapes are great: it is accurate where rounding costs
        less than about 0.01 nats.
        """
        center = jnp.mean(natural.log_mean, axis=1, keepdims=True)
        center = jax.lax.stop_gradient(center)
        offset = center - natural.log_mean
        rate = natural.shape * jnp.exp(offset)
        log_partition = rate - natural.shape * (1 + offset) - natural.log_peak
        center = center[:, 0, ..., None]

        def statistics(x):
            log_ratio = log_of(x) - center
            ratio = jnp.exp(jnp.minimum(log_ratio, _LOG_FAR))
            return (log_ratio, ratio - 1)

        shape, rate_of_all = jax.lax.stop_gradient((natural.shape, rate))
        size = jnp.max(shape * jnp.abs(offset) + shape + rate_of_all)
        return Natural((natural.shape, -rate), log_partition), statistics, size < 1e4

    def log_density(self, params, x):  # noqa: D102
        shape = self.shape(params)
        log_ratio = log_of(x) - params.log_mean
        ratio = jnp.exp(jnp.minimum(log_ratio, _LOG_FAR))
        log_p = gamma_functions.log_peak(shape) - log_of(x)
        return possible(x, log_p - shape * gamma_functions.deviance(ratio, log_ratio))

    def log_tails(self, params, x):  # noqa: D102
        shape = self.shape(params)
        scaled = jnp.maximum(x, LEAST) * (shape * jnp.exp(-params.log_mean))
        shape, scaled = jnp.broadcast_arrays(shape, jnp.maximum(scaled, LEAST))
        below, above = gamma_functions.log_tails(shape, scaled)
        return possible(x, below), jnp.where(x < LEAST, 0.0, above)

    def mode_log_prob(self, params):  # noqa: D102
        return self.log_density(params, self.mode(params))

    def components(self, params):
        """Mean and deviation."""
        return self.moments(params)

    def moments(self, params):  # noqa: D102
        mean = jnp.exp(params.log_mean)
        return mean, mean / jnp.sqrt(self.shape(params))

    def draw(self, uniform, components):  # noqa: D102
        mean, std = components
        shape = (mean / std) ** 2
        standard = gamma_functions.gamma_quantile(uniform, shape)
        return jnp.clip(mean * (standard / shape), LEAST, GREATEST)

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        share = 1 - 1 / self.shape(params)
        mode = jnp.exp(params.log_mean) * jnp.maximum(share, 0.0)
        return jnp.clip(mode, LEAST, GREATEST)


def _log_less_digamma(shape: Any) -> Array:
    """``log a - digamma(a)``, which falls from infinity to 0."""
    small = jnp.minimum(shape, 10.0)
    inverse = 1 / jnp.maximum(shape, 10.0)
    square = inverse**2
    series = 0.5 * inverse + square * (1 / 12 - square * (1 / 120 - square / 252))
    return jnp.where(shape < 10.0, jnp.log(small) - digamma(small), series)


def _shape_of(spread: Array) -> Array:
    """The shape whose `_log_less_digamma` is this; between 1e-3 and 1e9.

    By Newton's method for the logarithms, whose slopes are -1 at either end.
    """
    spread = jnp.clip(spread, 0.5e-9, 1e4)
    start = jnp.log(1 + jnp.sqrt(1 + 4 * spread / 3)) - jnp.log(4 * spread)

    def step(_, log_shape):
        def log_spread(log_shape):
            return jnp.log(_log_less_digamma(jnp.exp(log_shape)))

        value, slope = jax.jvp(log_spread, (log_shape,), (jnp.ones_like(log_shape),))
        return log_shape - (value - jnp.log(spread)) / slope

    return jnp.exp(jax.lax.fori_loop(0, 6, step, start))
