"""Histogram leaves."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
import numpy as np

from dspc_jax.arguments import real_number, shown, store
from dspc_jax.leaves.categorical import Categorical, CategoricalParams
from dspc_jax.leaves.family import flat, impossible
from dspc_jax.ops.numerics import safe_divide, safe_log
from dspc_jax.types import Array


class HistogramParams(NamedTuple):
    """``logits`` of the bins' masses, ``[G, K, L, C, M]``; -inf is an empty bin."""

    logits: Array


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Histogram leaf: a density that is constant in each of M bins, between the ends.

    The masses of the bins are learned, and the bins are given: quantiles of the column
    (``tuple(np.unique(np.quantile(x, np.linspace(0, 1, 33))))``) or what a person
    knows. A bin holds its lower edge; the last one holds both. A draw is the exact
    quantile, and its gradient is pathwise: masses move the edges between them.

    Attributes:
        edges: of the bins, ascending, M + 1 of them, at least 3; no two of them may be
            one float32 number.
    """

    edges: tuple[float, ...]

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = False

    def __post_init__(self):
        try:
            edges = tuple(real_number("edges", edge) for edge in self.edges)
        except TypeError:
            edges = ()
        short = np.asarray(edges, np.float32)
        if len(edges) < 3 or not (np.diff(short) > 0).all():
            raise ValueError(
                "edges must be at least 3 ascending float32 numbers, got "
                f"{shown(self.edges)}"
            )
        store(self, edges=edges)

    @property
    def support(self):  # noqa: D102
        return (self.edges[0], self.edges[-1])

    @property
    def _table(self):
        """The family of the bins' numbers."""
        return Categorical(len(self.edges) - 1)

    def _widths(self, like):
        return jnp.asarray(np.diff(self.edges), like.dtype)

    def _middles(self, like):
        edges = np.asarray(self.edges)
        return jnp.asarray((edges[1:] + edges[:-1]) / 2, like.dtype)

    def _bin(self, x):
        """The numbers of the bins, -1 outside; NaN of NaN."""
        edges = jnp.asarray(self.edges, x.dtype)
        number = jnp.searchsorted(edges, x, side="right") - 1
        number = jnp.where(x == edges[-1], len(self.edges) - 2, number)
        outside = (x < edges[0]) | (x > edges[-1])
        number = jnp.where(outside, -1, number).astype(x.dtype)
        return jnp.where(jnp.isnan(x), jnp.nan, number)

    def init(self, key, shape):  # noqa: D102
        noise = flat(jax.random.normal, key, (*shape, len(self.edges) - 1))
        widths = _last(self._widths(noise), noise)
        return HistogramParams(noise + jnp.log(widths / jnp.max(widths)))

    def from_moments(self, mean, std):  # noqa: D102
        low, high = self.support
        least = 1e-3 * (high - low)
        mean, std = jnp.clip(mean, low, high)[..., None], jnp.maximum(std, least)
        edges = jnp.asarray(self.edges, mean.dtype)
        below = ndtr((_last(edges, mean) - mean) / std[..., None])
        bump = below[..., 1:] - below[..., :-1]
        bump = bump / bump.sum(-1, keepdims=True)
        # A tenth of the mass is uniform, so that no bin starts out empty.
        widths = _last(self._widths(mean), mean)
        share = 0.9 * bump + 0.1 * widths / (high - low)
        return HistogramParams(jnp.log(share))

    def natural(self, params):
        """As that of categorical leaves."""
        return self._table.natural(CategoricalParams(params.logits))

    def log_base(self, x):
        """One over the width of the bin; -inf outside the support."""
        number = self._bin(x)
        widths = self._widths(x)
        index = jnp.where(number >= 0, number, 0.0).astype(jnp.int32)
        return jnp.where(number >= 0, -jnp.log(widths[index]), impossible(x))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        The masses of the bins; their widths are the base measure.
        """
        return self._table.log_prob(natural, self._bin(x))

    def counts(self, natural, gradient):
        """How often each bin was met."""
        return self._table.counts(natural, gradient)

    def from_statistics(self, statistics, params):
        """Logits of the frequencies; a bin that is never met is impossible (-inf)."""
        del params
        return HistogramParams(safe_log(statistics[0]))

    def expected_statistics(self, params):
        """The bins' masses."""
        return (jax.nn.softmax(params.logits, axis=-1),)

    def uniform_statistics(self, params):
        """The masses of a constant density over all bins that are not empty."""
        widths = _last(self._widths(params.logits), params.logits)
        table = jnp.where(params.logits > -jnp.inf, widths, 0.0)
        return (safe_divide(table, jnp.sum(table, axis=-1, keepdims=True)),)

    def _log_densities(self, params):
        log_mass = jax.nn.log_softmax(params.logits, axis=-1)
        return log_mass - jnp.log(_last(self._widths(log_mass), log_mass))

    def mode_log_prob(self, params):  # noqa: D102
        return jnp.max(self._log_densities(params), axis=-1)

    def mode(self, params):
        """The middle of the densest bin."""
        return self._middles(params.logits)[
            jnp.argmax(self._log_densities(params), axis=-1)
        ]

    def moments(self, params):  # noqa: D102
        (mass,) = self.expected_statistics(params)
        mean = self.mean((mass,))
        widths, middles = self._widths(mass), self._middles(mass)
        away = _last(middles, mass) - mean[..., None]
        square = away**2 + _last(widths, mass) ** 2 / 12
        return mean, jnp.sqrt(jnp.sum(mass * square, axis=-1))

    def components(self, params):
        """The bins' masses."""
        return self.expected_statistics(params)

    def draw(self, uniform, components):  # noqa: D102
        (mass,) = components
        total = jnp.sum(mass, axis=-1)
        cumulative = jnp.cumsum(jax.lax.stop_gradient(mass), axis=-1)
        target = jax.lax.stop_gradient(uniform * cumulative[..., -1])
        number = jnp.sum(cumulative <= target[..., None], axis=-1, keepdims=True)
        numbers = _last(jnp.arange(mass.shape[-1], dtype=number.dtype), mass)
        own = jnp.sum(jnp.where(numbers == number, mass, 0.0), axis=-1)
        before = jnp.sum(jnp.where(numbers < number, mass, 0.0), axis=-1)
        share = jnp.clip(safe_divide(uniform * total - before, own), 0.0, 1.0)
        index = number[..., 0]
        edges = jnp.asarray(self.edges, mass.dtype)
        x = edges[index] + self._widths(mass)[index] * share
        return jnp.clip(x, edges[0], edges[-1])

    def mean(self, components):  # noqa: D102
        (mass,) = components
        return jnp.sum(mass * _last(self._middles(mass), mass), axis=-1)


def _last(values: Array, like: Array) -> Array:
    """``[M]`` on the last axis of an array like this one."""
    return values.reshape(*[1] * (like.ndim - 1), -1)
