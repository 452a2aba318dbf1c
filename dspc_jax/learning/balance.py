"""Gradients of several losses at once, added as they are or balanced.

A loss on samples and a likelihood differ in size by orders of magnitude, and their
ratio changes as training goes on. Divided by its norm, each gradient has the share of
the step that its weight says, whatever the units of its loss.

References:
    Lucas, Shmelkov, Alahari, Schmid and Verbeek, "Adaptive Density Estimation for
    Generative Models", NeurIPS 2019 (likelihood and adversarial loss in one step).
"""

from collections.abc import Callable, Mapping
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from dspc_jax.types import Array, Metrics, PyTree

BALANCES = ("none", "norm")
_LEAST_NORM = 1e-12  # a gradient of zeros stays one

Loss: TypeAlias = Callable[[Any], tuple[Array, Metrics]]
"""``params -> (scalar loss, metrics)``: an objective whose key and batch are bound."""


def balanced_gradient(
    params: PyTree,
    losses: Mapping[str, tuple[float | Array, Loss]],
    *,
    balance: str = "none",
) -> tuple[PyTree, Metrics]:
    r"""The gradient of :math:`\sum_i w_i L_i`, each part balanced if asked for.

    .. math:: g = \sum_i w_i \nabla L_i \quad (\text{none}), \qquad
        g = \sum_i w_i \frac{\nabla L_i}{\|\nabla L_i\|} \quad (\text{norm})

    Args:
        params: what is differentiated.
        losses: ``{name: (weight, loss)}``, at least one. A weight is a number or a
            traced scalar (schedules do not recompile).
        balance: one of `BALANCES`.

    Returns:
        The gradient, in the structure of ``params``, and the metrics of all losses,
        with ``NAME_term`` (the weight times the loss) and ``NAME_grad_norm`` (the
        weight times the norm of its gradient, before it is balanced) for each.

    Raises:
        ValueError: no loss, an unknown balance, or a plain weight that is not finite.
    """
    if balance not in BALANCES:
        raise ValueError(
            f"balance must be one of {', '.join(BALANCES)}, got {balance!r}"
        )
    if not losses:
        raise ValueError("losses must name at least one loss, got an empty mapping")
    total, metrics = None, {}
    for name, (weight, loss) in losses.items():
        if isinstance(weight, int | float) and not math.isfinite(weight):
            raise ValueError(f"the weight of {name} must be finite, got {weight}")
        (value, more), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        metrics |= more
        metrics[f"{name}_term"] = weight * value
        metrics[f"{name}_grad_norm"] = weight * optax.tree.norm(gradient)
        if balance == "norm":
            gradient = unit_norm(gradient)
        gradient = jax.tree.map(lambda g, w=weight: w * g, gradient)
        total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
    return total, metrics


def unit_norm(gradient: PyTree) -> PyTree:
    """A gradient divided by its norm over all arrays; zeros stay zeros."""
    norm = optax.tree.norm(gradient)
    return jax.tree.map(lambda g: g / jnp.maximum(norm, _LEAST_NORM), gradient)
