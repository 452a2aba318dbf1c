r"""Leaf distributions: one small class per family, all with the same eight methods.

A leaf's parameters are a NamedTuple of unconstrained arrays with leading axes
``[G, K, L, C]`` (a categorical has one more). Values ``x`` are float32 in the leaf's own
units (counts, category numbers, reals).

*Evaluation.* An exponential family is
:math:`\log p(x) = h(x) + \sum_s \eta_s T_s(x) - A(\eta)`, so the sum over a region's
scope is one matrix product (`layers.input_layer`). The others are evaluated directly.

*Differentiable draws.* A family names `components` :math:`m(\theta)`, arrays that a soft
selection may blend linearly, and `draw` meets them with one uniform number per pixel and
channel. Continuous families are location-scale. A discrete draw :math:`b` is made exact
in law first; its gradient is that of :math:`m + s\varepsilon` with mean :math:`m`,
deviation :math:`s` and the standardised draw :math:`\varepsilon = (b - m)/s` held fixed.
This matches the first two moments, so the gradient of the mean of every quadratic
function of :math:`b` is unbiased; a blend stays within the convex hull of the draws.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.special import logit, ndtri
import numpy as np

from dspc_jax.numerics import log_softmax, safe_divide, safe_log, softplus
from dspc_jax.quantiles import (
    binomial_quantile,
    categorical_quantile,
    log_binomial_coefficients,
)
from dspc_jax.types import Array, Key


class Leaf(Protocol):
    """What the layers ask of a family."""

    exponential: ClassVar[bool]
    integer: ClassVar[bool]

    @property
    def support(self) -> tuple[float, float]:
        """Least and greatest legal value."""
        ...

    def init(self, key: Key, shape: tuple[int, ...]) -> Any:
        """Random parameters with leading axes ``shape``."""
        ...

    def from_moments(self, mean: Array, std: Array) -> Any:
        """Parameters of the member with (about) this mean and deviation."""
        ...

    def natural(self, params: Any) -> Any:
        """Constrained parameters in the form the evaluation wants; linear in EM."""
        ...

    def mode_log_prob(self, params: Any) -> Array:
        """``log p`` of `mode`, in nats, base measure included."""
        ...

    def components(self, params: Any) -> tuple[Array, ...]:
        """Arrays that a soft selection blends and `draw` takes."""
        ...

    def draw(self, uniform: Array, components: tuple[Array, ...]) -> Array:
        """A draw from blended components; see the module's docstring."""
        ...

    def mean(self, components: tuple[Array, ...]) -> Array:
        """Mean of the leaf with these components."""
        ...

    def mode(self, params: Any) -> Array:
        """Most probable value."""
        ...


class Natural(NamedTuple):
    """Natural parameters, one array per statistic, and the log-partition function."""

    eta: tuple[Array, ...]
    log_partition: Array


def _with_gradient(value: Array, *terms: tuple[Array, Array]) -> Array:
    """``value`` with the gradient of ``sum a * b`` over the terms, ``b`` held fixed."""
    for a, b in terms:
        value = value + (a - jax.lax.stop_gradient(a)) * jax.lax.stop_gradient(b)
    return value


def _moment_matched(draw: Array, mean: Array, std: Array, exact_std: Array) -> Array:
    """``mean + std * (draw - mean) / exact_std``: the draw itself where not blended."""
    exact_std = jax.lax.stop_gradient(exact_std)
    noise = safe_divide(jax.lax.stop_gradient(draw - mean), exact_std)
    # The coefficient of the draw is 1 unless components were blended.
    share = jnp.where(exact_std > 0, jax.lax.stop_gradient(std) / exact_std, 1.0)
    share = jnp.where(jnp.abs(share - 1) < 1e-4, 1.0, share)
    value = jax.lax.stop_gradient(draw * share + mean * (1 - share))
    return _with_gradient(value, (mean, jnp.ones_like(noise)), (std, noise))


