"""The leaf families whose properties the tables of tests check; newcomers come here.

A family outside of the package is one row more: its leaf, parameters of several leaves,
and the same distributions of SciPy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.layers import input_layer
from dspc_jax.leaves.binomial import BinomialParams
from dspc_jax.leaves.categorical import CategoricalParams
from dspc_jax.leaves.discretized_logistic import DiscretizedLogisticParams
from dspc_jax.leaves.gamma import GammaParams
from dspc_jax.leaves.histogram import HistogramParams
from dspc_jax.leaves.laplace import LaplaceParams
from dspc_jax.leaves.negative_binomial import NegativeBinomialParams
from dspc_jax.leaves.normal import NormalParams
from dspc_jax.leaves.poisson import PoissonParams
from dspc_jax.leaves.zero_inflated import ZeroInflatedParams
from tests import cases, oracles
from tests.leaves.own_leaf import Duration, DurationParams

GRID = 2**13
UNIFORM = np.float32((np.arange(GRID) + 0.5) / GRID)


class Family(NamedTuple):
    """A leaf with parameters of several leaves, ``[K]`` (a table: ``[K, M]``).

    Attributes:
        leaf: the leaf.
        params: parameters of several leaves.
        reference: from parameters ``[K, 1]`` in float64 to SciPy's distributions; None:
            the leaf has an oracle in `tests.oracles`.
        grid: values that hold all but 1e-6, where the support is not finite.
        two: whether `from_moments` gives the deviation as well as the mean.
        latent: whether an M-step is one of EM for a latent that is far from known: it
            goes up, and many of them are not at the maximum.
    """

    leaf: Any
    params: Any
    reference: Callable[..., Any] | None = None
    grid: Any = None
    two: bool = False
    latent: bool = False

    def log_prob(self, x):
        """``log p(x)`` of values ``[S]`` under all leaves: ``[K, S]``, by the layer."""
        return np.asarray(jit_log_prob(self.leaf, self.params, np.float32(x)))

    @property
    def distribution(self):
        """SciPy's, of all leaves."""
        assert self.reference is not None
        params = jax.tree.leaves(self.params)
        return self.reference(*(np.asarray(p, float)[:, None] for p in params))

    def oracle(self, x):
        """The same by SciPy."""
        x = np.asarray(x, np.float64)
        if self.reference is None:
            params = [np.asarray(p)[:, None] for p in self.params]
            return oracles.leaf_log_prob(self.leaf, params, x)
        shape = (len(jax.tree.leaves(self.params)[0]), len(x))
        distribution = self.distribution
        log_p = distribution.logpmf if self.discrete else distribution.logpdf
        return np.broadcast_to(log_p(x), shape)

    @property
    def values(self):
        """All values, or a fine grid that holds all but 1e-6."""
        if self.grid is not None:
            return np.asarray(self.grid, np.float64)
        low, high = self.leaf.support
        if np.isinf(high):
            return np.linspace(-12, 12, 4801)
        return np.arange(low, high + 1)

    @property
    def steps(self):
        """What each value stands for in a sum over `values`."""
        return np.ones(len(self.values)) if self.discrete else np.gradient(self.values)

    @property
    def discrete(self):
        return self.leaf.integer


def log_prob(leaf, params, x):
    (block,) = input_layer.make_blocks(np.zeros((1, 1), int), (leaf,))
    x = jnp.asarray(x)[None, None]
    params = jax.tree.map(lambda p: p[None, :, None, None], params)
    out = input_layer.log_prob(block, leaf.natural(params), x, None)
    return out[0] + input_layer.log_base(block, x, None)[None]


def draw(leaf, params, uniform):
    """Draws of all leaves ``[K, N]`` from ``[N]`` uniform numbers."""
    components = tuple(
        jnp.broadcast_to(c[:, None], (c.shape[0], len(uniform), *c.shape[1:]))
        for c in leaf.components(params)
    )
    uniform = jnp.broadcast_to(uniform, components[0].shape[:2])
    return leaf.draw(uniform, components)


jit_log_prob = cases.jit(log_prob, static_argnums=0)
jit_draw = cases.jit(draw, static_argnums=0)


def line(*values):
    return jnp.asarray(values, jnp.float32)


class Inflated(NamedTuple):
    """Another distribution of counts with a share of zeros."""

    share: Any
    other: Any

    def logpmf(self, x):
        zero = np.where(x == 0, np.log(self.share), -np.inf)
        return np.logaddexp(zero, np.log1p(-self.share) + self.other.logpmf(x))


EDGES = (-1.0, -0.5, 0.0, 0.25, 0.75, 1.0, 2.0, 2.25)


class Pieces(NamedTuple):
    """A density that is constant between `EDGES`, of logits ``[K, 1, M]``."""

    logits: Any

    def logpdf(self, x):
        log_mass = special.log_softmax(self.logits[:, 0], axis=-1)
        number = np.clip(np.searchsorted(EDGES, x, side="right") - 1, 0, len(EDGES) - 2)
        inside = (x >= EDGES[0]) & (x <= EDGES[-1])
        log_density = log_mass - np.log(np.diff(EDGES))
        return np.where(inside, log_density[:, number], -np.inf)

    def ppf(self, u):
        masses = special.softmax(self.logits[:, 0], axis=-1)
        return np.array(
            [np.interp(u[0], np.r_[0, np.cumsum(row)], EDGES) for row in masses]
        )


