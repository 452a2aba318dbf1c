"""Leaf families, and what a family of your own is made of (docs/leaves.md).

`dspc_jax.leaves.family` defines their interface.
"""

from dspc_jax.leaves.binomial import Bernoulli, Binomial
from dspc_jax.leaves.categorical import Categorical
from dspc_jax.leaves.discretized_logistic import DiscretizedLogistic
from dspc_jax.leaves.family import (
    BasedLeaf,
    CenteredLeaf,
    ContinuousLeaf,
    DirectLeaf,
    ExpandableLeaf,
    ExponentialLeaf,
    FittableLeaf,
    JoinableLeaf,
    Leaf,
    Natural,
    OrderedLeaf,
    TableLeaf,
    UniformLeaf,
    impossible,
    moment_matched,
)
from dspc_jax.leaves.gamma import Gamma
from dspc_jax.leaves.gamma_poisson import GammaPoisson
from dspc_jax.leaves.histogram import Histogram
from dspc_jax.leaves.laplace import Laplace
from dspc_jax.leaves.log_normal import LogNormal
from dspc_jax.leaves.negative_binomial import Geometric, NegativeBinomial
from dspc_jax.leaves.normal import Normal, UnitNormal
from dspc_jax.leaves.poisson import Poisson
from dspc_jax.leaves.zero_inflated import ZeroInflated

FAMILIES = (
    *(Normal, UnitNormal, Laplace, LogNormal, Gamma, Histogram),
    *(Binomial, Bernoulli, Categorical, DiscretizedLogistic),
    *(Poisson, NegativeBinomial, GammaPoisson, Geometric, ZeroInflated),
)
"""All families of the library; files know them by their names."""

__all__ = [
    "FAMILIES",
    "BasedLeaf",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "CenteredLeaf",
    "ContinuousLeaf",
    "DirectLeaf",
    "DiscretizedLogistic",
    "ExpandableLeaf",
    "ExponentialLeaf",
    "FittableLeaf",
    "Gamma",
    "GammaPoisson",
    "Geometric",
    "Histogram",
    "JoinableLeaf",
    "Laplace",
    "Leaf",
    "LogNormal",
    "Natural",
    "NegativeBinomial",
    "Normal",
    "OrderedLeaf",
    "Poisson",
    "TableLeaf",
    "UniformLeaf",
    "UnitNormal",
    "ZeroInflated",
    "impossible",
    "moment_matched",
]