class NormalParams(NamedTuple):
    """``mean`` and ``scale_logit``, both ``[G, K, L, C]``."""

    mean: Array
    scale_logit: Array


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal leaf with a bounded scale.

    Attributes:
      min_scale: least standard deviation; keeps likelihoods bounded.
      max_scale: greatest standard deviation.
      init_mean: mean and deviation of the random initial means.
    """

    min_scale: float = 0.02
    max_scale: float = 1.0
    init_mean: tuple[float, float] = (0.5, 0.3)

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = False

    def __post_init__(self):
        if not 0 < self.min_scale < self.max_scale:
            raise ValueError(
                "min_scale: must be positive and below max_scale="
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
        """The likeliest parameters for ``E[x], E[x**2]``; the scale is clipped."""
        mean, square = statistics
        return self.from_moments(mean, jnp.sqrt(jnp.maximum(square - mean**2, 0.0)))

    def expected_statistics(self, params):
        """``E[x], E[x**2]``."""
        return (params.mean, params.mean**2 + self._scale(params) ** 2)

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


class BinomialParams(NamedTuple):
    """``logits`` of the success probability, ``[G, K, L, C]``; finite."""

    logits: Array


@dataclasses.dataclass(frozen=True)
class Binomial:
    """Binomial leaf: ``num_trials`` coins, values ``0..num_trials``.

    Attributes:
      num_trials: N.
      reparametrization: ``"deviation"`` (right), or ``"variance"``: the paper's error,
        ``clip(Np + Np(1-p) eps, 0, N)`` with Normal noise, kept as an ablation of
        differentiable sampling only.
    """

    num_trials: int
    reparametrization: str = "deviation"

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_trials < 1:
            raise ValueError(f"num_trials: must be at least 1, got {self.num_trials}")
        if self.reparametrization not in ("deviation", "variance"):
            raise ValueError(
                "reparametrization: must be 'deviation' or 'variance', "
                f"got {self.reparametrization!r}"
            )

    @property
    def support(self):  # noqa: D102
        return (0, self.num_trials)

    def init(self, key, shape):  # noqa: D102
        return BinomialParams(jax.random.normal(key, shape))

    def from_moments(self, mean, std):  # noqa: D102
        del std
        return BinomialParams(logit(jnp.clip(mean / self.num_trials, 1e-3, 1 - 1e-3)))

    def natural(self, params):
        """Statistic ``x``."""
        log_partition = self.num_trials * softplus(params.logits)
        return Natural((params.logits,), log_partition)

    def statistics(self, x):  # noqa: D102
        return (x,)

    def log_base(self, x):
        """``log (N choose x)``; -inf outside the support."""
        n = self.num_trials
        legal = (x >= 0) & (x <= n) & (x == jnp.round(x))
        index = jnp.clip(x, 0, n).astype(jnp.int32)
        table = jnp.asarray(log_binomial_coefficients(n))
        return jnp.where(legal, table[index], -jnp.inf)

    def from_statistics(self, statistics):
        """The likeliest parameters for ``E[x]``; logits are kept within +-16."""
        p = jnp.clip(statistics[0] / self.num_trials, 0.0, 1.0)
        return BinomialParams(jnp.clip(jnp.log(p) - jnp.log1p(-p), -16.0, 16.0))

    def expected_statistics(self, params):
        """``E[x]``."""
        return (self.num_trials * jax.nn.sigmoid(params.logits),)

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        log_p = x * params.logits - self.num_trials * softplus(params.logits)
        return self.log_base(x) + log_p

    def components(self, params):
        """Mean ``Np``, deviation ``sqrt(Np(1-p))`` and ``N(1-p)``, exact at both ends."""
        n, logits = self.num_trials, params.logits
        # sqrt(pq) = e^(-|l|/2) / (1 + e^-|l|): no root of 0, so no infinite gradient.
        small = jnp.exp(-0.5 * jnp.abs(logits))
        root = small / (1 + small**2)
        if self.reparametrization == "variance":
            spread = n * root**2
        else:
            spread = np.sqrt(n) * root
        return (n * jax.nn.sigmoid(logits), spread, n * jax.nn.sigmoid(-logits))

    def draw(self, uniform, components):  # noqa: D102
        n = self.num_trials
        mean, std, failures = components
        if self.reparametrization == "variance":
            return jnp.clip(mean + std * ndtri(uniform), 0.0, n)
        p, q = jax.lax.stop_gradient((mean / n, failures / n))
        draw = binomial_quantile(uniform, n, p, q)
        return _moment_matched(draw, mean, std, jnp.sqrt(n * p * q))

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        top = jnp.floor((self.num_trials + 1) * jax.nn.sigmoid(params.logits))
        return jnp.minimum(top, self.num_trials)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Binomial):
    """Bernoulli leaf: one coin, values 0 and 1."""

    num_trials: int = dataclasses.field(default=1, init=False)
    reparametrization: str = dataclasses.field(default="deviation", init=False)


class CategoricalParams(NamedTuple):
    """``logits`` ``[G, K, L, C, M]``, one per value; -inf is a forbidden value."""

    logits: Array


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Categorical leaf over the values ``0..num_values-1``.

    As a differentiable sample the value counts as a number (an intensity), see the
    module's docstring.
    """

    num_values: int

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_values < 2:
            raise ValueError(f"num_values: must be at least 2, got {self.num_values}")

    @property
    def support(self):  # noqa: D102
        return (0, self.num_values - 1)

    @property
    def _values(self):
        return jnp.arange(self.num_values, dtype=jnp.float32)

    def init(self, key, shape):  # noqa: D102
        return CategoricalParams(jax.random.normal(key, (*shape, self.num_values)))

    def from_moments(self, mean, std):  # noqa: D102
        width = jnp.maximum(std, 0.5)[..., None]
        bump = jnp.exp(-0.5 * ((self._values - mean[..., None]) / width) ** 2)
        bump = bump / bump.sum(-1, keepdims=True)
        return CategoricalParams(jnp.log(0.9 * bump + 0.1 / self.num_values))

    def natural(self, params):
        """The table ``log p(value)``, ``[G, K, L, C, M]``."""
        return log_softmax(params.logits, -1)

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` in the tables ``[G, K, M]``: ``[G, K, N]``."""
        return _look_up(natural, x)

    def from_statistics(self, statistics):
        """Frequencies to logits; a value never seen becomes impossible (-inf)."""
        return CategoricalParams(safe_log(statistics[0]))

    def expected_statistics(self, params):
        """The table of probabilities."""
        return (jax.nn.softmax(params.logits, -1),)

    def mode_log_prob(self, params):  # noqa: D102
        return jnp.max(self.natural(params), axis=-1)

    def components(self, params):
        """Mean, deviation and the table of probabilities."""
        p = jax.nn.softmax(params.logits, -1)
        mean = jnp.sum(p * self._values, -1)
        variance = jnp.sum(p * (self._values - mean[..., None]) ** 2, -1)
        positive = variance > 0
        std = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
        return (mean, std, p)

    def draw(self, uniform, components):  # noqa: D102
        mean, std, p = components
        p = jax.lax.stop_gradient(p)
        draw = categorical_quantile(uniform, p)
        exact_mean = jnp.sum(p * self._values, -1)
        variance = jnp.sum(p * (self._values - exact_mean[..., None]) ** 2, -1)
        return _moment_matched(draw, mean, std, jnp.sqrt(variance))

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        return jnp.argmax(params.logits, axis=-1).astype(jnp.float32)


@jax.custom_vjp
def _look_up(table: Array, x: Array) -> Array:
    """``table[g, k, x[g, n]]``; values outside the table are impossible (-inf).

    Forward a gather, backward one product with a one-hot matrix: a scatter is slow on
    every backend, and a product with -inf entries would be NaN.
    """
    num_values = table.shape[-1]
    index = jnp.clip(x, 0, num_values - 1).astype(jnp.int32)
    index = jnp.broadcast_to(index[:, None], (*table.shape[:2], x.shape[-1]))
    legal = (x >= 0) & (x <= num_values - 1) & (x == jnp.round(x))
    looked_up = jnp.take_along_axis(table, index, axis=-1)
    return jnp.where(legal[:, None], looked_up, -jnp.inf)


def _look_up_fwd(table, x):
    return _look_up(table, x), (x, table.shape[-1])


def _look_up_bwd(residuals, g):
    x, num_values = residuals
    one_hot = (x[:, None] == jnp.arange(num_values, dtype=x.dtype)[:, None]).astype(
        g.dtype
    )
    counts = jnp.einsum("gkn,gmn->gkm", g, one_hot, precision="highest")
    return counts, jnp.zeros_like(x)


_look_up.defvjp(_look_up_fwd, _look_up_bwd)


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
      num_values: of the variable; 256 for 8-bit pixels.
      min_scale: least scale, in steps of one value.

    References:
      Salimans et al., "PixelCNN++", ICLR 2017, section 2.1.
    """

    num_values: int
    min_scale: float = 0.05

    exponential: ClassVar[bool] = False
    integer: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_values < 2:
            raise ValueError(f"num_values: must be at least 2, got {self.num_values}")
        if self.min_scale <= 0:
            raise ValueError(f"min_scale: must be positive, got {self.min_scale}")

    @property
    def support(self):  # noqa: D102
        return (0, self.num_values - 1)

    def init(self, key, shape):  # noqa: D102
        key_mean, key_scale = jax.random.split(key)
        return DiscretizedLogisticParams(
            jax.random.uniform(key_mean, shape),
            -2.0 + 0.3 * jax.random.normal(key_scale, shape),
        )

    def from_moments(self, mean, std):  # noqa: D102
        top = self.num_values - 1
        scale = jnp.maximum(std * np.sqrt(3) / np.pi, 2 * self.min_scale)
        return DiscretizedLogisticParams(
            mean / top, jnp.log(scale - self.min_scale) - jnp.log(top)
        )

    def _location_scale(self, params):
        top = self.num_values - 1
        return params.mean * top, self.min_scale + top * jnp.exp(params.log_scale)

    def natural(self, params):
        """Location over scale, one over scale, and ``log(1 - exp(-1/scale))``."""
        location, scale = self._location_scale(params)
        return (location / scale, 1 / scale, jnp.log(-jnp.expm1(-1 / scale)))

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        Between the ends ``log p = -softplus(-a) - softplus(b) + log(1 - exp(b - a))``
        with the bin's upper and lower edge ``a`` and ``b``; at an end one term falls.
        """
        shift, precision, log_width = (p[..., None] for p in natural)
        x = x[:, None]
        upper, lower = (x < self.num_values - 1), (x > 0)
        a = (x + 0.5) * precision - shift
        b = (x - 0.5) * precision - shift
        log_p = jnp.where(upper & lower, log_width, 0.0)
        log_p -= jnp.where(upper, softplus(-a), 0.0)
        log_p -= jnp.where(lower, softplus(b), 0.0)
        legal = (x >= 0) & (x <= self.num_values - 1) & (x == jnp.round(x))
        return jnp.where(legal, log_p, -jnp.inf)

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        flat = jax.tree.map(lambda p: p.reshape(-1, 1), self.natural(params))
        return self.log_prob(flat, x.reshape(-1, 1)).reshape(x.shape)

    def components(self, params):
        """Location and scale."""
        return self._location_scale(params)

    def draw(self, uniform, components):
        """Rounds forward; the gradient is that of the unrounded draw, 0 at the ends."""
        location, scale = components
        unrounded = location + scale * (jnp.log(uniform) - jnp.log1p(-uniform))
        within = jnp.clip(unrounded, 0.0, self.num_values - 1)
        return within + jax.lax.stop_gradient(jnp.round(within) - within)

    def mean(self, components):
        """The exact mean ``sum_{v >= 1} P(X >= v)``."""
        location, scale = components

        def above(v, total):
            return total + jax.nn.sigmoid((location - v + 0.5) / scale)

        zero = jnp.zeros_like(location)
        return jax.lax.fori_loop(1, self.num_values, above, zero, unroll=8)

    def mode(self, params):
        """The inner value next to the location, or an end if that holds more."""
        location, scale = self._location_scale(params)
        top = self.num_values - 1
        inner = jnp.clip(jnp.round(location), 0, top)
        # An end collects a whole tail; compare its mass with the best inner bin's.
        sigmoid = jax.nn.sigmoid
        mass = sigmoid((inner + 0.5 - location) / scale) - sigmoid(
            (inner - 0.5 - location) / scale
        )
        low = sigmoid((0.5 - location) / scale)
        high = sigmoid((location - top + 0.5) / scale)
        best = jnp.where(low > mass, 0.0, inner)
        return jnp.where(high > jnp.maximum(mass, low), float(top), best)
