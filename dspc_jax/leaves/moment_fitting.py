r"""Leaves without an M-step in closed form, fitted by the moments of what they count.

The log-density has terms that are 0, :math:`a_0 + a_1 (x - c) + a_2 (x - c)^2`, about
the leaf's location c. The gradient of a log-likelihood with respect to the three zeros
is the posterior mass of the leaf and its posterior-weighted moments, so that these
leaves count as those of exponential families do.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.leaves.discretized_logistic import DiscretizedLogistic
from dspc_jax.types import Array

_STD_OF_LOGISTIC = math.pi / math.sqrt(3)  # of scale 1


class MomentForm(NamedTuple):
    """What `DiscretizedLogistic.natural` gives, the location, and three zeros."""

    natural: tuple[Array, Array, Array]
    center: Array
    mass: Array
    first: Array
    second: Array


@dataclasses.dataclass(frozen=True)
class MomentFittedLogistic(DiscretizedLogistic):
    r"""A discretized logistic leaf that EM fits by moments, approximately.

    Location: the mean of the values that it counts; scale: their deviation times
    :math:`\sqrt 3 / \pi`, that of a logistic distribution which is not rounded and has
    its tails. It is near the maximum of the likelihood for leaves that are wide in
    steps of one value and far from the ends, and no maximum elsewhere.
    """

    varying: ClassVar[tuple[str, ...]] = DiscretizedLogistic.varying

    def natural(self, params) -> Any:  # noqa: D102
        location, _ = self._location_scale(params)
        zero = jnp.zeros_like(location)
        natural = super().natural(params)
        return MomentForm(natural, jax.lax.stop_gradient(location), zero, zero, zero)

    def log_prob(self, natural, x):  # noqa: D102
        center, mass, first, second = (a[..., None] for a in natural[1:])
        distance = x[:, None] - center
        zeros = mass + first * distance + second * distance**2
        return super().log_prob(natural.natural, x) + zeros

    def counts(self, natural, gradient):
        """Sums of ``x - location`` and of its square."""
        del natural
        return (gradient.first, gradient.second), gradient.mass

    def from_statistics(self, statistics, params):
        """The member of these moments, within the bounds of location and scale."""
        shift, square = statistics
        location, _ = self._location_scale(params)
        std = jnp.sqrt(jnp.maximum(square - shift**2, 0.0))
        mean = jnp.clip(location + shift, 0.0, self._top(location))
        return self.from_moments(mean, std)

    def expected_statistics(self, params):
        """Those of a logistic distribution that is not rounded and has its tails."""
        location, scale = self._location_scale(params)
        return (jnp.zeros_like(location), (_STD_OF_LOGISTIC * scale) ** 2)

    def center(self, params):
        """Statistics are about the location of each leaf."""
        return self._location_scale(params)[0]

    def recentered(self, statistics, mass, shift):  # noqa: D102
        first, second = statistics
        moved = first + shift * mass
        return (moved, second + shift * (first + moved))

    def uniform_statistics(self, params):
        """Those of all values, equally probable."""
        location, _ = self._location_scale(params)
        top = self._top(location)
        shift = 0.5 * top - location
        return (shift, shift**2 + top * (top + 2.0) / 12.0)


def moment_fitted(leaf: Any) -> Any:
    """The same leaf, fitted by moments if there is no other way for it.

    Args:
        leaf: of any family, maybe joined (`dspc_jax.leaves.joining`).

    Returns:
        The leaf; parameters are what they were.
    """
    if type(leaf) is not DiscretizedLogistic:
        return leaf
    fitted = MomentFittedLogistic.__new__(MomentFittedLogistic)
    for field in dataclasses.fields(leaf):  # those of joined leaves are arrays
        object.__setattr__(fitted, field.name, getattr(leaf, field.name))
    return fitted
