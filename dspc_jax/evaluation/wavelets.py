r"""Lossless wavelets of images, and the codec of leaves over them.

A lifting step predicts every second pixel of a row from its neighbors, keeps what the
prediction lacks, and moves the other pixels towards the mean of their surroundings:

.. math:: d = q - \operatorname{predict}(p), \quad s = p + \operatorname{update}(d)

Both are whole numbers, and whatever the two functions are it is a bijection. ``haar``
predicts a pixel by the one before it, and s is the rounded mean of both; ``legall``,
the lossless transform of JPEG 2000, predicts it by the mean of both neighbors:

.. math:: d_n = q_n - \left\lfloor \frac{p_n + p_{n+1}}{2} \right\rfloor, \quad
    s_n = p_n + \left\lfloor \frac{d_{n-1} + d_n + 2}{4} \right\rfloor

Rows are lifted, then columns, then the image of all s, and so on. Each coefficient
stays at its pixel, so a quad tree over the pixels is one over the scales as well.
Neighboring pixels have much in common, which a circuit has to find; of differences only
the size is left to find.

References:
    Calderbank et al., "Wavelet transforms that map integers to integers", Applied and
    Computational Harmonic Analysis 5, 1998 (the S and the 5/3 transform).
    Le Gall and Tabatabai, "Sub-band coding of digital images using symmetric short
    kernel filters", ICASSP 1988.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.arguments import shown, whole_number
from dspc_jax.evaluation.colors import rgb_to_ycocg, ycocg_to_rgb
from dspc_jax.evaluation.dequantization import Codec
from dspc_jax.evaluation.rounding import Divide, floor_divide, soft_floor_divide
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array


class Lifting(NamedTuple):
    """A pair of lifting steps along the first axis.

    Attributes:
        predict: ``(even, num_odd, divide)`` to what odd pixels are predicted as.
        update: ``(difference, num_even, divide)`` to what even pixels move by.
        gain: whole number that bounds how far coefficients may leave the range of the
            pixels: from -gain to gain half ranges about its middle or about 0.
    """

    predict: Callable[[Array, int, Divide], Array]
    update: Callable[[Array, int, Divide], Array]
    gain: int


@functools.partial(jax.jit, static_argnames="kind")
def wavelet_transform(image: Array, kind: str = "legall") -> Array:
    """Wavelet coefficients, each at a pixel of its own.

    Args:
        image: whole numbers ``[..., H, W, C]``, signed or floats, of any size.
        kind: "haar" or "legall".

    Returns:
        Of the same shape and type.

    Raises:
        ValueError: there is no such kind, or the shape is none of an image.
    """
    return _forward(_image(image), _lifting(kind), floor_divide)


@functools.partial(jax.jit, static_argnames="kind")
def inverse_wavelet_transform(coefficients: Array, kind: str = "legall") -> Array:
    """The inverse of `wavelet_transform`.

    Args:
        coefficients: whole numbers ``[..., H, W, C]``, signed or floats.
        kind: as there.

    Returns:
        Of the same shape and type, of any range.

    Raises:
        ValueError: as there.
    """
    return _backward(_image(coefficients), _lifting(kind), floor_divide)


def wavelet_codec(
    height: int,
    width: int,
    *,
    kind: str = "legall",
    num_values: int = 256,
    ycocg: bool = False,
) -> Codec:
    """For discrete leaves over the wavelets of images of levels.

    Bits per dimension are exact, and compare with those of the pixels; a circuit that
    gives mass to coefficients of no image loses it. Evidence, marginals and completions
    of such a circuit are about coefficients: an image in a smaller size is some of
    them, a part of the image is not.

    Args:
        height: H.
        width: W.
        kind: "haar" or "legall".
        num_values: K levels of a channel, from 2 to 256.
        ycocg: whether the three channels of the image are transformed to YCoCg-R first.

    Returns:
        The codec, of arrays ``[..., H * W, C]``, whose leaves have the values 0 ..
        `num_wavelet_values` - 1. Its ``to_unit`` has the derivative of the linear map,
        and its ``to_levels`` clips what is no level.

    Raises:
        ValueError: there is no such kind, or ``num_values`` is outside of 2 .. 256.
    """
    lifting = _lifting(kind)
    offset = (num_wavelet_values(kind, num_values, ycocg=ycocg) - 1) // 2
    top = num_values - 1

    @functools.partial(jax.jit, static_argnums=1)
    def analyzed(levels: Array, divide: Divide) -> Array:
        colors = rgb_to_ycocg(levels, divide) if ycocg else levels
        image = colors.reshape(*colors.shape[:-2], height, width, colors.shape[-1])
        return _forward(image, lifting, divide).reshape(colors.shape) + offset

    @functools.partial(jax.jit, static_argnums=1)
    def synthesized(x: Array, divide: Divide) -> Array:
        image = (x - offset).reshape(*x.shape[:-2], height, width, x.shape[-1])
        colors = _backward(image, lifting, divide).reshape(x.shape)
        return ycocg_to_rgb(colors, divide) if ycocg else colors

    def from_unit(x: Array) -> Array:
        linear = x * top
        nearest = jnp.clip(jnp.round(linear), 0, top)
        levels = linear + jax.lax.stop_gradient(nearest - linear)
        return analyzed(levels, soft_floor_divide)

    def to_levels(x: Array) -> Array:
        levels = synthesized(jnp.round(x), floor_divide)
        return jnp.clip(levels, 0, top).astype(jnp.uint8)

    return Codec(
        encode=lambda key, levels: analyzed(
            as_values("levels", levels, jnp.float32), floor_divide
        ),
        to_unit=lambda x: synthesized(x, soft_floor_divide) / top,
        from_unit=from_unit,
        to_levels=to_levels,
        mean_log_slope=lambda x: jnp.zeros((), x.dtype),
    )


def num_wavelet_values(
    kind: str = "legall", num_values: int = 256, *, ycocg: bool = False
) -> int:
    """Values of a leaf of `wavelet_codec`, an odd number; the middle one stands for 0.

    Args:
        kind: "haar" or "legall".
        num_values: K levels of a channel, from 2 to 256.
        ycocg: whether channels are transformed to YCoCg-R first.

    Returns:
        So many that no image has other coefficients.

    Raises:
        ValueError: there is no such kind, or ``num_values`` is outside of 2 .. 256.
    """
    num_values = whole_number("num_values", num_values)
    if not 2 <= num_values <= 256:
        raise ValueError(f"num_values must be from 2 to 256, got {num_values}")
    # Differences of colors have twice the range of a channel.
    half_range = (num_values - 1) * (2 if ycocg else 1)
    return 2 * (_lifting(kind).gain * half_range + _ROUNDING) + 1


_ROUNDING = 8  # more than all divisions of a coefficient add up to


def _haar_update(difference, num_even, divide):
    """Half the difference; a last pixel without a partner stays."""
    alone = [(0, num_even - len(difference))] + [(0, 0)] * (difference.ndim - 1)
    return jnp.pad(divide(difference, 2), alone)


def _legall_predict(even, num_odd, divide):
    """The mean of the neighbors; behind the last even pixel it lies again."""
    after = jnp.concatenate([even[1:], even[-1:]])
    return divide(even + after, 2)[:num_odd]


def _legall_update(difference, num_even, divide):
    """A quarter of both differences; the first and the last lie twice at the ends."""
    before = jnp.concatenate([difference[:1], difference])[:num_even]
    after = jnp.concatenate([difference, difference[-1:]])[:num_even]
    return divide(before + after + 2, 4)


# The gains: products of the L1 norms of the filters of two axes, of all scales, over
# images of any size. Haar: 2 x 2 half ranges. LeGall: below 2.86 x 2.86.
LIFTINGS = {
    "haar": Lifting(lambda even, num_odd, divide: even[:num_odd], _haar_update, 2),
    "legall": Lifting(_legall_predict, _legall_update, 5),
}
"""Kinds of wavelets."""


def _lifting(kind: str) -> Lifting:
    if kind not in LIFTINGS:
        raise ValueError(f"kind must be among {sorted(LIFTINGS)}, got {shown(kind)}")
    return LIFTINGS[kind]


def _image(values: Array) -> Array:
    if values.ndim < 3:
        raise ValueError(
            f"an image must have the shape [..., H, W, C], got {values.shape}"
        )
    return values


def _forward(image, lifting, divide):
    """Rows, columns, then what is smooth of both."""
    axes = [axis for axis in (-3, -2) if image.shape[axis] > 1]
    if not axes:
        return image
    parts = [image]
    for axis in axes:
        parts = [
            b for a in parts for b in _lifted(*_halves(a, axis), axis, lifting, divide)
        ]
    parts[0] = _forward(parts[0], lifting, divide)
    for axis in reversed(axes):
        parts = [_interleaved(a, b, axis) for a, b in _pairs(parts)]
    return parts[0]


def _backward(coefficients, lifting, divide):
    """The inverse of `_forward`."""
    axes = [axis for axis in (-3, -2) if coefficients.shape[axis] > 1]
    if not axes:
        return coefficients
    parts = [coefficients]
    for axis in axes:
        parts = [b for a in parts for b in _halves(a, axis)]
    parts[0] = _backward(parts[0], lifting, divide)
    for axis in reversed(axes):
        parts = [
            _interleaved(*_unlifted(a, b, axis, lifting, divide), axis)
            for a, b in _pairs(parts)
        ]
    return parts[0]


def _pairs(parts):
    return list(zip(parts[::2], parts[1::2], strict=True))


def _halves(a, axis):
    """What is at even, and at odd places."""
    axis %= a.ndim
    return tuple(jax.lax.slice_in_dim(a, n, None, 2, axis) for n in (0, 1))


def _interleaved(even, odd, axis):
    """The inverse of `_halves`."""
    axis %= even.ndim
    size = even.shape[axis] + odd.shape[axis]
    missing = [(0, 0)] * even.ndim
    missing[axis] = (0, even.shape[axis] - odd.shape[axis])
    pair = jnp.stack([even, jnp.pad(odd, missing)], axis + 1)
    shape = (*even.shape[:axis], -1, *even.shape[axis + 1 :])
    return jax.lax.slice_in_dim(pair.reshape(shape), 0, size, axis=axis)


def _lifted(even, odd, axis, lifting, divide):
    """Smooth values and differences."""
    even, odd = (jnp.moveaxis(a, axis, 0) for a in (even, odd))
    difference = odd - lifting.predict(even, len(odd), divide)
    smooth = even + lifting.update(difference, len(even), divide)
    return tuple(jnp.moveaxis(a, 0, axis) for a in (smooth, difference))


def _unlifted(smooth, difference, axis, lifting, divide):
    """The inverse of `_lifted`."""
    smooth, difference = (jnp.moveaxis(a, axis, 0) for a in (smooth, difference))
    even = smooth - lifting.update(difference, len(smooth), divide)
    odd = difference + lifting.predict(even, len(difference), divide)
    return tuple(jnp.moveaxis(a, 0, axis) for a in (even, odd))
