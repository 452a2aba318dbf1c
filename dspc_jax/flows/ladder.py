r"""A ladder of flows, each an invertible map of images with an exact log-determinant.

=====================  ================================  ============================
flow                   a block (see `Flow`)              the map
=====================  ================================  ============================
`identity_flow`        a pixel                           none
`color_flow`           a pixel                           affine
`patch_flow`           a square of pixels                nonlinear inside the square
`multi_scale_flow`     the image                         nonlinear
`after_logit`          as the flow it comes before       a logit of every value
=====================  ================================  ============================

A flow of squares is a flow of small images: the squares of all images are one batch, so
they share weights, and none depends on values of another.

All products run in full float32, those of the couplings' networks as well. An inverse
computes these networks again, from values that agree up to rounding; products that
round their inputs to fewer digits would not agree.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.arguments import real_number
from dspc_jax.flows.coupling import (
    ActNorm,
    Chain,
    Linear,
    Squeezed,
    multi_scale,
    steps,
)
from dspc_jax.flows.flow import Flow, configured
from dspc_jax.networks.layers import check_counts
from dspc_jax.structure.pieces import ROW_TYPE
from dspc_jax.types import Array, Key, PyTree


@configured
def identity_flow(height: int, width: int, num_channels: int = 1) -> Flow:
    """Features that are the values: every query of the circuit keeps its meaning.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.

    Returns:
        A `Flow` without parameters (``{}``).

    Raises:
        ValueError: an argument below 1, or, on use, images of another size.
    """
    check_counts(height=height, width=width, num_channels=num_channels)
    shape = (height, width, num_channels)
    return _bind("identity_flow", Chain(()), shape, (1, 1), affine=True)


@configured
def color_flow(height: int, width: int, num_channels: int = 3) -> Flow:
    """One affine map of the channels of every pixel, the same for all pixels.

    It starts by bringing every channel to mean 0 and variance 1.

    Args:
        height: pixel rows.
        width: pixel columns.
        num_channels: C.

    Returns:
        A `Flow`.

    Raises:
        ValueError: an argument below 1, or, on use, images of another size.
    """
    check_counts(height=height, width=width, num_channels=num_channels)
    shape = (height, width, num_channels)
    layer = Chain((ActNorm(), Linear()))
    return _bind("color_flow", layer, shape, (1, 1), affine=True)


@configured
def patch_flow(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    patch: int = 4,
    num_steps: int = 4,
    num_filters: int = 128,
) -> Flow:
    """Couplings inside of every square of p x p pixels, the same for all squares.

    A square is one vector of p * p * C values, taken through steps of normalization, an
    invertible matrix and an affine coupling, whose networks are fully connected. At the
    start all steps but the normalizations are the identity. They bring every place of
    a square to mean 0 and variance 1 over squares and images.

    Args:
        height: pixel rows, a multiple of p.
        width: pixel columns, a multiple of p.
        num_channels: C.
        patch: p; 1 couples the channels of a pixel.
        num_steps: steps of flow.
        num_filters: units of the two hidden layers of every coupling.

    Returns:
        A `Flow` whose blocks are the squares, row by row.

    Raises:
        ValueError: an argument below 1, sides that are no multiples of p, a single
            value in a square, or, on use, images of another size.
    """
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        patch=patch,
        num_steps=num_steps,
        num_filters=num_filters,
    )
    if height % patch or width % patch:
        raise ValueError(
            f"patch must divide height and width, got {patch} for {height}x{width}"
        )
    if patch**2 * num_channels < 2:
        raise ValueError(
            "patch must be at least 2 for one channel (couplings need two values), "
            f"got {patch}"
        )
    layer = Squeezed(patch, Chain(steps(num_steps, num_filters, side=1)))
    shape = (height, width, num_channels)
    name = f"patch_flow(patch={patch})"
    return _bind(name, layer, shape, (patch, patch), affine=False)


@configured
def multi_scale_flow(
    height: int,
    width: int,
    num_channels: int = 1,
    *,
    num_levels: int | None = None,
    num_steps: int = 4,
    num_filters: int = 64,
) -> Flow:
    """The multi-scale architecture of Real NVP with the steps of Glow.

    A level sees 2x2 pixels as the channels of one, takes its steps, factors half of the
    channels out as features, and leaves the other half to the next level. A feature has
    the place of the pixel whose value it is at the start, when all steps but the
    normalizations are the identity.

    Args:
        height: pixel rows, a multiple of ``2**num_levels``.
        width: pixel columns, a multiple of ``2**num_levels``.
        num_channels: C.
        num_levels: number of levels; None: as many as the sides allow, at most 3 (as
            Glow has for images of 32x32 pixels).
        num_steps: steps of each level.
        num_filters: filters of the two hidden convolutions of every coupling.

    Returns:
        A `Flow` of one block, the image.

    Raises:
        ValueError: an argument below 1, sides that are no multiples of
            ``2**num_levels``, or, on use, images of another size.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
        Kingma and Dhariwal, "Glow", NeurIPS 2018.
    """
    if num_levels is None:
        num_levels = max(1, *(i for i in range(4) if _halve(height, width, i)))
    check_counts(
        height=height,
        width=width,
        num_channels=num_channels,
        num_levels=num_levels,
        num_steps=num_steps,
        num_filters=num_filters,
    )
    if not _halve(height, width, num_levels):
        raise ValueError(
            f"height and width must be multiples of 2**num_levels = {2**num_levels}, "
            f"got {height}x{width}"
        )
    layer = multi_scale(num_levels, num_steps, num_filters)
    shape = (height, width, num_channels)
    return _bind("multi_scale_flow", layer, shape, (height, width), affine=False)


@configured
def after_logit(flow: Flow, *, alpha: float = 0.05) -> Flow:
    r"""A flow that sees the logit of every value in place of the value.

    .. math:: y = \operatorname{logit}(\alpha + (1 - 2 \alpha) x), \quad
      \log \frac{dy}{dx} = \log(1 - 2 \alpha) - \log u - \log (1 - u),
      \quad u = \alpha + (1 - 2 \alpha) x

    so samples are bounded: they lie within :math:`\alpha / (1 - 2 \alpha)` of [0, 1].

    Args:
        flow: the flow of the logits.
        alpha: in (0, 1/2); the source's is 0.05.

    Returns:
        A `Flow` with the blocks and the parameters of ``flow``, and not affine. Values
        beyond the bounds have ``log_det = -inf``, a density of 0, and no gradient.

    Raises:
        ValueError: alpha is not between 0 and 1/2.

    References:
        Dinh et al., "Density estimation using Real NVP", ICLR 2017, section 4.1 (with
        :math:`1 - \alpha`, for values that end at 1 - 1/256).
    """
    alpha = real_number("alpha", alpha)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha}")
    slope = 1 - 2 * alpha
    blocks = np.asarray(flow.blocks, ROW_TYPE)

    def to_logit(x: Array) -> tuple[Array, Array]:
        u = alpha + slope * x
        outside = (u <= 0) | (u >= 1)
        u = jnp.where(outside, 0.5, u)
        log_u, log_rest = jnp.log(u), jnp.log1p(-u)
        log_slope = math.log(slope) - log_u - log_rest
        log_slope = jnp.where(outside, -jnp.inf, log_slope)
        per_block = jnp.zeros((x.shape[0], flow.num_blocks), x.dtype)
        per_block = per_block.at[:, blocks].add(jnp.sum(log_slope, -1))
        return log_u - log_rest, per_block

    def forward(params: PyTree, x: Array) -> tuple[Array, Array]:
        y, log_slope = to_logit(x)
        features, log_det = flow.forward(params, y)
        return features, log_slope + log_det

    return flow._replace(
        name=f"after_logit({flow.name})",
        init=lambda key, x: flow.init(key, to_logit(x)[0]),
        forward=forward,
        inverse=lambda params, features: (
            (jax.nn.sigmoid(flow.inverse(params, features)) - alpha) / slope
        ),
        affine=False,
    )


def _halve(height: int, width: int, times: int) -> bool:
    return height % 2**times == 0 and width % 2**times == 0


def _bind(
    name: str,
    layer: nn.Module,
    image_shape: tuple[int, int, int],
    patch: tuple[int, int],
    *,
    affine: bool,
) -> Flow:
    """The flow that takes every patch of an image through one layer."""
    height, width, num_channels = image_shape
    example_shape = (height * width, num_channels)
    rows, columns = height // patch[0], width // patch[1]
    numbers = np.arange(rows * columns).reshape(rows, columns)
    blocks = np.kron(numbers, np.ones(patch, int)).ravel()

    def to_patches(x: Array) -> Array:
        if x.ndim != 3 or x.shape[1:] != example_shape:
            raise ValueError(
                f"examples must have the shape {example_shape}, got {x.shape}"
            )
        x = x.reshape(-1, rows, patch[0], columns, patch[1], num_channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *patch, num_channels)

    def to_examples(patches: Array) -> Array:
        x = patches.reshape(-1, rows, columns, *patch, num_channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *example_shape)

    def init(key: Key, x: Array) -> PyTree:
        return layer.init(key, to_patches(x))

    def through(params: PyTree, x: Array, inverse: bool) -> tuple[Array, Array]:
        with jax.default_matmul_precision("highest"):
            out: Any = layer.apply(params, to_patches(x), inverse)
        return to_examples(out[0]), out[1].reshape(-1, rows * columns)

    forward: Callable[..., Any] = functools.partial(through, inverse=False)
    return Flow(
        name=name,
        init=init,
        forward=forward,
        inverse=lambda params, features: through(params, features, True)[0],
        blocks=tuple(int(block) for block in blocks),
        affine=affine,
    )
