"""Log-normal leaves."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtri

from dspc_jax.leaves.normal import HALF_LOG_TAU, GaussianFamily
from dspc_jax.leaves.positive import GREATEST, LEAST, log_of, possible
from dspc_jax.types import Array


@dataclasses.dataclass(frozen=True)
class LogNormal(GaussianFamily):
    """Log-normal leaf: positive values whose logarithms are those of a Normal leaf.

    Its parameters are ``NormalParams`` of the logarithm. Draws and modes stay from
    1.2e-38 to 1e15, where values are legal. Blended leaves are blended by the mean and
    deviation of the logarithm.

    Attributes:
        min_scale: least standard deviation of the logarithm, from 1e-15 on.
        max_scale: greatest one, or None for no bound.
        init_mean: mean and deviation of the random initial means of the logarithm.
    """

    varying: ClassVar[tuple[str, ...]] = ("min_scale", "max_scale", "init_mean")

    @property
    def support(self):
        """From the least positive float32 number on."""
        return (LEAST, float("inf"))

    def place(self, x: Array) -> Array:  # noqa: D102
        return log_of(x)

    def log_base(self, x):
        """``-log x``; -inf of what is not positive."""
        return possible(x, -log_of(x))

    def from_moments(self, mean, std):  # noqa: D102
        mean = jnp.maximum(mean, LEAST)
        variance = jnp.log1p(jnp.minimum(std / mean, 1e15) ** 2)
        return self.of_moments(jnp.log(mean) - 0.5 * variance, jnp.sqrt(variance))

    def log_density(self, params, x):  # noqa: D102
        scale = self.scale(params)
        z = (log_of(x) - params.mean) / scale
        log_p = -0.5 * z**2 - jnp.log(scale) - HALF_LOG_TAU - log_of(x)
        return possible(x, log_p)

    def log_tails(self, params, x):  # noqa: D102
        z = (log_of(x) - params.mean) / self.scale(params)
        return possible(x, log_ndtr(z)), jnp.where(x > 0, log_ndtr(-z), 0.0)

    def mode_log_prob(self, params):  # noqa: D102
        scale = self.scale(params)
        return 0.5 * scale**2 - params.mean - jnp.log(scale) - HALF_LOG_TAU

    def moments(self, params):  # noqa: D102
        # Those of wider leaves are no float32 numbers.
        variance = jnp.minimum(self.scale(params) ** 2, 40.0)
        mean = jnp.exp(jnp.minimum(params.mean + 0.5 * variance, 60.0))
        return mean, mean * jnp.sqrt(jnp.expm1(variance))

    def draw(self, uniform, components):  # noqa: D102
        mean, scale = components
        return _within(mean + scale * ndtri(uniform))

    def mean(self, components):  # noqa: D102
        mean, scale = components
        return jnp.exp(mean + 0.5 * scale**2)

    def mode(self, params):  # noqa: D102
        return _within(params.mean - self.scale(params) ** 2)


def _within(log_x):
    return jnp.clip(jnp.exp(log_x), LEAST, GREATEST)
