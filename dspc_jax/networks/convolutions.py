"""Convolutions of images that are fast inside compiled loops on every platform.

XLA's CPU compiler calls its convolution library outside of loops only: in the body of a
``scan`` or ``while_loop``, where all our training steps run, the same convolution is 10
to 50 times slower (jax-ml/jax issue 12868). Therefore convolutions on CPU are one
matrix product of patches, equal up to rounding; accelerators keep XLA's convolution.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.types import Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")  # of inputs, kernels and outputs


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """A convolution (cross-correlation) with ``SAME`` padding.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[h, w, C, F]``.
        stride: stride of both axes, at least 1.

    Returns:
        ``[B, ceil(H / stride), ceil(W / stride), F]``.
    """

    def by_library(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS
        )

    def by_patches(x: Array, kernel: Array) -> Array:
        height, width, _, num_filters = kernel.shape
        rows, pad_rows = _same(x.shape[1], height, stride)
        columns, pad_columns = _same(x.shape[2], width, stride)
        x = jnp.pad(x, ((0, 0), pad_rows, pad_columns, (0, 0)))
        patches = jnp.concatenate(
            [
                x[:, i : i + rows * stride : stride, j : j + columns * stride : stride]
                for i in range(height)
                for j in range(width)
            ],
            axis=-1,
        )
        return patches @ kernel.reshape(-1, num_filters)

    return jax.lax.platform_dependent(x, kernel, cpu=by_patches, default=by_library)


def convolve_transposed(x: Array, kernel: Array, stride: int) -> Array:
    """A transposed convolution with ``SAME`` padding, as `jax.lax.conv_transpose`.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[h, w, C, F]``, not flipped; sides at least ``stride``.
        stride: stride of both axes, at least 1.

    Returns:
        ``[B, H * stride, W * stride, F]``.
    """

    def by_library(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_transpose(
            x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS
        )

    def by_patches(x: Array, kernel: Array) -> Array:
        """Every pixel of ``x`` adds its patch to the output; patches overlap."""
        height, width, _, num_filters = kernel.shape
        patches = jnp.einsum("brci,hwif->hwbrcf", x, kernel)
        rows, columns = (size * stride for size in x.shape[1:3])
        low_row, low_column = (
            _transposed_start(side, stride) for side in (height, width)
        )
        total = jnp.zeros((x.shape[0], rows, columns, num_filters), x.dtype)
        for i in range(height):
            for j in range(width):
                # lax's kernel is not flipped: tap i counts from the far end.
                down, right = height - 1 - i - low_row, width - 1 - j - low_column
                spans = [
                    (start, size - start - (stride * (count - 1) + 1), stride - 1)
                    for start, size, count in (
                        (down, rows, x.shape[1]),
                        (right, columns, x.shape[2]),
                    )
                ]
                none = (0, 0, 0)
                zero = jnp.zeros((), x.dtype)
                total += jax.lax.pad(patches[i, j], zero, (none, *spans, none))
        return total

    return jax.lax.platform_dependent(x, kernel, cpu=by_patches, default=by_library)


def _same(size: int, side: int, stride: int) -> tuple[int, tuple[int, int]]:
    """Output size of an axis, and its padding, ``SAME`` as XLA has it.

    The last slice of a strided axis may end beyond the padded axis by less than one
    stride; the padding is exactly what the last patch needs.
    """
    count = -(-size // stride)
    total = max((count - 1) * stride + side - size, 0)
    return count, (total // 2, total - total // 2)


def _transposed_start(side: int, stride: int) -> int:
    """The distance from the start of the patches to that of the output."""
    total = side + stride - 2
    low = side - 1 if stride > side - 1 else -(-total // 2)
    return side - 1 - low


class Conv(nn.Module):
    """``nn.Conv`` with ``SAME`` padding by `convolve`; the same parameters."""

    features: int
    side: int
    stride: int = 1
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = convolve(*_alike(x, kernel), self.stride)
        return _with_bias(self, x) if self.use_bias else x


class ConvTranspose(nn.Module):
    """``nn.ConvTranspose`` with ``SAME`` padding by `convolve_transposed`."""

    features: int
    side: int
    stride: int
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = convolve_transposed(*_alike(x, kernel), self.stride)
        return _with_bias(self, x) if self.use_bias else x


def _alike(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Both in the wider one of their types, as Flax's own layers compute."""
    wider = np.promote_types(x.dtype, kernel.dtype)
    return x.astype(wider), kernel.astype(wider)


def _with_bias(module: nn.Module, x: Array) -> Array:
    bias = module.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
    return x + bias.astype(x.dtype)[None, None, None]
