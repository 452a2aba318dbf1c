r"""Leaf distributions: one small class per family, with the methods of `Leaf`.

The parameters of a family are a NamedTuple of unconstrained arrays with leading axes
``[G, K, L, C]`` (a categorical has one more). Values ``x`` are floats in the leaf's
own units (counts, category numbers, reals).

*Evaluation.* An exponential family is
:math:`\log p(x) = h(x) + \sum_s \eta_s T_s(x) - A(\eta)`, so the sum over a region's
scope is one matrix product (`dspc_jax.layers.input_layer`). The other families are
evaluated directly.

*Differentiable draws.* A family has `components` :math:`m(\theta)`, arrays that a soft
selection may blend linearly, and `draw` combines them with one uniform number per pixel
and channel. A continuous draw is a quantile, and its gradient is pathwise. A discrete
draw :math:`b` has exactly the leaf's distribution; its gradient is that of
:math:`m + s\varepsilon` with mean :math:`m`, deviation :math:`s` and the standardized
draw :math:`\varepsilon = (b - m)/s` held fixed. This matches the first two moments, so
the gradient of the mean of every quadratic function of :math:`b` is unbiased; a blend
stays within the convex hull of the draws.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from dspc_jax.ops.numerics import safe_divide
from dspc_jax.types import Array, Key


class Leaf(Protocol):
    """Interface that the layers require of every family.

    Attributes:
        exponential: whether the family is an `ExponentialLeaf`, or else a `DirectLeaf`.
        integer: whether its values are whole numbers.
    """

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
        """Constrained parameters as the evaluation takes them; linear in EM."""
        ...

    def mode_log_prob(self, params: Any) -> Array:
        """``log p`` of `mode`, in nats, base measure included."""
        ...

    def components(self, params: Any) -> tuple[Array, ...]:
        """Arrays that a soft selection blends and that `draw` takes."""
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


@runtime_checkable
class BasedLeaf(Leaf, Protocol):
    """A family with a base measure, which is the same for all parameters."""

    def log_base(self, x: Array) -> Array:
        """The base measure ``h(x)`` in nats; -inf outside the support."""
        ...


@runtime_checkable
class ExponentialLeaf(BasedLeaf, Protocol):
    """A family evaluated through sufficient statistics; `natural` gives a `Natural`."""

    def statistics(self, x: Array) -> tuple[Array, ...]:
        """The sufficient statistics ``T_s(x)``, each of the shape of ``x``."""
        ...


@runtime_checkable
class DirectLeaf(Leaf, Protocol):
    """A family evaluated value by value; it may be a `BasedLeaf` as well."""

    def log_prob(self, natural: Any, x: Array) -> Array:
        """``x`` ``[G, N]`` under leaves ``[G, K]``: ``[G, K, N]``, in nats.

        Without the base measure, if there is one.
        """
        ...


@runtime_checkable
class FittableLeaf(Leaf, Protocol):
    """A family with a closed-form M-step."""

    def counts(self, natural: Any, gradient: Any) -> tuple[tuple[Array, ...], Array]:
        """Posterior-weighted statistics and posterior mass of every leaf.

        Args:
            natural: of the leaves.
            gradient: of a log-likelihood, with respect to them.
        """
        ...

    def from_statistics(self, statistics: tuple[Array, ...], params: Any) -> Any:
        """The maximum likelihood parameters for these expected statistics.

        Args:
            statistics: means of them, as of `expected_statistics`.
            params: of the leaves that `counts` counted for.
        """
        ...

    def expected_statistics(self, params: Any) -> tuple[Array, ...]:
        """The expected statistics of the leaf with these parameters."""
        ...


@runtime_checkable
class CenteredLeaf(FittableLeaf, Protocol):
    """A family that counts its statistics about a point of each leaf."""

    def center(self, params: Any) -> Array:
        """The points, ``[G, K, L, C]``."""
        ...

    def recentered(
        self, statistics: tuple[Array, ...], mass: Array, shift: Array
    ) -> tuple[Array, ...]:
        """Statistics about points that are lower by ``shift``.

        Args:
            statistics: as of `counts`.
            mass: as of `counts`.
            shift: in units of the values.
        """
        ...


@runtime_checkable
class UniformLeaf(FittableLeaf, Protocol):
    """A family with a uniform distribution over its values."""

    def uniform_statistics(self, params: Any) -> tuple[Array, ...]:
        """The expected statistics of all possible values, equally probable."""
        ...


@runtime_checkable
class OrderedLeaf(FittableLeaf, Protocol):
    """A family over ordered values whose counts may be spread over their neighbors."""

    def spread(self, statistics: tuple[Array, ...], std: float) -> tuple[Array, ...]:
        """Statistics, each value's mass spread by a Gaussian over possible values.

        Args:
            statistics: as of `counts` or `expected_statistics`.
            std: its deviation, in steps between values, above 0; static.
        """
        ...


@runtime_checkable
class ContinuousLeaf(Leaf, Protocol):
    """A family with a density and a differentiable distribution function ``F``.

    The shapes of parameters and values broadcast.
    """

    def log_density(self, params: Any, x: Array) -> Array:
        """``log p(x)`` in nats."""
        ...

    def log_tails(self, params: Any, x: Array) -> tuple[Array, Array]:
        """``log F(x)`` and ``log (1 - F(x))``, each exact to rounding in its tail."""
        ...


@runtime_checkable
class ExpandableLeaf(DirectLeaf, Protocol):
    """A family with a polynomial for `DirectLeaf.log_prob`, where that is accurate."""

    def expand(
        self, natural: Any
    ) -> tuple["Natural", Callable[[Array], tuple[Array, ...]], Array]:
        """The polynomial's coefficients, its statistics, and whether it is accurate.

        The statistics are functions of values ``[G, L, C, N]``, the last is ``[]``.
        """
        ...


@runtime_checkable
class TableLeaf(Leaf, Protocol):
    """A family with a table for each leaf, of which an exact draw needs one look-up."""

    def draw_at(self, uniform: Array, params: Any, index: tuple[Array, ...]) -> Array:
        """As `draw` from the leaves that ``index`` chooses, without a gradient.

        Args:
            uniform: numbers in (0, 1), ``[V, N, C]``.
            params: of all leaves.
            index: regions, units and positions, ``[V, N]`` each.
        """
        ...

    def moments(self, params: Any) -> tuple[Array, Array]:
        """Means and deviations, which the gradient of a draw is made of."""
        ...


@runtime_checkable
class JoinableLeaf(Leaf, Protocol):
    """A family that may be evaluated for several configurations at once.

    In a joined leaf (`dspc_jax.leaves.joining`) a field that ``varying`` names may be
    an array. Its axes are the first ones of the parameters, components or statistics
    that a method is given, or broadcast with them; in `DirectLeaf.log_prob` it may be
    traced. A subclass that allows joining names its own ``varying``: this one is not
    inherited.

    Attributes:
        varying: names of fields, numbers or tuples of them.
    """

    varying: ClassVar[tuple[str, ...]]

    @property
    def cost(self) -> float:
        """What one leaf takes, of memory or time, in any unit.

        Joined leaves all take as much as the greatest of them.
        """
        ...


class Natural(NamedTuple):
    """Natural parameters, one array per statistic, and the log-partition function."""

    eta: tuple[Array, ...]
    log_partition: Array


def flat(draw: Callable[..., Array], key: Key, shape: tuple[int, ...]) -> Array:
    """``draw(key, shape)``, float32, drawn on one axis.

    The numbers are the same; XLA compiles this in a fifth of the time.
    """
    return draw(key, (math.prod(shape),), jnp.float32).reshape(shape)


def impossible(x: Array) -> Array:
    """``log p`` of values outside of the support: -inf, and NaN of NaN."""
    return jnp.where(jnp.isnan(x), jnp.nan, -jnp.inf)


def _with_gradient(value: Array, *terms: tuple[Array, Array]) -> Array:
    """``value`` with the gradient of ``sum a * b`` over the terms, ``b`` held fixed."""
    for a, b in terms:
        value = value + (a - jax.lax.stop_gradient(a)) * jax.lax.stop_gradient(b)
    return value


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_moments(
    moments: Callable[..., tuple[Array, Array]], draw: Array, params: Any, index: Any
) -> Array:
    """An exact draw with the gradient of `moment_matched`.

    The moments are computed only where it is differentiated.

    Args:
        moments: ``(params, index) -> (means, deviations)`` of the shape of ``draw``.
        draw: the draw.
        params: what the moments are differentiated in.
        index: what they are not differentiated in.
    """
    del moments, params, index
    return draw


@with_moments.defjvp
def _with_moments_jvp(moments, primals, tangents):
    draw, params, index = primals

    def matched(params):
        mean, std = moments(params, index)
        noise = safe_divide(draw - jax.lax.stop_gradient(mean), std)
        return mean + std * jax.lax.stop_gradient(noise)

    return with_moments(moments, *primals), jax.jvp(matched, (params,), (tangents[1],))[
        1
    ]


def moment_matched(draw: Array, mean: Array, std: Array, exact_std: Array) -> Array:
    """``mean + std * (draw - mean) / exact_std``: the draw itself where not blended."""
    exact_std = jax.lax.stop_gradient(exact_std)
    noise = safe_divide(jax.lax.stop_gradient(draw - mean), exact_std)
    # The coefficient of the draw is 1 unless components were blended. Rounding of the
    # two deviations may move it by less than 1e-4; then the draw stays a whole number.
    share = jnp.where(exact_std > 0, jax.lax.stop_gradient(std) / exact_std, 1.0)
    share = jnp.where(jnp.abs(share - 1) < 1e-4, 1.0, share)
    value = jax.lax.stop_gradient(draw * share + mean * (1 - share))
    return _with_gradient(value, (mean, jnp.ones_like(noise)), (std, noise))


def matched_count(draw: Array, mean: Array, std: Array, variance: Array) -> Array:
    """`moment_matched` of a count that is drawn with a known variance, no gradient.

    Where the deviation is the root of it to rounding (a part in 1e6), nothing was
    blended, and the deviation stays as it is.
    """
    blended = variance - jax.lax.stop_gradient(std) ** 2 > 1e-6 * variance
    exact_std = jnp.where(blended, jnp.sqrt(variance), std)
    return moment_matched(draw, mean, std, exact_std)
