"""The types of numbers: parameters have one, and it decides what is computed in.

=========  ============================  ===============================================
type       computed in                   what for
=========  ============================  ===============================================
float32    float32, also under x64       training and use
float64    float64                       needs ``jax_enable_x64``: references, tests
bfloat16   float32, from the parameters  half of the memory; gradients are bfloat16
=========  ============================  ===============================================

Values are converted to the type that is computed in, whatever their own. A circuit with
bfloat16 parameters is exactly the one with the same numbers as float32. Rounding them
from float32 moves the mean log-likelihood of scikit-learn's digits by less than 1e-3
bits a pixel where leaves start at data and by less than 1e-4 after 100 steps of Adam,
that of an example by up to 0.01 (Binomial, Categorical, DiscretizedLogistic leaves, and
Normal ones with a deviation of at least 0.5). In training bfloat16 loses every step
that is below a 256th of a parameter: train in float32 and convert at the end.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.types import PyTree

FLOAT_TYPES = ("float32", "float64", "bfloat16")
"""The types that parameters may have."""


def float_type(dtype: Any = None) -> np.dtype:
    """A type for new parameters.

    Args:
        dtype: one of `FLOAT_TYPES` or its name; None: JAX's own, float32, or float64
            under ``jax_enable_x64``.

    Returns:
        The type.

    Raises:
        ValueError: another type, or one that JAX does not have without x64.
    """
    if dtype is None:
        return jax.dtypes.canonicalize_dtype(np.float64)
    try:
        chosen = jnp.dtype(dtype)
    except TypeError:
        chosen = None
    if chosen is None or chosen.name not in FLOAT_TYPES:
        got = shown(dtype) if chosen is None else chosen.name
        raise ValueError(f"dtype must be a type among {FLOAT_TYPES}, got {got}")
    if jax.dtypes.canonicalize_dtype(chosen) != chosen:
        raise ValueError(
            f"dtype must be float32 or bfloat16 without jax_enable_x64, got {chosen}"
        )
    return chosen


def computed_in(dtype: Any) -> np.dtype:
    """The type in which parameters of this type are computed with."""
    return jnp.dtype(jnp.float32 if dtype == jnp.bfloat16 else dtype)


def widened(params: PyTree) -> tuple[PyTree, np.dtype]:
    """Parameters in the type that they are computed with.

    Args:
        params: a tree of arrays of one of `FLOAT_TYPES`. Those that are float64 in
            NumPy count as float32 where JAX would make them so.

    Returns:
        The tree, bfloat16 as float32, and the type.

    Raises:
        ValueError: an array of another type, or two of different types; the message
            names them.
    """
    dtypes = {getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(params)}
    names = {str(dtype) for dtype in dtypes - {None}}
    if "float64" in names and float_type() != np.float64:  # NumPy's
        names = names - {"float64"} | {"float32"}
    if len(names) > 1 or not names <= set(FLOAT_TYPES):
        _refuse(params)
    dtype = jnp.dtype(names.pop() if names else jnp.float32)
    wide = computed_in(dtype)
    if wide != dtype:
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide), params)
    return params, wide


def _refuse(params: PyTree) -> None:
    """Raises ValueError with the first array that is of a wrong or another type."""
    first: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        first.setdefault(str(leaf.dtype), f"params{jax.tree_util.keystr(path)}")
    for dtype, name in first.items():
        if dtype not in FLOAT_TYPES:
            raise ValueError(
                f"{name} must be of a type among {FLOAT_TYPES}, got {dtype}"
            )
    types = " and ".join(f"{dtype} in {name}" for dtype, name in first.items())
    raise ValueError(f"params must be of one type, got {types}")
