"""Normal leaves."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, logit, ndtri
import numpy as np

from dspc_jax.arguments import real_number, real_pair, store
from dspc_jax.leaves.family import Natural
from dspc_jax.types import Array


class NormalParams(NamedTuple):
    """``mean`` and ``scale_logit``, both ``[G, K, L, C]``."""

    mean: Array
    scale_logit: Array


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal leaf with a bounded scale; the defaults fit values in [0, 1].

    Attributes:
        min_scale: least standard deviation; keeps likelihoods bounded.
        max_scale: greatest standard deviation.
        init_mean: mean and deviation of the random initial means. The random initial
            scales lie about a quarter of the way from the least to the greatest.
    """

    min_scale: float = 0.02
    max_scale: float = 1.0
    init_mean: tuple[float, float] = (0.5, 0.3)

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = False

    def __post_init__(self):
        for name in ("min_scale", "max_scale"):
            store(self, **{name: real_number(name, getattr(self, name))})
        store(self, init_mean=real_pair("init_mean", self.init_mean))
        if not 0 < self.min_scale < self.max_scale:
            raise ValueError(
                "min_scale must be positive and below max_scale="
                f"{self.max_scale}, got {self.min_scale}"
            )

    @property
    def support(self):  # noqa: D102
        return (-np.inf, np.inf)

    def init(self, key, shape):  # noqa: D102
        key_mean, key_scale = jax.random.split(key)
        center, spread = self.init_mean
        return NormalParams(
            center + spread * jax.random.normal(key_mean, shape),
            -1.0 + 0.5 * jax.random.normal(key_scale, shape),
        )

    def _scale(self, params):
        width = self.max_scale - self.min_scale
        return self.min_scale + width * jax.nn.sigmoid(params.scale_logit)

    def from_moments(self, mean, std):  # noqa: D102
        width = self.max_scale - self.min_scale
        # Clipped, so that a deviation out of bounds has a finite logit (9.2).
        share = jnp.clip((std - self.min_scale) / width, 1e-4, 1 - 1e-4)
        return NormalParams(mean, logit(share))

    def natural(self, params):
        """Statistics ``x`` and ``x**2``."""
        scale = self._scale(params)
        precision = 1 / scale**2
        log_partition = 0.5 * params.mean**2 * precision + jnp.log(scale)
        return Natural((params.mean * precision, -0.5 * precision), log_partition)

    def statistics(self, x):  # noqa: D102
        return (x, x**2)

    def log_base(self, x):  # noqa: D102
        return jnp.full_like(x, -0.5 * np.log(2 * np.pi))

    def from_statistics(self, statistics):
        """The maximum likelihood parameters for ``E[x], E[x**2]``; clips the scale."""
        mean, square = statistics
        return self.from_moments(mean, jnp.sqrt(jnp.maximum(square - mean**2, 0.0)))

    def expected_statistics(self, params):
        """``E[x], E[x**2]``."""
        return (params.mean, params.mean**2 + self._scale(params) ** 2)

    def log_density(self, params, x):  # noqa: D102
        scale = self._scale(params)
        z = (x - params.mean) / scale
        return -0.5 * z**2 - jnp.log(scale) - 0.5 * np.log(2 * np.pi)

    def log_tails(self, params, x):  # noqa: D102
        z = (x - params.mean) / self._scale(params)
        return log_ndtr(z), log_ndtr(-z)

    def mode_log_prob(self, params):  # noqa: D102
        return -0.5 * np.log(2 * np.pi) - jnp.log(self._scale(params))

    def components(self, params):  # noqa: D102
        return (params.mean, self._scale(params))

    def draw(self, uniform, components):  # noqa: D102
        mean, scale = components
        return mean + scale * ndtri(uniform)

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        return params.mean
