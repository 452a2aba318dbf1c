r"""Invertible layers of images and their composition.

Every module here takes ``(x[B, H, W, C], inverse=False)`` and returns ``(y, log_det)``
in the same shape as ``x`` and as ``[B]``: forward, :math:`y = f(x)` and
:math:`\log |\det \partial f / \partial x|` at x; inverse, :math:`y = f^{-1}(x)` and the
log-determinant of f at y. Log-determinants are sums of parameters and of outputs of
networks, so they are exact and finite, and no value of the parameters is singular.

The matrix products of the maps run in full float32. Those of the conditioners must do
so as well, since the inverse repeats them: see `dspc_jax.flows.ladder`.
"""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from dspc_jax.networks.convolutions import Conv
from dspc_jax.types import Array

_LEAST_DEVIATION = 1e-3  # channels that vary less are not scaled up to variance 1


class ActNorm(nn.Module):
    """``y = (x + bias) exp(log_scale)``, channel by channel.

    Its parameters are initialized from values: means become 0 and deviations 1 (where
    they are above 0.001).

    References:
        Kingma and Dhariwal, "Glow", NeurIPS 2018, section 3.1.
    """

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        def spread(_):
            return -jnp.log(jnp.maximum(jnp.std(x, (0, 1, 2)), _LEAST_DEVIATION))

        bias = self.param("bias", lambda _: -jnp.mean(x, (0, 1, 2)))[None, None, None]
        log_scale = self.param("log_scale", spread)
        scale = jnp.exp(-log_scale if inverse else log_scale)[None, None, None]
        y = x * scale - bias if inverse else (x + bias) * scale
        return y, _same_everywhere(jnp.sum(log_scale), x)


class Linear(nn.Module):
    r"""``y = x U L`` at every pixel: an invertible 1x1 convolution; starts as identity.

    :math:`L` is lower triangular with ones on its diagonal, :math:`U` upper triangular
    with a positive one. One array ``lu`` holds both, as in LAPACK, with the logarithm
    of U's diagonal, whose sum is the log-determinant. A matrix has such factors if all
    its trailing minors are positive; the source's fixed permutation is left out, so
    that features start in their places.

    References:
        Kingma and Dhariwal, "Glow", NeurIPS 2018, section 3.2, equations (10) and (11).
    """

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        num_channels = x.shape[-1]
        lu = self.param("lu", nn.initializers.zeros, (num_channels, num_channels))
        log_diagonal = jnp.diagonal(lu)
        lower = jnp.tril(lu, -1) + jnp.eye(num_channels, dtype=lu.dtype)
        upper = jnp.triu(lu, 1) + jnp.diag(jnp.exp(log_diagonal))
        matrix = jnp.matmul(upper, lower, precision="highest")
        if inverse:
            matrix = jnp.linalg.inv(matrix)
        y = jnp.matmul(x, matrix, precision="highest")
        return y, _same_everywhere(jnp.sum(log_diagonal), x)


class Coupling(nn.Module):
    r"""Half of the channels, scaled and shifted by functions of the other half.

    .. math:: y_a = x_a, \quad y_b = x_b \odot \exp(\tanh s(x_a)) + t(x_a)

    with a network ``(s, t)`` of three convolutions. The last of them starts at 0, so
    the map starts as the identity.

    Attributes:
        width: filters of the two hidden convolutions.
        side: side of the first and the last kernel; 1 keeps pixels apart.
        flip: whether the second half (the smaller one, if they differ) stays fixed.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017,
        equations (4) to (8).
    """

    width: int
    side: int
    flip: bool

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        first, second = _halves(x)
        condition, target = (second, first) if self.flip else (first, second)
        init = nn.initializers.he_normal()
        hidden = nn.relu(Conv(self.width, self.side, kernel_init=init)(condition))
        hidden = nn.relu(Conv(self.width, 1, kernel_init=init)(hidden))
        last = Conv(2 * target.shape[-1], self.side, kernel_init=nn.initializers.zeros)
        shift, log_scale = jnp.split(last(hidden), 2, axis=-1)
        log_scale = jnp.tanh(log_scale)
        if inverse:
            target = (target - shift) * jnp.exp(-log_scale)
        else:
            target = target * jnp.exp(log_scale) + shift
        halves = (target, condition) if self.flip else (condition, target)
        return jnp.concatenate(halves, -1), jnp.sum(log_scale, (1, 2, 3))


