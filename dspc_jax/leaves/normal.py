"""Normal leaves."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, logit, ndtri
import numpy as np

from dspc_jax.arguments import real_number, real_pair, store
from dspc_jax.leaves.family import Natural, flat
from dspc_jax.leaves.joining import aligned
from dspc_jax.types import Array

FAR = 1e15
"""Deviations from the mean beyond which a value counts as no farther: squares of it,
and sums of them, are float32 numbers."""

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class NormalParams(NamedTuple):
    """``mean`` and ``scale_logit``, both ``[G, K, L, C]``.

    ``scale_logit`` is the logit of the deviation's place between its bounds, or the
    logarithm of what it exceeds the lower one by, if that is the only one.
    """

    mean: Array
    scale_logit: Array


class NormalForm(NamedTuple):
    """The parameters as the evaluation takes them: ``z = (x - mean) / scale``."""

    mean: Array
    inverse_scale: Array
    log_scale: Array


@dataclasses.dataclass(frozen=True)
class GaussianFamily:
    """Leaves under which a function of the value is Normal: its parts for all of them.

    Statistics are those of the function's values; `Normal` documents the attributes.
    """

    min_scale: float = 1e-4
    max_scale: float | None = None
    init_mean: tuple[float, float] = (0.0, 1.0)

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = False
    cost: ClassVar[float] = 1.0

    def __post_init__(self):
        store(self, min_scale=real_number("min_scale", self.min_scale))
        if self.max_scale is not None:
            store(self, max_scale=real_number("max_scale", self.max_scale))
        store(self, init_mean=real_pair("init_mean", self.init_mean))
        if self.max_scale is None:
            if self.min_scale <= 0:
                raise ValueError(f"min_scale must be positive, got {self.min_scale}")
        elif not 0 < self.min_scale < self.max_scale:
            raise ValueError(
                "min_scale must be positive and below max_scale="
                f"{self.max_scale}, got {self.min_scale}"
            )
        if self.min_scale < 1 / FAR:
            raise ValueError(
                f"min_scale must be at least {1 / FAR} (scale the data up), got "
                f"{self.min_scale}"
            )

    def place(self, x: Array) -> Array:
        """What is Normal: the value itself, or a function of it."""
        return x

    def init(self, key, shape):  # noqa: D102
        key_mean, key_scale = jax.random.split(key)
        mean = flat(jax.random.normal, key_mean, shape)
        center, spread = (aligned(number, mean) for number in self.init_mean)
        return NormalParams(
            center + spread * mean,
            -1.0 + 0.5 * flat(jax.random.normal, key_scale, shape),
        )

    def scale(self, params: NormalParams) -> Array:
        """The deviation of what is Normal."""
        logit = params.scale_logit
        least = aligned(self.min_scale, logit)
        if self.max_scale is None:
            return least + jnp.exp(logit)
        width = aligned(self.max_scale - self.min_scale, logit)
        return least + width * jax.nn.sigmoid(logit)

    def of_moments(self, mean: Array, std: Array) -> NormalParams:
        """Parameters for a mean and a deviation of what is Normal."""
        # A deviation that is out of bounds has a finite logit.
        excess = jnp.maximum(
            std - aligned(self.min_scale, std), aligned(1e-3 * self.min_scale, std)
        )
        if self.max_scale is None:
            return NormalParams(mean, jnp.log(excess))
        width = aligned(self.max_scale - self.min_scale, std)
        return NormalParams(mean, logit(jnp.minimum(excess / width, 1 - 1e-4)))

    def natural(self, params):
        """Mean, one over the deviation, and its logarithm."""
        scale = self.scale(params)
        return NormalForm(params.mean, 1 / scale, jnp.log(scale))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        More than ``FAR`` deviations from the mean are as many: log p is finite.
        """
        mean, inverse_scale, log_scale = (p[..., None] for p in natural)
        z = jnp.clip((self.place(x)[:, None] - mean) * inverse_scale, -FAR, FAR)
        return -0.5 * z**2 - (log_scale + HALF_LOG_TAU)

    def expand(self, natural):
        r"""The density as a polynomial of the distance ``t`` from the units' mean mean.

        .. math:: \log p(x) = \eta_1 t + \eta_2 t^2 - A

        Its terms cancel where a leaf's mean is many deviations away: it is accurate
        where rounding costs less than about 0.01 nats.
        """
        center = jax.lax.stop_gradient(jnp.mean(natural.mean, axis=1, keepdims=True))
        offset = natural.mean - center
        precision = natural.inverse_scale**2
        shift = 0.5 * offset**2 * precision
        log_partition = shift + (natural.log_scale + HALF_LOG_TAU)
        eta = (offset * precision, -0.5 * precision)

        def statistics(x):
            distance = self.place(x) - center[:, 0, ..., None]
            return (distance, distance**2)

        accurate = jnp.max(jax.lax.stop_gradient(shift)) < 1e5
        return Natural(eta, log_partition), statistics, accurate

    def counts(self, natural, gradient):
        """Sums of ``x - mean`` and of its square, about each leaf's own mean."""
        inverse_scale = natural.inverse_scale
        statistics = (
            gradient.mean / inverse_scale**2,
            -gradient.inverse_scale / inverse_scale,
        )
        return statistics, -gradient.log_scale

    def from_statistics(self, statistics, params):
        """The maximum likelihood parameters; the deviation stays within its bounds."""
        shift, square = statistics
        std = jnp.sqrt(jnp.maximum(square - shift**2, 0.0))
        return self.of_moments(params.mean + shift, std)

    def expected_statistics(self, params):
        """``E[x - mean], E[(x - mean)**2]``."""
        return (jnp.zeros_like(params.mean), self.scale(params) ** 2)

    def center(self, params):
        """Statistics are about the mean of each leaf."""
        return params.mean

    def recentered(self, statistics, mass, shift):  # noqa: D102
        first, second = statistics
        moved = first + shift * mass
        return (moved, second + shift * (first + moved))

    def components(self, params):
        """Mean and deviation of what is Normal."""
        return (params.mean, self.scale(params))


