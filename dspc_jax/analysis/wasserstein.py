r"""The circuit-Wasserstein distance of two compatible circuits.

The Wasserstein distance of order p is the least cost :math:`E \|x - y\|_p^p` of a
coupling of two distributions, to the power 1/p. Where couplings are circuits of the
same structure it follows from below:

.. math::
  D_{kk'} = \sum_v W_p^p(p_{kv}, q_{k'v}), \qquad
  D_{oo'} = \min_{\gamma} \sum_{d d'} \gamma_{d d'} \sum_{\text{children}} D_{d d'},

with :math:`\gamma` over all joint weights whose marginals are those of both sums: a
linear program for each pair of sums. It is 0 for equal parameters, symmetric, obeys the
triangle inequality, and is no less than the Wasserstein distance.

References:
    Ciotinga and Choi, "Optimal transport for probabilistic circuits", UAI 2025.
"""

from typing import Any

import jax
import numpy as np
from scipy import optimize, sparse, special

from dspc_jax import parameters
from dspc_jax.analysis.products import check_compatible
from dspc_jax.arguments import shown
from dspc_jax.circuit import Circuit
from dspc_jax.inference.leaf_rows import rows
from dspc_jax.leaves import Normal, integrals
from dspc_jax.ops.float_types import widened
from dspc_jax.parameters import CircuitParams, Layout