class Chain(nn.Module):
    """One layer after the other; the identity without layers."""

    layers: tuple[nn.Module, ...]

    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        log_det = jnp.zeros(x.shape[0], x.dtype)
        for layer in reversed(self.layers) if inverse else self.layers:
            x, term = layer(x, inverse)
            log_det = log_det + term
        return x, log_det


class Squeezed(nn.Module):
    """A layer that sees each square of pixels as the channels of one; see `squeeze`."""

    factor: int
    layer: nn.Module

    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        y, log_det = self.layer(squeeze(x, self.factor), inverse)
        return unsqueeze(y, self.factor), log_det


class OnSecondHalf(nn.Module):
    """A layer for the second half of the channels; the first one is factored out."""

    layer: nn.Module

    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:  # noqa: D102
        first, second = _halves(x)
        second, log_det = self.layer(second, inverse)
        return jnp.concatenate([first, second], -1), log_det


def steps(num_steps: int, width: int, side: int) -> tuple[nn.Module, ...]:
    """Steps of flow as in Glow: `ActNorm`, `Linear`, `Coupling` of alternating halves.

    Args:
        num_steps: number of steps.
        width: filters of the couplings' networks.
        side: side of their kernels.

    Returns:
        The layers, three a step.
    """
    layers: list[nn.Module] = []
    for i in range(num_steps):
        layers += [ActNorm(), Linear(), Coupling(width, side, flip=i % 2 == 1)]
    return tuple(layers)


def multi_scale(
    num_levels: int, num_steps: int, width: int, side: int = 3
) -> nn.Module:
    """Steps on squares of 2x2 pixels, then the same again for half of their channels.

    The channels that a level factors out keep their places among the pixels.

    Args:
        num_levels: number of levels; both sides of the image must be multiples of
            ``2**num_levels``.
        num_steps: steps of each level.
        width: filters of the couplings' networks.
        side: side of their kernels.

    Returns:
        The layer.

    References:
        Dinh et al., "Density estimation using Real NVP", ICLR 2017, section 3.6.
    """
    layers = steps(num_steps, width, side)
    if num_levels > 1:
        layers += (OnSecondHalf(multi_scale(num_levels - 1, num_steps, width, side)),)
    return Squeezed(2, Chain(layers))


def squeeze(x: Array, factor: int) -> Array:
    """Squares of pixels as channels, in the order of a chessboard's black and white.

    Halves of the channels of a 2x2 square are its two diagonals, so that every pixel of
    either half has neighbors on all sides in the other, at any level.

    Args:
        x: ``[B, H, W, C]``, sides multiples of ``factor``.
        factor: f.

    Returns:
        ``[B, H / f, W / f, f * f * C]``; `unsqueeze` is the inverse.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // factor, width // factor
    x = x.reshape(batch, rows, factor, columns, factor, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1, channels)
    return x[:, :, :, _chessboard(factor)].reshape(batch, rows, columns, -1)


def unsqueeze(x: Array, factor: int) -> Array:
    """The inverse of `squeeze`: ``[B, H, W, f * f * C] -> [B, H f, W f, C]``."""
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, factor**2, -1)
    x = x[:, :, :, np.argsort(_chessboard(factor))]
    x = x.reshape(batch, rows, columns, factor, factor, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * factor, columns * factor, -1)


def _chessboard(factor: int) -> np.ndarray:
    """Numbers of a square's pixels, the black ones first."""
    return np.argsort(np.indices((factor, factor)).sum(0).ravel() % 2, kind="stable")


def _halves(x: Array) -> tuple[Array, Array]:
    """Channels in two; the first half is the larger one if their number is odd."""
    middle = (x.shape[-1] + 1) // 2
    return x[..., :middle], x[..., middle:]


def _same_everywhere(log_det: Array, x: Array) -> Array:
    """The log-determinants ``[B]`` of a map that is the same at every pixel."""
    return jnp.full(x.shape[0], log_det * (x.shape[1] * x.shape[2]))