@dataclasses.dataclass(frozen=True)
class Normal(GaussianFamily):
    """Normal leaf for any real values; start it from data.

    Attributes:
        min_scale: least standard deviation; keeps likelihoods bounded. From 1e-15 on,
            so that variances are float32 numbers.
        max_scale: greatest standard deviation, or None for no bound.
        init_mean: mean and deviation of the random initial means. The random initial
            scales lie about a quarter of the way from the least to the greatest, or
            around 0.37.
    """

    varying: ClassVar[tuple[str, ...]] = ("min_scale", "max_scale", "init_mean")

    @property
    def support(self):  # noqa: D102
        return (-np.inf, np.inf)

    def from_moments(self, mean, std):  # noqa: D102
        return self.of_moments(mean, std)

    def log_density(self, params, x):  # noqa: D102
        scale = self.scale(params)
        z = (x - params.mean) / scale
        return -0.5 * z**2 - jnp.log(scale) - HALF_LOG_TAU

    def log_tails(self, params, x):  # noqa: D102
        z = (x - params.mean) / self.scale(params)
        return log_ndtr(z), log_ndtr(-z)

    def variance(self, params):  # noqa: D102
        return self.scale(params) ** 2

    def quadrature(self, params):
        """The rule of Gauss and Hermite, exact for polynomials of degrees below 64."""
        points, weights = np.polynomial.hermite_e.hermegauss(32)
        mean, scale = params.mean[..., None], self.scale(params)[..., None]
        points = points.reshape(*[1] * params.mean.ndim, -1)
        weights = (weights / weights.sum()).reshape(points.shape)
        points = mean + scale * jnp.asarray(points, mean.dtype)
        weights = jnp.asarray(weights, mean.dtype)
        return points, jnp.broadcast_to(weights, points.shape)

    def log_overlap(self, params, other):
        """Of two Normal densities: that of one's mean, of their variances' sum."""
        variance = self.variance(params) + self.variance(other)
        distance = params.mean - other.mean
        return -0.5 * (distance**2 / variance + jnp.log(variance)) - HALF_LOG_TAU

    def mode_log_prob(self, params):  # noqa: D102
        return -HALF_LOG_TAU - jnp.log(self.scale(params))

    def moments(self, params):  # noqa: D102
        return self.components(params)

    def draw(self, uniform, components):  # noqa: D102
        mean, scale = components
        return mean + scale * ndtri(uniform)

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        return params.mean


@dataclasses.dataclass(frozen=True)
class UnitNormal(Normal):
    """Normal leaf for values in [0, 1], such as gray values: its deviation is bounded.

    Attributes:
        min_scale: least standard deviation.
        max_scale: greatest standard deviation.
        init_mean: mean and deviation of the random initial means.
    """

    min_scale: float = 0.02
    max_scale: float | None = 1.0
    init_mean: tuple[float, float] = (0.5, 0.3)

    varying: ClassVar[tuple[str, ...]] = Normal.varying
