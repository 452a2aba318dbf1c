"""Laplace leaves."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import real_number, real_pair, store
from dspc_jax.leaves.family import flat
from dspc_jax.leaves.joining import aligned
from dspc_jax.types import Array

FAR = 1e15
"""Scales from the location beyond which a value counts as no farther."""


class LaplaceParams(NamedTuple):
    """``location``, and ``log_scale`` of what the scale exceeds the least one by.

    Both ``[G, K, L, C]``.
    """

    location: Array
    log_scale: Array


class LaplaceForm(NamedTuple):
    """The parameters as the evaluation takes them."""

    location: Array
    inverse_scale: Array
    log_width: Array


@dataclasses.dataclass(frozen=True)
class Laplace:
    r"""Laplace leaf: real values with heavier tails than a Normal leaf's.

    :math:`\log p(x) = -|x - \mu| / b - \log 2b`. There is no M-step: the likelihood is
    the greatest at the median of the values, which sums of statistics do not tell.

    Attributes:
        min_scale: least scale b; keeps likelihoods bounded. From 1e-15 on.
        init_location: mean and deviation of the random initial locations.
    """

    min_scale: float = 1e-4
    init_location: tuple[float, float] = (0.0, 1.0)

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = False
    varying: ClassVar[tuple[str, ...]] = ("min_scale", "init_location")
    cost: ClassVar[float] = 1.0

    def __post_init__(self):
        store(
            self,
            min_scale=real_number("min_scale", self.min_scale),
            init_location=real_pair("init_location", self.init_location),
        )
        if self.min_scale < 1 / FAR:
            raise ValueError(
                f"min_scale must be at least {1 / FAR}, got {self.min_scale}"
            )

    @property
    def support(self):  # noqa: D102
        return (-np.inf, np.inf)

    def init(self, key, shape):  # noqa: D102
        key_location, key_scale = jax.random.split(key)
        location = flat(jax.random.normal, key_location, shape)
        center, spread = (aligned(number, location) for number in self.init_location)
        return LaplaceParams(
            center + spread * location,
            -1.0 + 0.5 * flat(jax.random.normal, key_scale, shape),
        )

    def from_moments(self, mean, std):  # noqa: D102
        least = aligned(self.min_scale, std)
        excess = std * math.sqrt(0.5) - least
        return LaplaceParams(mean, jnp.log(jnp.maximum(excess, 1e-3 * least)))

    def _scale(self, params):
        return aligned(self.min_scale, params.log_scale) + jnp.exp(params.log_scale)

    def natural(self, params):
        """Location, one over the scale, and the logarithm of twice the scale."""
        scale = self._scale(params)
        return LaplaceForm(params.location, 1 / scale, jnp.log(2 * scale))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats."""
        location, inverse_scale, log_width = (p[..., None] for p in natural)
        distance = jnp.abs(x[:, None] - location)
        return -jnp.minimum(distance * inverse_scale, FAR) - log_width

    def log_density(self, params, x):  # noqa: D102
        scale = self._scale(params)
        return -jnp.abs(x - params.location) / scale - jnp.log(2 * scale)

    def log_tails(self, params, x):  # noqa: D102
        z = (x - params.location) / self._scale(params)
        return _log_tail(z), _log_tail(-z)

    def mode_log_prob(self, params):  # noqa: D102
        return -jnp.log(2 * self._scale(params))

    def moments(self, params):  # noqa: D102
        return params.location, math.sqrt(2) * self._scale(params)

    def components(self, params):
        """Location and scale."""
        return (params.location, self._scale(params))

    def draw(self, uniform, components):  # noqa: D102
        location, scale = components
        # Twice the smaller tail, exact in both.
        tail = 2 * jnp.minimum(uniform, 1 - uniform)
        side = jnp.where(uniform < 0.5, 1.0, -1.0)
        return location + scale * (side * jnp.log(tail))

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        return params.location


def _log_tail(z):
    """``log F(z)`` of the standard distribution."""
    low = jnp.minimum(z, 0.0)
    high = jnp.maximum(z, 0.0)
    return jnp.where(z < 0, low - math.log(2), jnp.log1p(-0.5 * jnp.exp(-high)))
