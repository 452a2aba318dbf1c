"""A circuit by the numbers of its regions and partitions, on its way into arrays."""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.circuit import Circuit
from dspc_jax.parameters import CircuitParams
from dspc_jax.rows import parameter_rows


class Numbers(NamedTuple):
    """The parameters of a circuit, region by region and partition by partition.

    Attributes:
        leaves: for each input region and variable in it, arrays ``[K, C]`` (of
            categorical leaves ``[K, C, M]``) by the name of the family's field.
        sums: for each partition, logits ``[O, K, K]`` or ``[O, K]``. A region may have
            fewer units than the circuit gives it: the others get weights of 0.
        mixtures: for each partition among several of its region, its logits ``[K]``.
    """

    leaves: Mapping[tuple[int, int], Mapping[str, np.ndarray]]
    sums: Sequence[np.ndarray]
    mixtures: Mapping[int, np.ndarray]


def arranged(circuit: Circuit, numbers: Numbers, dtype: Any) -> CircuitParams:
    """The parameters as the circuit keeps them.

    Args:
        circuit: whose region graph has these regions and partitions, and no others.
        numbers: the parameters.
        dtype: of the arrays.

    Returns:
        The parameters; all classes have the same weight.
    """
    rows = parameter_rows(circuit)
    assert len(rows.graph.partitions) == len(numbers.sums)
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    params = jax.tree.map(lambda s: np.zeros(s.shape, np.float64), shapes)
    for place, fields in numbers.leaves.items():
        i, row, column = rows.leaves[place]
        for name, values in fields.items():
            getattr(params.leaves[i], name)[row, :, column] = values
    for (i, j, row), logits in zip(rows.sums, numbers.sums, strict=True):
        params.sums[i][j][row] = _padded(logits, params.sums[i][j][row].shape)
    for partition, logits in numbers.mixtures.items():
        place = rows.mixtures[partition]
        assert place is not None
        i, row, column = place
        params.mixtures[i][row, :, column] = logits
    return jax.tree.map(lambda values: jnp.asarray(values, dtype), params)


def _padded(logits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """More units: of children, with weights of 0; of the region, which nobody uses."""
    result = np.full(shape, -math.inf)
    result[len(logits) :] = 0.0
    result[tuple(slice(0, size) for size in logits.shape)] = logits
    return result