def circuit_wasserstein(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
    order: int = 2,
) -> float:
    r"""The circuit-Wasserstein distance, by linear programs.

    On the host in float64, without gradients, one small program after the other: for
    each region as many as pairs of units, each with as many unknowns as pairs of
    products (K^2 with products unit by unit, K^4 with all pairs of units).

    Args:
        circuit: that of p; each region is split in one way.
        params: its parameters, not traced.
        other_params: those of q.
        other: the circuit of q, compatible with the first
            (`dspc_jax.log_inner_product`); None: the same.
        order: 1 or 2.

    Returns:
        The distance in units of the values, of all variables and channels together.

    Raises:
        ValueError: the circuits are not compatible, the order is another, or a leaf has
            neither finitely many values nor is Normal.
        RuntimeError: a program was not solved.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {shown(order)}")
    other = circuit if other is None else other
    check_compatible(circuit, other)
    (params, other_params), _ = widened((params, other_params))
    layout = circuit.layout
    left, right = (
        jax.jit(parameters.of_regions, static_argnums=0)(own.layout, p)
        for own, p in ((circuit, params), (other, other_params))
    )
    inputs = _inputs(layout, left, right, order)
    graph = layout.graph.places.graph
    tables: dict[int, np.ndarray] = {}
    for region in sorted(range(len(graph.scopes)), key=lambda r: graph.heights[r]):
        if not graph.partitions_of[region]:
            row = layout.graph.places.regions[region][1]
            tables[region] = inputs[row]
            continue
        (number,) = graph.partitions_of[region]
        level, fold, row = layout.graph.places.partitions[number]
        children = [tables[child] for child in graph.partitions[number].children]
        weights = [
            np.asarray(own[1].sums[level - 1][fold][row], np.float64)
            for own in (left, right)
        ]
        pairs = layout.sum_layer == "tucker" and len(children) == 2
        tables[region] = _sums(_products(children, pairs), *weights)
    classes = [np.asarray(own[1].classes, np.float64)[None] for own in (left, right)]
    cost = _sums(tables[graph.root], *classes)[0, 0]
    return float(max(cost, 0.0) ** (1 / order))


def _products(children: list[np.ndarray], pairs: bool) -> np.ndarray:
    """Costs of pairs of products, ``[D, D']``."""
    if not pairs:
        return np.sum(children, axis=0)
    first, second = children
    joint = first[:, None, :, None] + second[None, :, None]
    return joint.reshape(len(first) * len(second), -1)


def _sums(costs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Costs of pairs of sums with weights ``[O, ...]``, ``[O, O']``."""
    left, right = (w.reshape(len(w), -1) for w in (left, right))
    return np.array([[transport(costs, p, q) for q in right] for p in left])


def transport(costs: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """The least cost of moving weights ``p [D]`` to ``q [D']``; both add up to 1.

    Raises:
        RuntimeError: the program was not solved.
    """
    p, q = p / p.sum(), q / q.sum()
    if min(len(p), len(q)) == 1:
        return float(p @ costs @ q)
    marginals = sparse.vstack(
        [
            sparse.kron(sparse.eye_array(len(p)), np.ones((1, len(q)))),
            sparse.kron(np.ones((1, len(p))), sparse.eye_array(len(q))),
        ]
    ).tocsr()
    # One equation follows from the others, and might differ from them by rounding.
    result = optimize.linprog(
        costs.ravel(), A_eq=marginals[:-1], b_eq=np.concatenate([p, q])[:-1]
    )
    if not result.success:
        raise RuntimeError(f"a linear program was not solved: {result.message}")
    return float(result.fun)


def _inputs(layout: Layout, left: Any, right: Any, order: int) -> np.ndarray:
    """The costs of pairs of units of input regions, ``[G, K, K']``."""
    total: Any = 0.0
    for number, block in enumerate(layout.blocks):
        leaf = block.at(block.scopes.ravel())
        count = integrals.num_values(block.family)
        needed = "finitely many values or Normal ones"
        known = count is not None or isinstance(leaf, Normal)
        integrals.require(known, "the circuit-Wasserstein distance", needed, leaf)
        for channel in range(layout.num_channels):
            if count is None:
                assert isinstance(leaf, Normal)
                own = [
                    rows(block, side[0].leaves[number], channel)
                    for side in (left, right)
                ]
                first, second = ([_float64(c) for c in leaf.components(p)] for p in own)
                costs = _normal_costs(first, second, order)
            else:
                own = [
                    rows(block, side[1].leaves[number], channel)
                    for side in (left, right)
                ]
                first, second = (_table(leaf, natural, count) for natural in own)
                costs = _costs_of_tables(first, second, order)
            costs = np.reshape(costs, (*block.scopes.shape, *costs.shape[1:]))
            total = total + np.where(block.valid[..., None, None], costs, 0.0).sum(1)
    return total


def _float64(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _table(leaf, natural, count):
    """Probabilities of all values, ``[D, K, M]``."""
    first = jax.tree.leaves(natural)[0]
    x = np.tile(np.arange(count, dtype=first.dtype), (len(first), 1))
    p = np.exp(_float64(integrals.log_table(leaf, natural, jax.numpy.asarray(x))))
    return p / p.sum(-1, keepdims=True)


def _normal_costs(left, right, order):
    """``E |a + b z|^p`` of the difference of quantiles ``a + b z``, ``[D, K, K']``."""
    shift, spread = (
        a[:, :, None] - b[:, None] for a, b in zip(left, right, strict=True)
    )
    if order == 2:
        return shift**2 + spread**2
    spread = np.abs(spread)
    ratio = np.abs(shift) / np.where(spread > 0, spread, 1.0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-0.5 * ratio**2)
    folded += np.abs(shift) * special.erf(ratio / np.sqrt(2))
    return np.where(spread > 0, folded, np.abs(shift))


def _costs_of_tables(left, right, order):
    """The costs of transport between tables ``[D, K, M]``, ``[D, K, K']``.

    On a line mass keeps its order: what lies between two values of one distribution
    function or the other moves as one piece.
    """
    below = [np.cumsum(table, axis=-1) for table in (left, right)]
    if order == 1:
        gaps = np.abs(below[0][:, :, None] - below[1][:, None])
        return gaps[..., :-1].sum(-1)
    # sum over pairs (m, n) of the mass that moves from m to n, times (m - n)^2
    starts = [np.maximum(b - t, 0.0) for b, t in zip(below, (left, right), strict=True)]
    steps = np.arange(left.shape[-1])
    out = np.zeros((len(left), left.shape[1], right.shape[1]))
    for m in steps:
        for n in steps:
            if m == n:
                continue
            top = np.minimum(below[0][:, :, None, m], below[1][:, None, :, n])
            end = np.maximum(starts[0][:, :, None, m], starts[1][:, None, :, n])
            out = out + np.maximum(top - end, 0.0) * (m - n) ** 2
    return out
