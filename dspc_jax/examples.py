"""One example as a user gives it: values, a mask of the observed ones, a key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.ops.values import as_values, refuse_nan
from dspc_jax.parameters import Layout
from dspc_jax.types import Array, Key


def shape(layout: Layout) -> tuple[int, int]:
    """``[V, C]``, the shape of one example."""
    return layout.graph.num_variables, layout.num_channels


def example(
    layout: Layout, x: Any, observed: Any, dtype: Any
) -> tuple[Array, Array | None]:
    """An example of this type, with its mask unless it is observed in full."""
    x = with_channels(layout, as_values("x", x, dtype), 2)
    check_values(layout, "x", x.shape)
    if observed is None:
        return x, None
    return x, as_mask(observed, (layout.graph.num_variables,), "[V]")


def rows(
    layout: Layout, name: str, x: Any, observed: Any, dtype: Any
) -> tuple[Array, Array | None]:
    """Many examples ``[N, V, C]``, with their masks ``[N, V]`` unless they are None.

    Args:
        layout: the circuit.
        name: the argument's name, for errors.
        x: values; NaN where not observed at most.
        observed: bool, or None: everything is observed.
        dtype: of the result.

    Returns:
        The values, and the masks.

    Raises:
        ValueError: a shape or type is another, or an observed value is NaN (unless it
            is traced).
    """
    x = values_of_rows(layout, name, x, dtype)
    num_variables = layout.graph.num_variables
    if observed is not None:
        observed = as_mask(observed, (x.shape[0], num_variables), "[N, V]")
    refuse_nan(name, x, observed)
    return x, observed


def values_of_rows(layout: Layout, name: str, x: Any, dtype: Any) -> Array:
    """The values of `rows` alone, of this type; NaN is not looked for."""
    x = with_channels(layout, as_values(name, x, dtype), 3)
    num_variables, num_channels = shape(layout)
    if x.ndim != 3 or x.shape[1:] != (num_variables, num_channels):
        raise ValueError(
            f"{name} must have shape [N, V, C] = (N, {num_variables}, {num_channels}) "
            f"(all examples in one call), got {x.shape}"
        )
    return x


def with_channels(layout: Layout, x: Array, ndim: int) -> Array:
    """Values of ``ndim`` axes; those of one channel may come without its axis."""
    lacks_channel = layout.num_channels == 1 and x.ndim == ndim - 1
    return x[..., None] if lacks_channel else x


def as_mask(observed: Any, wanted: tuple[int, ...], axes: str) -> Array:
    """A mask of observed variables of this shape; raises ValueError for another."""
    mask = observed if isinstance(observed, jax.Array) else np.asarray(observed)
    if mask.shape != wanted or mask.dtype != np.bool_:
        raise ValueError(
            f"observed must be bool of shape {axes} = {wanted}, got "
            f"{mask.dtype} of shape {mask.shape}"
        )
    return jnp.asarray(mask)


def labels(layout: Layout, given: Any, count: int) -> np.ndarray:
    """Classes ``[N]`` of so many examples; raises ValueError for anything else."""
    array = np.asarray(given)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape [N] = ({count},), got {array.dtype} of "
            f"shape {array.shape}"
        )
    wrong = array[(array < 0) | (array >= layout.num_classes)]
    if wrong.size:
        raise ValueError(
            f"labels must be in 0 .. {layout.num_classes - 1}, the classes of the "
            f"circuit, got {wrong[0]}"
        )
    return array


def evidence(layout: Layout, x: Any, observed: Any, dtype: Any) -> tuple[Array, Array]:
    """An example with its mask; neither comes without the other."""
    if x is None or observed is None:
        missing = "x" if x is None else "observed"
        raise ValueError(f"{missing} must be given with the other of x and observed")
    x, observed = example(layout, x, observed, dtype)
    assert observed is not None
    return x, observed


def evidence_or_nothing(
    layout: Layout, x: Any, observed: Any, dtype: Any
) -> tuple[Array, Array]:
    """The evidence; without values and mask, an example with nothing observed."""
    if x is None and observed is None:
        x = jnp.zeros(shape(layout), dtype)
        observed = jnp.zeros(layout.graph.num_variables, bool)
    return evidence(layout, x, observed, dtype)


def check_values(layout: Layout, name: str, sizes: tuple[int, ...]) -> None:
    """Raises ValueError unless this is the shape of one example."""
    if tuple(sizes) != shape(layout):
        raise ValueError(
            f"{name} must have shape [V, C] = {shape(layout)} (one example; batch with "
            f"jax.vmap), got {tuple(sizes)}"
        )


def check_key(key: Key) -> None:
    """Raises ValueError unless this is one typed key."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not typed or key.shape != ():
        raise ValueError(
            "key must be one typed key, as from jax.random.key (batch with jax.vmap), "
            f"got {shown(key)}"
        )
