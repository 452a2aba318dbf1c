"""Whether data are possible under a circuit's leaves."""

from typing import Any

from jax.core import Tracer
import numpy as np

from dspc_jax import examples
from dspc_jax.arguments import instance
from dspc_jax.circuit import Circuit


def check(circuit: Circuit, x: Any, observed: Any = None, *, name: str = "x") -> None:
    """Refuses values that are impossible under their leaves, before they cost a run.

    The likelihood of such a value is 0, ``log_prob`` is ``-inf`` without a word.

    Args:
        circuit: the circuit.
        x: values ``[N, V, C]`` (``[N, V]`` with one channel).
        observed: bool ``[N, V]``; what is not observed may be anything.
        name: the argument's name, for the error.

    Raises:
        ValueError: a shape or type is another, or an observed value is NaN or outside
            of the support of its leaf: outside of its range, or no whole number where
            the leaf counts. The message names row, variable, value and range. While
            tracing values are not known, and shapes alone are looked at.
    """
    instance("circuit", circuit, Circuit)
    values, mask = examples.rows(circuit.layout, name, x, observed, None)
    if isinstance(values, Tracer) or isinstance(mask, Tracer):
        return
    if not values.is_fully_addressable:  # on several hosts
        return
    leaves = circuit.config.leaves
    low, high = np.array([leaf.support for leaf in leaves], np.float32).T
    integer = np.array([leaf.integer for leaf in leaves])
    array = np.asarray(values)
    wrong = (array < low[:, None]) | (array > high[:, None])
    wrong |= integer[:, None] & (array != np.round(array))
    wrong = wrong.any(axis=2)
    if mask is not None:
        wrong &= np.asarray(mask)
    if not wrong.any():
        return
    row, variable = np.argwhere(wrong)[0]
    kind = "whole numbers" if integer[variable] else "values"
    got = array[row, variable]
    got = got[(got < low[variable]) | (got > high[variable]) | (got != np.round(got))]
    raise ValueError(
        f"{name} must have {kind} from {low[variable]:g} to {high[variable]:g} in "
        f"variable {variable}, got {got[0]:g} in row {row} ({wrong.any(1).sum()} of "
        f"{len(array)} rows are impossible)"
    )
