"""Discretized logistic leaves."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import real_number, store, whole_number
from dspc_jax.leaves.family import flat, impossible
from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.numerics import softplus
from dspc_jax.types import Array


class DiscretizedLogisticParams(NamedTuple):
    """``mean`` and ``log_scale`` in units of the value range, ``[G, K, L, C]``."""

    mean: Array
    log_scale: Array


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic:
    r"""A logistic distribution rounded to ``0..num_values-1``, its tails at the ends.

    With location :math:`\mu`, scale :math:`s` and the logistic function :math:`\sigma`,
    :math:`p(x) = \sigma((x + 1/2 - \mu)/s) - \sigma((x - 1/2 - \mu)/s)`.

    Attributes:
        num_values: number of values of the variable; 256 for 8-bit pixels.
        min_scale: least scale, in steps of one value. At the default, one value holds
            all but 1e-4 of the mass if the location is at its center.

    References:
        Salimans et al., "PixelCNN++", ICLR 2017, section 2.1.
    """

    num_values: int
    min_scale: float = 0.05

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = True
    varying: ClassVar[tuple[str, ...]] = ("num_values", "min_scale")

    def __post_init__(self):
        store(
            self,
            num_values=whole_number("num_values", self.num_values, least=2),
            min_scale=real_number("min_scale", self.min_scale),
        )
        if self.min_scale <= 0:
            raise ValueError(f"min_scale must be positive, got {self.min_scale}")

    @property
    def support(self):  # noqa: D102
        return (0, self.num_values - 1)

    @property
    def cost(self):
        """The exact mean is a sum over the values."""
        return float(self.num_values)

    def _top(self, like):
        """The greatest value, `aligned`."""
        return aligned(self.num_values, like) - 1.0

    def init(self, key, shape):  # noqa: D102
        key_mean, key_scale = jax.random.split(key)
        # Locations all over the range, scales around exp(-2) = 0.14 of it.
        return DiscretizedLogisticParams(
            flat(jax.random.uniform, key_mean, shape),
            -2.0 + 0.3 * flat(jax.random.normal, key_scale, shape),
        )

    def from_moments(self, mean, std):  # noqa: D102
        top, least = self._top(std), aligned(self.min_scale, std)
        # At least twice the least scale, where log_scale is finite.
        scale = jnp.maximum(std * (math.sqrt(3) / math.pi), 2 * least)
        return DiscretizedLogisticParams(
            mean / top, jnp.log(scale - least) - jnp.log(top)
        )

    def _location_scale(self, params):
        top = self._top(params.mean)
        least = aligned(self.min_scale, params.mean)
        return params.mean * top, least + top * jnp.exp(params.log_scale)

    def natural(self, params):
        """Location over scale, one over scale, and ``log(1 - exp(-1/scale))``."""
        location, scale = self._location_scale(params)
        return (location / scale, 1 / scale, jnp.log(-jnp.expm1(-1 / scale)))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        Between the ends ``log p = -softplus(-a) - softplus(b) + log(1 - exp(b - a))``
        with the bin's upper and lower edge ``a`` and ``b``; at an end one term drops
        out.
        """
        return self._log_mass([p[..., None] for p in natural], x[:, None])

    def _log_mass(self, natural, x):
        """`log_prob` of values and parameters that broadcast."""
        shift, precision, log_width = natural
        top = self._top(x)
        upper, lower = (x < top), (x > 0)
        a = (x + 0.5) * precision - shift
        b = (x - 0.5) * precision - shift
        log_p = jnp.where(upper & lower, log_width, 0.0)
        log_p -= jnp.where(upper, softplus(-a), 0.0)
        log_p -= jnp.where(lower, softplus(b), 0.0)
        legal = (x >= 0) & (x <= top) & (x == jnp.round(x))
        return jnp.where(legal, log_p, impossible(x))

    def mode_log_prob(self, params):  # noqa: D102
        return self._log_mass(self.natural(params), self.mode(params))

    def components(self, params):
        """Location and scale."""
        return self._location_scale(params)

    def draw(self, uniform, components):
        """Rounds forward; the gradient is that of the unrounded draw, 0 at the ends.

        Below a scale of about 0.3 steps rounding dominates, and the gradient of the
        mean is biased by up to a factor of 3 (measured at scale 0.08, mid-bin edge).
        """
        location, scale = components
        unrounded = location + scale * (jnp.log(uniform) - jnp.log1p(-uniform))
        within = jnp.clip(unrounded, 0.0, self._top(location))
        return within + jax.lax.stop_gradient(jnp.round(within) - within)

    def mean(self, components):
        """The exact mean ``sum_{v >= 1} P(X >= v)``."""
        location, scale = components

        def add(v, total):
            tail = jax.nn.sigmoid((location - v + 0.5) / scale)
            if not isinstance(self.num_values, int):
                tail = jnp.where(v <= self._top(location), tail, 0.0)
            return total + tail

        zero = jnp.zeros_like(location)
        # Unrolled by 8: fewer passes over the array, in a program that stays small.
        return jax.lax.fori_loop(1, int(np.max(self.num_values)), add, zero, unroll=8)

    def mode(self, params):
        """The inner value next to the location, or an end if that holds more."""
        location, scale = self._location_scale(params)
        top = self._top(location)
        inner = jnp.clip(jnp.round(location), 0, top)
        # An end collects a whole tail; compare its mass with the best inner bin's.
        sigmoid = jax.nn.sigmoid
        mass = sigmoid((inner + 0.5 - location) / scale) - sigmoid(
            (inner - 0.5 - location) / scale
        )
        low = sigmoid((0.5 - location) / scale)
        high = sigmoid((location - top + 0.5) / scale)
        best = jnp.where(low > mass, 0.0, inner)
        return jnp.where(high > jnp.maximum(mass, low), top, best)
