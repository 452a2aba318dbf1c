r"""Zero-inflated leaves: a family with a share of zeros on top.

.. math:: p(x) = \pi [x = 0] + (1 - \pi)\, q(x)

for a leaf q of another family. Where q has a density, the zeros are an atom:
``log_prob`` is :math:`\log \pi` at 0, a log-probability, and a log-density elsewhere.
Likelihoods of circuits compare where both have an atom in the same variables. The
origin of a zero is a latent variable, of which the M-step has the posterior.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.arguments import shown, store
from dspc_jax.leaves.family import (
    BasedLeaf,
    CenteredLeaf,
    FittableLeaf,
    flat,
    moment_matched,
)
from dspc_jax.leaves.joining import aligned
from dspc_jax.ops.numerics import logsumexp, safe_divide
from dspc_jax.types import Array

_SHARE_AT_START = 0.1


class ZeroInflatedParams(NamedTuple):
    """``logit`` of the share of zeros, ``[G, K, L, C]``, and the other leaf's."""

    logit: Array
    leaf: Any


class ZeroInflatedForm(NamedTuple):
    """The parameters as the evaluation takes them."""

    log_zero: Array
    log_rest: Array
    leaf: Any


@dataclasses.dataclass(frozen=True)
class ZeroInflated:
    """Zero-inflated leaf, see the module: ``pc.ZeroInflated(pc.Poisson())``.

    A differentiable draw has the gradient of its first two moments, also where the
    other leaf has a density. Blended leaves are blended by the masses of the others.

    Attributes:
        leaf: the other family: any with an M-step and moments (all of this library but
            the Laplace, the discretized logistic and the zero-inflated one).
    """

    leaf: Any

    exponential: ClassVar[bool] = False

    def __post_init__(self):
        known = isinstance(self.leaf, FittableLeaf) and hasattr(self.leaf, "moments")
        if isinstance(self.leaf, type | ZeroInflated) or not known:
            raise ValueError(
                "leaf must be a leaf family with an M-step and moments, such as "
                f"Poisson(), got {shown(self.leaf)}"
            )
        low, high = self.leaf.support
        if high < 0 or (self.leaf.integer and low > 0):
            raise ValueError(
                f"leaf must have values from 0 on, got those from {low} to {high}"
            )
        store(self, leaf=self.leaf)

    @property
    def integer(self) -> bool:
        """As the other leaf."""
        return self.leaf.integer

    @property
    def support(self):
        """That of the other leaf, with 0."""
        low, high = self.leaf.support
        return (min(low, 0) if low < 1e-30 else 0, high)

    def init(self, key, shape):  # noqa: D102
        key_share, key_leaf = jax.random.split(key)
        logit = -1.0 + flat(jax.random.normal, key_share, shape)
        return ZeroInflatedParams(logit, self.leaf.init(key_leaf, shape))

    def from_moments(self, mean, std):
        """A tenth of zeros; of a mean of 0 nine tenths, and a leaf about ``std``."""
        is_zero = mean == 0
        share = jnp.where(is_zero, 1 - _SHARE_AT_START, _SHARE_AT_START)
        share = share.astype(mean.dtype)
        own = jnp.where(is_zero, std, mean / (1 - share))
        square = (std**2 + mean**2) / (1 - share) - own**2
        spread = jnp.where(is_zero, std, jnp.sqrt(jnp.maximum(square, 1e-4 * std**2)))
        logit = jnp.log(share) - jnp.log1p(-share)
        return ZeroInflatedParams(logit, self.leaf.from_moments(own, spread))

    def natural(self, params):
        """Logarithms of both shares, and what the other leaf has."""
        return ZeroInflatedForm(
            jax.nn.log_sigmoid(params.logit),
            jax.nn.log_sigmoid(-params.logit),
            self.leaf.natural(params.leaf),
        )

    def log_prob(self, natural, x):
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats."""
        zero, rest = natural.log_zero[..., None], natural.log_rest[..., None]
        other = rest + _values(self.leaf, natural.leaf, x)
        at_zero = jnp.broadcast_to(zero, other.shape)
        if self.leaf.integer:
            at_zero = logsumexp(jnp.stack([at_zero, other]), axis=0)
        return jnp.where(x[:, None] == 0, at_zero, other)

    def counts(self, natural, gradient):
        """The mass that is not of the inflation, and the other leaf's sums."""
        statistics, _ = self.leaf.counts(natural.leaf, gradient.leaf)
        rest = gradient.log_rest
        return (rest, *statistics), gradient.log_zero + rest

    def from_statistics(self, statistics, params):
        """The M-step: a share within +-16 in logits, and the other leaf's own."""
        rest, *others = statistics
        zero = jnp.clip(1 - rest, 0.0, 1.0)
        logit = jnp.log(zero) - jnp.log(jnp.maximum(rest, 0.0))
        means = tuple(safe_divide(a, aligned(rest, a)) for a in others)
        leaf = self.leaf.from_statistics(means, params.leaf)

        def if_any(new, old):
            return jnp.where(aligned(rest, new) > 0, new, old)

        return ZeroInflatedParams(
            jnp.clip(logit, -16.0, 16.0), jax.tree.map(if_any, leaf, params.leaf)
        )

    def expected_statistics(self, params):
        """The share that is not of the inflation, and the other leaf's, times it."""
        rest = jax.nn.sigmoid(-params.logit)
        others = self.leaf.expected_statistics(params.leaf)
        return (rest, *(aligned(rest, a) * a for a in others))

    def center(self, params):
        """The other leaf's, or 0 if it has none."""
        if isinstance(self.leaf, CenteredLeaf):
            return self.leaf.center(params.leaf)
        return jnp.zeros_like(params.logit)

    def recentered(self, statistics, mass, shift):  # noqa: D102
        del mass
        rest, *others = statistics
        if isinstance(self.leaf, CenteredLeaf):
            others = self.leaf.recentered(tuple(others), rest, shift)
        return (rest, *others)

    def _log_probs(self, params):
        """``log p`` of 0 and of the other leaf's mode, of leaves of any shape."""
        shape = params.logit.shape
        one_by_one = jax.tree.map(
            lambda a: a.reshape(-1, 1, *a.shape[len(shape) :]), self.natural(params)
        )
        zeros = jnp.zeros((one_by_one.log_zero.shape[0], 1), params.logit.dtype)
        at_zero = self.log_prob(one_by_one, zeros).reshape(shape)
        other = self.leaf.mode_log_prob(params.leaf)
        return at_zero, jax.nn.log_sigmoid(-params.logit) + other

    def mode_log_prob(self, params):  # noqa: D102
        return jnp.maximum(*self._log_probs(params))

    def mode(self, params):
        """0, or the other leaf's mode, whichever has the greater ``log_prob``."""
        at_zero, at_mode = self._log_probs(params)
        return jnp.where(at_zero >= at_mode, 0.0, self.leaf.mode(params.leaf))

    def moments(self, params):  # noqa: D102
        rest = jax.nn.sigmoid(-params.logit)
        mean, std = self.leaf.moments(params.leaf)
        spread = jnp.sqrt(rest * (1 - rest))
        return rest * mean, jnp.hypot(jnp.sqrt(rest) * std, spread * mean)

    def components(self, params):
        """Mean, deviation, the share of the other leaf, and its components times it."""
        rest = jax.nn.sigmoid(-params.logit)
        others = self.leaf.components(params.leaf)
        weighted = (aligned(rest, a) * a for a in others)
        return (*self.moments(params), rest, *weighted)

    def draw(self, uniform, components):  # noqa: D102
        mean, std, *fixed = components
        rest, *weighted = jax.lax.stop_gradient(fixed)
        others = tuple(safe_divide(a, aligned(rest, a)) for a in weighted)
        # The numbers above the share of zeros, stretched to the unit interval.
        least = float(jnp.finfo(uniform.dtype).eps) / 4
        above = safe_divide(uniform - (1 - rest), rest)
        draw = self.leaf.draw(jnp.clip(above, least, 1 - 2 * least), others)
        draw = jnp.where(uniform < 1 - rest, 0.0, draw)
        return moment_matched(draw, mean, std, std)

    def mean(self, components):  # noqa: D102
        return components[0]


def _values(leaf: Any, natural: Any, x: Array) -> Array:
    """``log p`` of ``x`` ``[G, N]`` under leaves ``[G, K]``, base measure included."""
    if leaf.exponential:
        terms = [
            eta[..., None] * statistic[:, None]
            for eta, statistic in zip(natural.eta, leaf.statistics(x), strict=True)
        ]
        log_p = functools.reduce(jnp.add, terms) - natural.log_partition[..., None]
    else:
        log_p = leaf.log_prob(natural, x)
    if isinstance(leaf, BasedLeaf):
        log_p = log_p + leaf.log_base(x)[:, None]
    return log_p
