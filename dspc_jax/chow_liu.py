r"""Chow-Liu trees over observed variables, as circuits with closed-form parameters.

.. math:: p(x) = p(x_r) \prod_{v \ne r} p(x_v \mid x_{\mathrm{parent}(v)})

It is the circuit of a hidden Chow-Liu tree whose latents are the variables themselves:
unit k of an input region is the indicator of the value k, and the sums over the product
with what is below are the rows of a conditional table. Given all values, one term of
every sum is not 0 (the circuit is deterministic), so the weights of the greatest
likelihood are frequencies, and max-product is exact.

References:
    Chow and Liu, "Approximating discrete probability distributions with dependence
    trees", 1968.
    Rahman, Kothalkar and Gogate, "Cutset networks", ECML 2014 (such trees as leaves of
    deterministic circuits).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import whole_number, whole_numbers
from dspc_jax.circuit import CircuitConfig, build
from dspc_jax.learning.em import LEAST_WEIGHT
from dspc_jax.leaves import Categorical
from dspc_jax.parameters import CircuitParams
from dspc_jax.rows import parameter_rows
from dspc_jax.structure.trees_from_data import checked, latent_tree, tree_of_codes

_MOST_VALUES = 256


def chow_liu_tree(
    x: Any,
    observed: Any = None,
    *,
    num_values: Any = None,
    pseudocount: float = 0.1,
    root: int | str = "center",
) -> tuple[CircuitConfig, CircuitParams]:
    """The Chow-Liu tree of discrete data: a circuit, and its parameters by counting.

    The tree has the greatest mutual information of joined pairs. With ``pseudocount`` 0
    and nothing missing, its likelihood of the data is the greatest of all trees, and a
    full-batch step of EM leaves it as it is. What is impossible has the weight
    1e-30, the least of `dspc_jax.em`: parameters are finite, and training may go on
    from here.

    A circuit of V variables of at most M values has V tables of M x M weights and as
    many numbers in its leaves, most of them indicators. Variables of fewer values than
    M have units that are never reached.

    Args:
        x: whole numbers from 0 on, ``[N, V]`` or ``[N, V, 1]``, N at least 2.
        observed: bool ``[N, V]``, which of the data there are (the others may be NaN),
            or None for all. A pair is counted over the rows that have both, a variable
            alone over those that have it.
        num_values: how many values a variable has, 2 to 256: a number, or one for each
            variable; None: those up to its greatest observed one.
        pseudocount: added to the count of every pair of values, and of every value of
            the root, at least 0. With 0 a table's row whose value was not seen is the
            distribution of the variable alone.
        root: a variable, or ``"center"``, from which the farthest one is nearest.

    Returns:
        The configuration (`dspc_jax.build` makes the circuit) and the parameters.

    Raises:
        ValueError: the data or the mask have another shape or type, there are several
            channels or fewer than two rows, an observed value is no whole number or out
            of range, or an option is.
    """
    x, observed = checked(x, observed)
    codes = _codes(x, observed)
    sizes = _sizes(codes, num_values)
    parents = tree_of_codes(codes, sizes, pseudocount, root)
    most = int(sizes.max())
    config = CircuitConfig(
        latent_tree(parents),
        tuple(Categorical(int(size)) for size in sizes),
        num_leaves=most,
        num_sums=most,
        sum_layer="cp_t",
    )
    tables = [
        _table(codes, sizes, v, int(parent), float(pseudocount))
        for v, parent in enumerate(parents)
    ]
    return config, _params(config, sizes, tables)


def _codes(x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Values ``[V, N]``, -1 where not observed."""
    wrong = observed & ~((x >= 0) & (x < _MOST_VALUES) & (x == np.round(x)))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"x must be whole numbers from 0 to {_MOST_VALUES - 1} where observed, got "
            f"{x[row, column]} in row {row} of column {column}"
        )
    return np.where(observed, x, -1).astype(np.int16).T


def _sizes(codes: np.ndarray, num_values: Any) -> np.ndarray:
    """How many values every variable has, ``[V]``."""
    needed = codes.max(axis=1).astype(int) + 1
    if num_values is None:
        return np.maximum(needed, 2)
    if np.ndim(num_values) == 0:
        num_values = (whole_number("num_values", num_values),) * len(codes)
    sizes = np.array(whole_numbers("num_values", num_values), int)
    if len(sizes) != len(codes):
        raise ValueError(
            f"num_values must be a number or {len(codes)} of them, one a variable, got "
            f"{len(sizes)}"
        )
    least = np.maximum(needed, 2)
    wrong = np.flatnonzero((sizes < least) | (sizes > _MOST_VALUES))
    if wrong.size:
        v = wrong[0]
        raise ValueError(
            f"num_values must be from {least[v]} to {_MOST_VALUES} of variable {v}, "
            f"got {sizes[v]}"
        )
    return sizes


def _table(codes, sizes, variable, parent, pseudocount) -> np.ndarray:
    """Probabilities of a variable's values, for each value of its parent.

    ``[Mp, M]``; of the root ``[1, M]``.
    """
    own, size = codes[variable], sizes[variable]
    alone = np.bincount(own[own >= 0], minlength=size) + pseudocount
    alone = alone / alone.sum() if alone.sum() else np.full(size, 1 / size)
    if parent < 0:
        return alone[None]
    above, num_above = codes[parent], sizes[parent]
    both = (own >= 0) & (above >= 0)
    pairs = above[both].astype(int) * size + own[both]
    counts = np.bincount(pairs, minlength=num_above * size).astype(float)
    counts = counts.reshape(num_above, size) + pseudocount
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), alone)


def _params(config, sizes, tables) -> CircuitParams:
    """Parameters of the circuit with these tables."""
    circuit = build(config)
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    params = jax.tree.map(lambda shape: np.zeros(shape.shape), shapes)
    rows = parameter_rows(circuit)
    for partition, (i, j, row) in zip(rows.graph.partitions, rows.sums, strict=True):
        region = partition.children[0]
        (variable,) = rows.graph.scopes[region]
        size, table = sizes[variable], tables[variable]
        # Units beyond the values of the parent are never reached.
        logits = params.sums[i][j][row]
        logits[:, size:] = math.log(LEAST_WEIGHT)
        logits[: len(table), :size] = np.log(np.maximum(table, LEAST_WEIGHT))
        block, at, place = rows.leaves[region, variable]
        indicators = params.leaves[block].logits[at, :, place, 0]
        indicators[:size, :size][~np.eye(size, dtype=bool)] = math.log(LEAST_WEIGHT)
    return jax.tree.map(jnp.asarray, params)
