"""Categorical leaves."""

import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import store, whole_number
from dspc_jax.leaves.family import flat, impossible, moment_matched
from dspc_jax.leaves.joining import aligned
from dspc_jax.leaves.quantiles import categorical_quantile, table_quantile
from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.numerics import finite_or_zero, safe_divide, safe_log, safe_sqrt
from dspc_jax.types import Array


class CategoricalParams(NamedTuple):
    """``logits`` ``[G, K, L, C, M]``, one per value; -inf is a forbidden value.

    Of joined leaves M is the greatest number of values. Logits beyond a leaf's own are
    padding: 0 at the start, and count for nothing.
    """

    logits: Array


class CategoricalForm(NamedTuple):
    """The parameters as the evaluation takes them: ``logit - top - log_total``.

    There is no table of log-probabilities: it would be one more array of the size of
    the logits, written and read again in every step.
    """

    logits: Array
    top: Array
    log_total: Array


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Categorical leaf over the values ``0..num_values-1``.

    In a differentiable sample the value counts as a number (an intensity), see
    `dspc_jax.leaves.family`.

    Attributes:
        num_values: M, at least 2.
    """

    num_values: int

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = True
    varying: ClassVar[tuple[str, ...]] = ("num_values",)

    def __post_init__(self):
        store(self, num_values=whole_number("num_values", self.num_values, least=2))

    @property
    def support(self):  # noqa: D102
        return (0, self.num_values - 1)

    @property
    def cost(self):
        """The table's length."""
        return float(self.num_values)

    @property
    def _length(self):
        """M: the greatest number of values, where leaves are joined."""
        return int(np.max(self.num_values))

    def _padded(self, table, padding):
        """A table ``[..., M]`` with ``padding`` beyond the values of its leaves."""
        if isinstance(self.num_values, int):
            return table
        values = _values(table.shape[-1], table, jnp.int32)
        return jnp.where(values < aligned(self.num_values, values), table, padding)

    def init(self, key, shape):  # noqa: D102
        logits = flat(jax.random.normal, key, (*shape, self._length))
        return CategoricalParams(self._padded(logits, 0.0))

    def from_moments(self, mean, std):  # noqa: D102
        # At least half a step wide: a narrower bump is a single value.
        width = jnp.maximum(std, 0.5)[..., None]
        distance = _values(self._length, width) - mean[..., None]
        bump = self._padded(jnp.exp(-0.5 * (distance / width) ** 2), 0.0)
        bump = bump / bump.sum(-1, keepdims=True)
        # A tenth of the mass is uniform, so that no value starts out impossible.
        table = 0.9 * bump + 0.1 / aligned(self.num_values, bump)
        return CategoricalParams(self._padded(jnp.log(table), 0.0))

    def natural(self, params):
        """The logits, with what normalizes them."""
        logits = self._padded(params.logits, -jnp.inf)
        top = jax.lax.stop_gradient(finite_or_zero(jnp.max(logits, axis=-1)))
        return CategoricalForm(logits, top, _log_total(logits, top))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats."""
        return _look_up(natural, x)

    def counts(self, natural, gradient):
        """How often each value came."""
        del natural
        return (gradient.logits,), -gradient.log_total

    def from_statistics(self, statistics, params):
        """Logits of the frequencies; a value that never occurs is impossible (-inf)."""
        return CategoricalParams(
            self._padded(safe_log(statistics[0]), params.logits),
        )

    def expected_statistics(self, params):
        """The table of probabilities."""
        return (jax.nn.softmax(self._padded(params.logits, -jnp.inf), -1),)

    def spread(self, statistics, std):  # noqa: D102
        (table,) = statistics
        size, radius = table.shape[-1], math.ceil(3 * std)
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-0.5 * (offsets / std) ** 2).tolist()
        before = [(0, 0)] * (table.ndim - 1)

        def blurred(a):
            a = jnp.pad(a, [*before, (radius, radius)])
            parts = [w * a[..., d : d + size] for d, w in enumerate(kernel)]
            return functools.reduce(jnp.add, parts)

        possible = self._padded(jnp.ones_like(table), 0.0)
        shares = safe_divide(table, blurred(possible))  # no mass leaves the range
        return (possible * blurred(shares),)

    def uniform_statistics(self, params):
        """The table of equal probabilities of all values that are not forbidden."""
        possible = self._padded(params.logits, -jnp.inf) > -jnp.inf
        table = possible.astype(params.logits.dtype)
        return (safe_divide(table, jnp.sum(table, axis=-1, keepdims=True)),)

    def mode_log_prob(self, params):  # noqa: D102
        logits, top, log_total = self.natural(params)
        return jnp.max(logits, axis=-1) - top - log_total

    def components(self, params):
        """Mean, deviation and the table of probabilities."""
        return (*self.moments(params), *self.expected_statistics(params))

    def moments(self, params):  # noqa: D102
        mean, variance = _moments(self.natural(params))
        return mean, safe_sqrt(variance)

    def draw(self, uniform, components):  # noqa: D102
        mean, std, p = components
        p = jax.lax.stop_gradient(p)
        draw = categorical_quantile(uniform, p)
        _, variance = _moments_of(p)
        return moment_matched(draw, mean, std, jnp.sqrt(variance))

    def draw_at(self, uniform, params, index):  # noqa: D102
        return table_quantile(uniform, self._padded(params.logits, -jnp.inf), index)

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        logits = self._padded(params.logits, -jnp.inf)
        return jnp.argmax(logits, axis=-1).astype(logits.dtype)


def _values(length, like, dtype=None):
    """The values ``0..length-1`` on the last axis of an array like this one."""
    values = jnp.arange(length, dtype=dtype or like.dtype)
    return values.reshape(*[1] * (like.ndim - 1), -1)


def _moments_of(p: Array) -> tuple[Array, Array]:
    """Mean and variance of tables of probabilities ``[..., M]``."""
    values = _values(p.shape[-1], p)
    mean = jnp.sum(p * values, -1)
    return mean, jnp.sum(p * (values - mean[..., None]) ** 2, -1)


@Differentiable
def _moments(table: CategoricalForm) -> tuple[Array, Array]:
    """Mean and variance of leaves."""
    return _moments_of(_probabilities(table))


def _probabilities(table: CategoricalForm) -> Array:
    return jnp.exp(table.logits - (table.top + table.log_total)[..., None])


def _moments_fwd(table):
    mean, variance = _moments(table)
    return (mean, variance), (table, mean, variance)


def _moments_bwd(residuals, g):
    table, mean, variance = residuals
    d_mean, d_variance = g
    values = _values(table.logits.shape[-1], table.logits)
    # The table of probabilities is computed again: it is as large as the logits.
    away = d_variance[..., None] * (values - mean[..., None]) ** 2
    gradient = _probabilities(table) * (d_mean[..., None] * values + away)
    shift = -(d_mean * mean + d_variance * variance)
    return CategoricalForm(gradient, shift, shift)


_moments.defvjp(_moments_fwd, _moments_bwd)


@Differentiable
def _log_total(logits: Array, top: Array) -> Array:
    """``log sum exp (logits - top)`` over the last axis; 0 where all are -inf."""
    total = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)
    return jnp.log(jnp.where(total == 0, 1.0, total))


def _log_total_fwd(logits, top):
    total = _log_total(logits, top)
    return total, (logits, top, total)


def _log_total_bwd(residuals, g):
    logits, top, total = residuals
    # The table of probabilities is computed again: it is as large as the logits.
    p = jnp.exp(logits - top[..., None] - total[..., None])
    gradient = g[..., None] * p
    return gradient, -jnp.sum(gradient, axis=-1)


_log_total.defvjp(_log_total_fwd, _log_total_bwd)


@Differentiable
def _look_up(table: CategoricalForm, x: Array) -> Array:
    """``log p`` of ``x[g, n]`` in ``table[g, k]``; -inf outside of the table."""
    num_values = table.logits.shape[-1]
    index = _index(x, num_values)[:, None]
    index = jnp.broadcast_to(index, (*table.top.shape, x.shape[-1]))
    values = jnp.take_along_axis(table.logits, index, axis=-1)
    values = values - table.top[..., None] - table.log_total[..., None]
    return jnp.where(_legal(x, num_values)[:, None], values, impossible(x)[:, None])


def _look_up_fwd(table, x):
    return _look_up(table, x), (table, x)


def _look_up_bwd(residuals, g):
    table, x = residuals
    size = table.logits.shape[-1]
    # The cotangent of a NaN is NaN, and so is the mass then.
    g = jnp.where((_legal(x, size) | jnp.isnan(x))[:, None], g, 0.0)
    count = functools.partial(_count, size=size), functools.partial(_product, size=size)
    counts = jax.lax.platform_dependent(
        g, _index(x, size), cpu=count[0], default=count[1]
    )
    mass = jnp.sum(g, axis=-1)
    return CategoricalForm(counts, -mass, -mass), jnp.zeros_like(x)


_look_up.defvjp(_look_up_fwd, _look_up_bwd)


def _index(x: Array, size: int) -> Array:
    return jnp.clip(x, 0, size - 1).astype(jnp.int32)


def _legal(x: Array, size: int) -> Array:
    return (x >= 0) & (x <= size - 1) & (x == jnp.round(x))


def _count(g: Array, index: Array, size: int) -> Array:
    """``sum_n g[g, k, n] [index[g, n] = m]``, ``[G, K, M]``.

    Region by region, so that counts are added up and transposed in the cache: each
    value adds a row of all units.
    """

    def region(g, index):
        rows = jnp.zeros((size, g.shape[0]), g.dtype)
        return rows.at[index].add(g.T, mode="promise_in_bounds").T

    return jax.lax.map(lambda pair: region(*pair), (g, index))


def _product(g: Array, index: Array, size: int) -> Array:
    """As `_count`, one product with a one-hot matrix."""
    one_hot = jax.nn.one_hot(index, size, axis=1, dtype=g.dtype)
    return jnp.einsum("gkn,gmn->gkm", g, one_hot, precision="highest")
