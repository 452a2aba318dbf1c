r"""Lossless colors with less in common: YCoCg-R, and the codec of leaves over it.

.. math:: C_o = R - B, \quad t = B + \lfloor C_o / 2 \rfloor, \quad C_g = G - t,
    \quad Y = t + \lfloor C_g / 2 \rfloor

is a bijection of whole numbers, so that the bits of the three new channels are the bits
of the pixel, and a query about whole pixels stays what it was.

References:
    Malvar and Sullivan, "YCoCg-R: A color space with RGB reversibility and low dynamic
    range", JVT-I014r3, 2003.
"""

import jax
import jax.numpy as jnp

from dspc_jax.evaluation.dequantization import Codec
from dspc_jax.evaluation.rounding import Divide, floor_divide, soft_floor_divide
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array

_TOP = 255
NUM_COLOR_VALUES = 2 * _TOP + 1
"""Values of a channel of `color_codec`; the brightness takes the first 256 of them."""


def rgb_to_ycocg(rgb: Array, divide: Divide = floor_divide) -> Array:
    """Red, green and blue to brightness, orange and green differences.

    Args:
        rgb: whole numbers ``[..., 3]``, signed or floats.
        divide: of `dspc_jax.evaluation.rounding`, how differences are halved.

    Returns:
        Of the same type ``[..., 3]``: of levels 0 .. 255 the brightness is in 0 .. 255,
        the differences are in -255 .. 255.
    """
    red, green, blue = _channels(rgb)
    orange = red - blue
    base = blue + divide(orange, 2)
    difference = green - base
    return jnp.stack([base + divide(difference, 2), orange, difference], axis=-1)


def ycocg_to_rgb(ycocg: Array, divide: Divide = floor_divide) -> Array:
    """The inverse of `rgb_to_ycocg`.

    Args:
        ycocg: whole numbers ``[..., 3]``, signed or floats.
        divide: as there.

    Returns:
        Of the same type ``[..., 3]``; outside of 0 .. 255 for what is no color.
    """
    brightness, orange, difference = _channels(ycocg)
    base = brightness - divide(difference, 2)
    blue = base - divide(orange, 2)
    return jnp.stack([blue + orange, difference + base, blue], axis=-1)


def _channels(values: Array) -> list[Array]:
    if values.ndim < 1 or values.shape[-1] != 3:
        raise ValueError(
            f"colors must have three channels on the last axis, got {values.shape}"
        )
    return [values[..., c] for c in range(3)]


def color_codec() -> Codec:
    """For discrete leaves over YCoCg-R, of RGB images of 256 levels.

    The differences are moved up by 255, so that all channels have values in
    0 .. `NUM_COLOR_VALUES` - 1. Bits per dimension are exact, and compare with those of
    RGB; a circuit that gives mass to values that are no color loses it.

    Returns:
        The codec, of arrays ``[..., 3]``. Its ``to_unit`` has the derivative of the
        linear map, and its ``to_levels`` clips what is no color.
    """
    offset = jnp.array([0, _TOP, _TOP])

    def moved(x: Array, sign: int) -> Array:
        own = (sign * offset).astype(x.dtype)
        return x + own.reshape(*[1] * (x.ndim - 1), 3)

    def encode(key, levels):
        del key
        levels = as_values("levels", levels, jnp.float32)
        return moved(rgb_to_ycocg(levels), 1)

    def to_unit(x: Array) -> Array:
        return ycocg_to_rgb(moved(x, -1), soft_floor_divide) / _TOP

    def from_unit(x: Array) -> Array:
        linear = x * _TOP
        levels = linear + jax.lax.stop_gradient(
            jnp.clip(jnp.round(linear), 0, _TOP) - linear
        )
        return moved(rgb_to_ycocg(levels, soft_floor_divide), 1)

    def to_levels(x: Array) -> Array:
        rgb = ycocg_to_rgb(moved(jnp.round(x), -1))
        return jnp.clip(rgb, 0, _TOP).astype(jnp.uint8)

    return Codec(
        encode=encode,
        to_unit=to_unit,
        from_unit=from_unit,
        to_levels=to_levels,
        mean_log_slope=lambda x: jnp.zeros((), x.dtype),
    )
