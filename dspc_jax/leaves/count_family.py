"""What families of unbounded counts have in common."""

from collections.abc import Callable
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.leaves.family import flat, impossible
from dspc_jax.types import Array

LEAST_MEAN = math.exp(-16.0)
"""Of an M-step: the mean of a leaf that counts nothing but zeros."""


class CountFamily:
    """Exponential families over 0, 1, 2, ... whose one parameter is a log-mean.

    The count is their one statistic.

    Attributes:
        params: the NamedTuple of the parameter, ``[G, K, L, C]``; finite.
    """

    params: ClassVar[type[Any]]
    exponential: ClassVar[bool] = True
    integer: ClassVar[bool] = True

    @property
    def support(self):  # noqa: D102
        return (0, np.inf)

    def init(self, key, shape):  # noqa: D102
        return self.params(flat(jax.random.normal, key, shape))

    def from_moments(self, mean, std):  # noqa: D102
        del std
        # A mean of 0 has a finite logarithm (-6.9), from which gradients lead away.
        return self.params(jnp.log(jnp.maximum(mean, 1e-3)))

    def statistics(self, x):  # noqa: D102
        return (x,)

    def counts(self, natural, gradient):
        """Sums of ``x``."""
        del natural
        return gradient.eta, -gradient.log_partition

    def from_statistics(self, statistics, params):
        """The maximum likelihood parameters for ``E[x]``; a mean of at least e^-16."""
        del params
        (mean,) = statistics
        return self.params(jnp.log(jnp.maximum(mean, LEAST_MEAN)))

    def expected_statistics(self, params):
        """``E[x]``."""
        (log_mean,) = params
        return (jnp.exp(log_mean),)

    def components(self, params):
        """Mean and deviation."""
        return self.moments(params)

    def moments(self, params) -> tuple[Array, Array]:
        """Mean and deviation."""
        raise NotImplementedError

    def mean(self, components):  # noqa: D102
        return components[0]


def log_base_of_counts(x: Array, log_base: Callable[[Array], Array]) -> Array:
    """A base measure over the whole numbers from 0 on; -inf elsewhere, NaN of NaN."""
    legal = (x >= 0) & (x == jnp.round(x))
    return jnp.where(legal, log_base(jnp.maximum(x, 0.0)), impossible(x))
