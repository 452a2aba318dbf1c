r"""Conditional expectations of products of functions of one variable each.

.. math:: E\Big[\prod_v f_v(x_v) \mid x_{obs}\Big] =
  \prod_{v \in obs} f_v(x_v) \cdot
  \int p(x) \prod_{v \notin obs} f_v(x_v)\, dx_{\neg obs} \Big/ p(x_{obs})

The integral is the circuit with :math:`E_{gk}[f_v]` in the place of the leaf of a
variable that is not observed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.inference import signed
from dspc_jax.inference.upward import above, log_base, log_inputs
from dspc_jax.leaves import integrals
from dspc_jax.ops.numerics import logsumexp, safe_log
from dspc_jax.parameters import CircuitParams, CircuitWeights, Layout
from dspc_jax.types import Array


class Factors(NamedTuple):
    """Functions of D coordinates, as the integrals that a circuit takes.

    Attributes:
        rows: the input regions of each coordinate, ``[D, A]``; G where padded.
        values: the function's means under the leaves, ``[D, A, K]``.
        variables: of the coordinates, ``[D]``.
    """

    rows: Array
    values: Array
    variables: Array


Factor = tuple[int, int, Callable[[Array], Array]]
"""Variable, channel and function."""


def integrate(
    layout: Layout,
    params: CircuitParams,
    weights: CircuitWeights,
    factors: Sequence[Factor],
) -> Factors:
    """The means of functions under all leaves of their coordinates.

    Args:
        layout: the circuit.
        params: of regions (`dspc_jax.parameters.of_regions`).
        weights: the same, normalized.
        factors: at least one, of coordinates that differ.

    Returns:
        The means.

    Raises:
        ValueError: a leaf has neither finitely many values nor a quadrature rule.
    """
    found = [_integral(layout, params, weights, factor) for factor in factors]
    width = max(len(rows) for rows, _ in found)
    count = len(layout.graph.input_scopes)
    rows = [np.pad(r, (0, width - len(r)), constant_values=count) for r, _ in found]
    values = [jnp.pad(v, ((0, width - len(v)), (0, 0))) for _, v in found]
    variables = jnp.asarray(np.array([v for v, _, _ in factors], np.int32))
    return Factors(jnp.asarray(np.stack(rows)), jnp.stack(values), variables)


def _integral(layout, params, weights, factor):
    """The input regions of a coordinate, and the means ``[A, K]`` under its leaves."""
    variable, channel, function = factor
    for block, own, natural in zip(
        layout.blocks, params.leaves, weights.leaves, strict=True
    ):
        if variable not in block.variables:
            continue
        rows, places = np.nonzero(block.valid & (block.scopes == variable))

        def chosen(p: Any, rows=rows, places=places):
            return p[rows, :, places, channel]

        values = integrals.mean_of(
            block.at(np.full(len(rows), variable)),
            *(jax.tree.map(chosen, own), jax.tree.map(chosen, natural)),
            *(function, "expectations"),
        )
        return rows.astype(np.int32), values
    raise AssertionError("every variable has a leaf")


def expectation(
    layout: Layout,
    weights: CircuitWeights,
    factors: Factors,
    x: Array,
    observed: Array,
    values: Array,
) -> Array:
    """The conditional expectation of the product, ``[N]``; 0 of impossible evidence.

    Args:
        layout: the circuit.
        weights: its normalized parameters.
        factors: of `integrate`.
        x: values ``[N, V, C]``.
        observed: bool ``[N, V]``.
        values: of the functions at the values of ``x``, ``[N, D]``.
    """
    evidence = log_inputs(layout, weights, x, observed)

    def multiply(inputs, factor):
        rows, means, variable, values = factor
        known = observed[:, variable]
        known, values = known[None, None], values[None, None]
        factor = jnp.where(known, 1.0, means[..., None])
        own = jnp.ones((*evidence.shape[:2], x.shape[0]), evidence.dtype)
        own = own.at[rows].set(factor, mode="drop")
        return signed.times(inputs, own), None

    start = signed.from_logs(evidence)
    given = jnp.transpose(values)
    inputs, _ = jax.lax.scan(multiply, start, (*factors, given))
    total = signed.root(layout, weights, inputs)
    root = above(layout, weights, evidence).regions[-1][0]
    log_p = logsumexp(root + safe_log(weights.classes)[:, None], axis=0)
    possible = (log_p != -jnp.inf) & (log_base(layout, x, observed) != -jnp.inf)
    log_p = jnp.where(possible, log_p, 0.0)
    share = total.mantissa[0, 0] * jnp.exp(total.log_size[0, 0] - log_p)
    known = observed[:, factors.variables]
    outside = jnp.prod(jnp.where(known, values, 1.0), axis=1)
    return jnp.where(possible, share * outside, 0.0)
