"""Binomial and Bernoulli leaves."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logit, ndtri
import numpy as np

from dspc_jax.arguments import store, whole_number
from dspc_jax.leaves.family import Natural, flat, impossible, moment_matched
from dspc_jax.leaves.joining import aligned
from dspc_jax.leaves.quantiles import binomial_quantile, log_choose
from dspc_jax.ops.numerics import softplus
from dspc_jax.types import Array


class BinomialParams(NamedTuple):
    """``logits`` of the success probability, ``[G, K, L, C]``; finite."""

    logits: Array


@dataclasses.dataclass(frozen=True)
class Binomial:
    """Binomial leaf: ``num_trials`` coins, values ``0..num_trials``.

    Attributes:
        num_trials: N.
        reparametrization: ``"deviation"`` (correct), or ``"variance"``: the paper's
            error, ``clip(Np + Np(1-p) eps, 0, N)`` with Normal noise, kept as an
            ablation of differentiable sampling only.
    """

    num_trials: int
    reparametrization: str = "deviation"

    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = True
    varying: ClassVar[tuple[str, ...]] = ("num_trials",)

    def __post_init__(self):
        store(self, num_trials=whole_number("num_trials", self.num_trials, least=1))
        if self.reparametrization not in ("deviation", "variance"):
            raise ValueError(
                "reparametrization must be 'deviation' or 'variance', "
                f"got {self.reparametrization!r}"
            )

    @property
    def support(self):  # noqa: D102
        return (0, self.num_trials)

    @property
    def cost(self):
        """Draws search within a few deviations."""
        return math.sqrt(self.num_trials)

    def init(self, key, shape):  # noqa: D102
        # N(0, 1) logits, as in the published code of Lang et al. 2022.
        return BinomialParams(flat(jax.random.normal, key, shape))

    def from_moments(self, mean, std):  # noqa: D102
        del std
        # Clipped, so that a mean at an end of the range has a finite logit (6.9).
        share = mean / aligned(self.num_trials, mean)
        return BinomialParams(logit(jnp.clip(share, 1e-3, 1 - 1e-3)))

    def natural(self, params):
        """Statistic ``x``."""
        n = aligned(self.num_trials, params.logits)
        return Natural((params.logits,), n * softplus(params.logits))

    def statistics(self, x):  # noqa: D102
        return (x,)

    def log_base(self, x):
        """``log (N choose x)``; -inf outside the support."""
        n = aligned(self.num_trials, x)
        legal = (x >= 0) & (x <= n) & (x == jnp.round(x))
        log_base = log_choose(self.num_trials, jnp.clip(x, 0, n))
        return jnp.where(legal, log_base, impossible(x))

    def counts(self, natural, gradient):
        """Sums of ``x``."""
        del natural
        return gradient.eta, -gradient.log_partition

    def from_statistics(self, statistics, params):
        """The maximum likelihood parameters for ``E[x]``; logits within +-16.

        16 is the last whole number whose logistic function is below 1 in float32.
        """
        del params
        (mean,) = statistics
        p = jnp.clip(mean / aligned(self.num_trials, mean), 0.0, 1.0)
        return BinomialParams(jnp.clip(jnp.log(p) - jnp.log1p(-p), -16.0, 16.0))

    def expected_statistics(self, params):
        """``E[x]``."""
        n = aligned(self.num_trials, params.logits)
        return (n * jax.nn.sigmoid(params.logits),)

    def uniform_statistics(self, params):
        """Half of the trials."""
        half = aligned(self.num_trials, params.logits) / 2
        return (half + jnp.zeros_like(params.logits),)

    def mode_log_prob(self, params):  # noqa: D102
        x = self.mode(params)
        n = aligned(self.num_trials, x)
        log_p = x * params.logits - n * softplus(params.logits)
        return self.log_base(x) + log_p

    def components(self, params):
        """Mean ``Np`` and deviation ``sqrt(Np(1-p))``."""
        logits = params.logits
        n = aligned(self.num_trials, logits)
        root = _bernoulli_deviation(logits)
        if self.reparametrization == "variance":
            spread = n * root**2
        else:
            spread = aligned(np.sqrt(self.num_trials), logits) * root
        return (n * jax.nn.sigmoid(logits), spread)

    def moments(self, params):  # noqa: D102
        n = aligned(self.num_trials, params.logits)
        root = _bernoulli_deviation(params.logits)
        return n * jax.nn.sigmoid(params.logits), aligned(
            np.sqrt(self.num_trials), root
        ) * root

    def draw(self, uniform, components):  # noqa: D102
        mean, std = components
        n = aligned(self.num_trials, mean)
        if self.reparametrization == "variance":
            return jnp.clip(mean + std * ndtri(uniform), 0.0, n)
        p = jnp.minimum(jax.lax.stop_gradient(mean / n), 1.0)
        draw = binomial_quantile(uniform, self.num_trials, p)
        # Near p = 1 digits of 1 - p are lost; an unblended deviation stays as it is.
        # 1e-6 is ten times the rounding error of p (1 - p) in float32.
        variance = n * p * (1 - p)
        blended = variance - jax.lax.stop_gradient(std) ** 2 > 1e-6 * n
        exact_std = jnp.where(blended, jnp.sqrt(variance), std)
        return moment_matched(draw, mean, std, exact_std)

    def mean(self, components):  # noqa: D102
        return components[0]

    def mode(self, params):  # noqa: D102
        n = aligned(self.num_trials, params.logits)
        return jnp.minimum(jnp.floor((n + 1) * jax.nn.sigmoid(params.logits)), n)


@jax.custom_jvp
def _bernoulli_deviation(logits: Array) -> Array:
    """``sqrt(p (1 - p))`` without a root, so that its gradient is finite at 0, too."""
    small = jnp.exp(-0.5 * jnp.abs(logits))
    return small / (1 + small**2)


@_bernoulli_deviation.defjvp
def _bernoulli_deviation_jvp(primals, tangents):
    deviation = _bernoulli_deviation(*primals)
    return deviation, deviation * (0.5 - jax.nn.sigmoid(primals[0])) * tangents[0]


@dataclasses.dataclass(frozen=True)
class Bernoulli(Binomial):
    """Bernoulli leaf: one coin, values 0 and 1."""

    num_trials: int = dataclasses.field(default=1, init=False)
    reparametrization: str = dataclasses.field(default="deviation", init=False)
