"""Values as users give them: any kind of real numbers, computed with as floats.

With a circuit's parameters they have the type of these (`dspc_jax.ops.float_types`).

Everything public that takes data takes them through `as_values`, so that equal numbers
of other types (8-bit pixels, bools, halves) give equal results everywhere.
"""

from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import real_number, shown
from dspc_jax.types import Array

LARGEST = 1e15
"""From here on a real value counts as impossible: so far from everything that float32
is to hold that its square, in units of a small variance, may be infinite."""


def as_values(name: str, x: Any, dtype: Any = None) -> Array:
    """Real numbers of any type as an array of floats.

    Args:
        name: the argument's name, for the error.
        x: an array of JAX or NumPy, or what NumPy makes one of: bools, integers or
            floats of any width.
        dtype: the type of the result. None: float64 stays float64 (where JAX has it),
            everything else becomes float32.

    Returns:
        The numbers. An array that has the type already is returned as it is.

    Raises:
        ValueError: there are no real numbers in it: complex ones, strings, objects,
            None, a tree of arrays.
    """
    array = x if isinstance(x, jax.Array) else _to_array(name, x)
    real = any(
        jnp.issubdtype(array.dtype, kind)
        for kind in (jnp.floating, jnp.integer, jnp.bool_)
    )
    if not real:
        raise ValueError(f"{name} must be an array of real numbers, got {shown(x)}")
    if dtype is None:
        wide = array.dtype == np.float64
        dtype = jax.dtypes.canonicalize_dtype(np.float64) if wide else jnp.float32
    if isinstance(array, jax.Array):
        return array.astype(dtype)
    # NumPy converts: JAX would cut 64-bit integers to 32 bits first.
    return jnp.asarray(array.astype(dtype))


def _to_array(name: str, x: Any) -> Any:
    try:
        try:
            return np.asarray(x)
        except jax.errors.TracerArrayConversionError:
            return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of real numbers, got {shown(x)}"
        ) from error


def refuse_nan(name: str, x: Array, observed: Array | None = None) -> None:
    """Refuses a missing value that no mask declares missing.

    Args:
        name: the argument's name, for the error.
        x: ``[N, V, ...]`` values.
        observed: bool ``[N, V]``; what is not observed may be NaN.

    Raises:
        ValueError: an observed value is NaN; the message names its row and variable.
            While tracing values are not known, and nothing is raised.
    """
    _refuse(name, x, observed, jnp.isnan, "not be NaN", "NaN")


def refuse_huge(name: str, x: Array, observed: Array | None = None) -> None:
    """Refuses values so large that no distribution can be fitted to them.

    Args:
        name: the argument's name, for the error.
        x: ``[N, V, ...]`` values.
        observed: bool ``[N, V]``; what is not observed may be of any size.

    Raises:
        ValueError: an observed value is `LARGEST` or more in size; the message names
            its row and variable. While tracing nothing is raised.
    """
    requirement = f"be smaller than {LARGEST:g} in size (scale the data down)"
    _refuse(name, x, observed, lambda x: jnp.abs(x) >= LARGEST, requirement, "more")


def _refuse(name, x, observed, is_wrong, requirement, got):
    for array in (x, observed):
        if isinstance(array, Tracer):
            return
    if not x.is_fully_addressable:  # on several hosts, none of which sees all rows
        return
    with jax.ensure_compile_time_eval():
        wrong = is_wrong(x).any(axis=tuple(range(2, x.ndim)))
        if observed is not None:
            wrong = wrong & observed
        some = bool(wrong.any())
    if some:
        wrong = np.asarray(wrong)
        row, variable = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} must {requirement} where it is observed, got {got} in row {row}, "
            f"variable {variable} ({wrong.any(1).sum()} of {len(x)} rows)"
        )


def traced_number(name: str, value: Any) -> Any:
    """A `real_number`, or a traced one as it is: its value is not known yet.

    Args:
        name: the argument's name, for the error.
        value: a number of Python, NumPy or JAX, or a tracer.

    Returns:
        The number, or the tracer.

    Raises:
        ValueError: no finite number, or a tracer of another shape than ``()``.
    """
    if not isinstance(value, Tracer):
        return real_number(name, value)
    if value.shape or not jnp.issubdtype(value.dtype, jnp.number):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    return value
