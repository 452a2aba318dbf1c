r"""Lossless wavelets: the integer Haar transform, and the codec of leaves over it.

Two neighbors p, q become their difference and their mean, both whole numbers,

.. math:: d = q - p, \quad m = p + \lfloor d / 2 \rfloor

which is a bijection. It is applied to pairs of rows and pairs of columns, then to the
means of all blocks, and so on. Each coefficient lies at a pixel of its block: a
difference at the later one of its pair, a mean at the earlier one. A quad tree over the
pixels is then one over the scales as well. Neighboring pixels have much in common, and
a circuit has to find it; of their differences only the size is left to find.

References:
    Calderbank et al., "Wavelet transforms that map integers to integers", Applied and
    Computational Harmonic Analysis 5, 1998, section 2 (the S transform).
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.evaluation.colors import (
    floor_half,
    rgb_to_ycocg,
    soft_half,
    ycocg_to_rgb,
)
from dspc_jax.evaluation.dequantization import Codec
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array


def haar(image: Array) -> Array:
    """The integer Haar transform.

    Args:
        image: whole numbers ``[..., H, W, C]``, signed or floats. Sizes need not be
            even: what has no neighbor goes on to the next scale as it is.

    Returns:
        Of the same shape and type. Of values from 0 to t the coefficient at the first
        pixel is in 0 .. t, all others are in -2t .. 2t.
    """
    return _forward(_image(image), floor_half)


def inverse_haar(coefficients: Array) -> Array:
    """The inverse of `haar`.

    Args:
        coefficients: whole numbers ``[..., H, W, C]``, signed or floats.

    Returns:
        Of the same shape and type, of any range.
    """
    return _backward(_image(coefficients), floor_half)


def wavelet_codec(
    height: int, width: int, *, num_values: int = 256, ycocg: bool = False
) -> Codec:
    """For discrete leaves over the wavelets of images of levels.

    Bits per dimension are exact, and compare with those of the pixels; a circuit that
    gives mass to coefficients of no image loses it. Evidence, marginals and completions
    of such a circuit are about coefficients: an image in a smaller size is some of
    them, a part of the image is not.

    Args:
        height: H.
        width: W.
        num_values: K levels of a channel, from 2 to 256.
        ycocg: whether the three channels of the image are transformed to YCoCg-R first.

    Returns:
        The codec, of arrays ``[..., H * W, C]``, whose leaves have the values 0 ..
        `num_wavelet_values` - 1. Its ``to_unit`` has the derivative of the linear map,
        and its ``to_levels`` clips what is no level.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256.
    """
    offset = (num_wavelet_values(num_values, ycocg=ycocg) - 1) // 2
    top = num_values - 1

    def analyzed(levels: Array, half: Callable[[Array], Array]) -> Array:
        colors = rgb_to_ycocg(levels, half) if ycocg else levels
        image = colors.reshape(*colors.shape[:-2], height, width, colors.shape[-1])
        return _forward(image, half).reshape(colors.shape) + offset

    def synthesized(x: Array, half: Callable[[Array], Array]) -> Array:
        image = (x - offset).reshape(*x.shape[:-2], height, width, x.shape[-1])
        colors = _backward(image, half).reshape(x.shape)
        return ycocg_to_rgb(colors, half) if ycocg else colors

    def from_unit(x: Array) -> Array:
        linear = x * top
        nearest = jnp.clip(jnp.round(linear), 0, top)
        return analyzed(linear + jax.lax.stop_gradient(nearest - linear), soft_half)

    def to_levels(x: Array) -> Array:
        levels = synthesized(jnp.round(x), floor_half)
        return jnp.clip(levels, 0, top).astype(jnp.uint8)

    return Codec(
        encode=lambda key, levels: analyzed(
            as_values("levels", levels, jnp.float32), floor_half
        ),
        to_unit=lambda x: synthesized(x, soft_half) / top,
        from_unit=from_unit,
        to_levels=to_levels,
        mean_log_slope=lambda x: jnp.zeros((), x.dtype),
    )


def num_wavelet_values(num_values: int = 256, *, ycocg: bool = False) -> int:
    """Values of a leaf of `wavelet_codec`.

    Args:
        num_values: K levels of a channel, from 2 to 256.
        ycocg: whether channels are transformed to YCoCg-R first.

    Returns:
        4 (K - 1) + 1; with YCoCg-R, whose differences have twice the range, 8 (K - 1)
        + 1.

    Raises:
        ValueError: ``num_values`` is outside of 2 .. 256.
    """
    num_values = whole_number("num_values", num_values)
    if not 2 <= num_values <= 256:
        raise ValueError(f"num_values must be from 2 to 256, got {num_values}")
    return (8 if ycocg else 4) * (num_values - 1) + 1


def _image(values: Array) -> Array:
    if values.ndim < 3:
        raise ValueError(
            f"an image must have the shape [..., H, W, C], got {values.shape}"
        )
    return values


def _forward(image, half):
    """Rows, columns, then the means of the blocks."""
    axes = [axis for axis in (-3, -2) if image.shape[axis] > 1]
    if not axes:
        return image
    parts = [image]
    for axis in axes:
        parts = [b for a in parts for b in _lifted(a, axis, half)]
    parts[0] = _forward(parts[0], half)
    return _merged(parts, axes)


def _backward(coefficients, half):
    """Means of the blocks first, then columns and rows."""
    axes = [axis for axis in (-3, -2) if coefficients.shape[axis] > 1]
    if not axes:
        return coefficients
    parts = [coefficients]
    for axis in axes:
        parts = [b for a in parts for b in _halves(a, axis)]
    parts[0] = _backward(parts[0], half)
    for axis in reversed(axes):
        parts = [
            _interleaved(*_unlifted(a, b, axis, half), axis)
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _merged(parts, axes):
    for axis in reversed(axes):
        parts = [
            _interleaved(a, b, axis)
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _halves(a, axis):
    """What is at even, and at odd places."""
    cut = functools.partial(jax.lax.slice_in_dim, axis=axis % a.ndim)
    return cut(a, 0, None, 2), cut(a, 1, None, 2)


def _interleaved(even, odd, axis):
    """The inverse of `_halves`."""
    axis %= even.ndim
    size = even.shape[axis] + odd.shape[axis]
    missing = [(0, 0)] * even.ndim
    missing[axis] = (0, even.shape[axis] - odd.shape[axis])
    pair = jnp.stack([even, jnp.pad(odd, missing)], axis + 1)
    shape = (*even.shape[:axis], -1, *even.shape[axis + 1 :])
    return jax.lax.slice_in_dim(pair.reshape(shape), 0, size, axis=axis)


def _lifted(a, axis, half):
    """Means and differences of pairs; the last one alone is its own mean."""
    even, odd = _halves(a, axis)
    paired, alone = _split(even, odd.shape[axis], axis)
    difference = odd - paired
    return jnp.concatenate([paired + half(difference), alone], axis), difference


def _unlifted(mean, difference, axis, half):
    """The inverse of `_lifted`: what is at even, and at odd places."""
    paired, alone = _split(mean, difference.shape[axis], axis)
    even = paired - half(difference)
    return jnp.concatenate([even, alone], axis), even + difference


def _split(a, size, axis):
    cut = functools.partial(jax.lax.slice_in_dim, axis=axis % a.ndim)
    return cut(a, 0, size), cut(a, size, None)
