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

from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dspc_jax.numerics import safe_divide
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


def moment_matched(draw: Array, mean: Array, std: Array, exact_std: Array) -> Array:
    """``mean + std * (draw - mean) / exact_std``: the draw itself where not blended."""
    exact_std = jax.lax.stop_gradient(exact_std)
    noise = safe_divide(jax.lax.stop_gradient(draw - mean), exact_std)
    # The coefficient of the draw is 1 unless components were blended.
    share = jnp.where(exact_std > 0, jax.lax.stop_gradient(std) / exact_std, 1.0)
    share = jnp.where(jnp.abs(share - 1) < 1e-4, 1.0, share)
    value = jax.lax.stop_gradient(draw * share + mean * (1 - share))
    return _with_gradient(value, (mean, jnp.ones_like(noise)), (std, noise))