_rng = np.random.default_rng(0)
FAMILIES = {
    "normal": Family(
        pc.Normal(0.2), NormalParams(line(-1, 0, 0.5, 3), line(-3, 0, 0.5, -1))
    ),
    "unit-normal": Family(
        pc.UnitNormal(0.2, 1.5),
        NormalParams(line(-1, 0, 0.5, 3), line(-3, 0, 2, 0)),
    ),
    "bernoulli": Family(pc.Bernoulli(), BinomialParams(line(-9, -1, 0, 3))),
    "binomial": Family(pc.Binomial(20), BinomialParams(line(-9, -1, 0.3, 3))),
    "binomial-255": Family(pc.Binomial(255), BinomialParams(line(-6, -1, 0.3, 15))),
    "categorical": Family(
        pc.Categorical(5),
        CategoricalParams(jnp.asarray(_rng.normal(size=(4, 5)), jnp.float32)),
    ),
    "forbidden": Family(
        pc.Categorical(3),
        CategoricalParams(jnp.log(jnp.array([[0.0, 0.3, 0.7], [1.0, 0.0, 0.0]]))),
    ),
    "logistic": Family(
        pc.DiscretizedLogistic(12),
        DiscretizedLogisticParams(line(-0.1, 0.3, 0.7, 1.2), line(-2, -1, -3, -6)),
    ),
    "logistic-256": Family(
        pc.DiscretizedLogistic(256),
        DiscretizedLogisticParams(line(0.0, 0.31, 0.7, 1.0), line(-2, -4, -5.5, 1)),
    ),
    "poisson": Family(
        pc.Poisson(),
        PoissonParams(line(-7, -0.1, 1.3, 4)),
        lambda log_rate: stats.poisson(np.exp(log_rate)),
        np.arange(120),
    ),
    "negative-binomial": Family(
        pc.NegativeBinomial(3.5),
        NegativeBinomialParams(line(-7, -0.1, 1.3, 3)),
        lambda log_mean: stats.nbinom(3.5, 3.5 / (3.5 + np.exp(log_mean))),
        np.arange(300),
    ),
    "gamma-poisson": Family(
        pc.GammaPoisson(0.01),
        GammaParams(line(-4, -0.1, 1.3, 3), line(-2, -5, -1, -0.5)),
        lambda log_mean, excess: stats.nbinom(
            1 / (0.01 + np.exp(excess)),
            1 / (1 + np.exp(log_mean) * (0.01 + np.exp(excess))),
        ),
        np.arange(400),
        latent=True,
    ),
    "geometric": Family(
        pc.Geometric(),
        NegativeBinomialParams(line(-7, -0.1, 1.3, 2)),
        lambda log_mean: stats.nbinom(1, 1 / (1 + np.exp(log_mean))),
        np.arange(300),
    ),
    "zero-inflated": Family(
        pc.ZeroInflated(pc.Poisson()),
        ZeroInflatedParams(line(-9, -1, 0.3, 1), PoissonParams(line(1, -0.1, 1.3, 4))),
        lambda logit, log_rate: Inflated(
            special.expit(logit), stats.poisson(np.exp(log_rate))
        ),
        np.arange(120),
    ),
    "histogram": Family(
        pc.Histogram(EDGES),
        HistogramParams(
            jnp.asarray(_rng.normal(size=(4, len(EDGES) - 1)), jnp.float32)
        ),
        Pieces,
        (np.arange(-1 * 2**12, 2.25 * 2**12) + 0.5) / 2**12,  # at no edge
    ),
    "own": Family(
        Duration(),
        DurationParams(line(-1, 0, 0.5, 1)),
        lambda log_mean: stats.expon(scale=np.exp(log_mean)),
        np.concatenate(
            [
                (np.arange(20 * 2**11) + 0.5) / 2**11,
                (np.arange(20 * 2**6, 240 * 2**6) + 0.5) / 2**6,
            ]
        ),
    ),
    "laplace": Family(
        pc.Laplace(0.2),
        LaplaceParams(line(-1, 0, 0.5, 3), line(-3, -1, 0, 0.5)),
        lambda location, log_scale: stats.laplace(location, 0.2 + np.exp(log_scale)),
        (np.arange(-40 * 2**11, 40 * 2**11) + 0.5) / 2**11,  # not at a kink
        two=True,
    ),
    "log-normal": Family(
        pc.LogNormal(0.2),
        NormalParams(line(-1, 0, 0.5, 2), line(-3, -2, -1.5, -1.5)),
        lambda mean, excess: stats.lognorm(0.2 + np.exp(excess), scale=np.exp(mean)),
        np.exp(np.linspace(-6, 7, 20_001)),
        two=True,
    ),
    "gamma": Family(
        pc.Gamma(0.01),
        GammaParams(line(-1, 0, 0.5, 2), line(-9, -3, -1, -0.05)),
        lambda log_mean, excess: stats.gamma(
            1 / (0.01 + np.exp(excess)),
            scale=np.exp(log_mean) * (0.01 + np.exp(excess)),
        ),
        np.exp(np.linspace(-16, 6, 20_001)),
        two=True,
    ),
}
