r"""Measures of the information in an auto-encoder's codes; they show a collapse.

A latent's variance over all images together is that of its conditional mean plus the
mean of its conditional variance (the law of total variance). The share of the first is
that which the image determines: 0 where the code ignores the image. The divergence of
the conditional from the marginal measures the same in nats.
"""

import jax
import jax.numpy as jnp

from dspc_jax.circuit import Circuit
from dspc_jax.ops.numerics import safe_divide
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, PyTree


def code_spread(means: Array, variances: Array) -> Array:
    r"""The share of each latent's variance that the image determines.

    .. math:: \frac{B}{B + W}, \qquad B = \operatorname{Var}_x E[z_l \mid x], \quad
        W = E_x \operatorname{Var}[z_l \mid x]

    Args:
        means: ``[B, ...]``: :math:`E[z \mid x_b]`, at least two images.
        variances: ``[...]``: :math:`W`, or an estimate of it.

    Returns:
        ``[...]`` in [0, 1]: 0 where the code ignores the image, 1 where the image
        determines it. :math:`B + W` is the variance of the codes of all images
        together, that of the model's own :math:`p(z)` where the model fits the data. 0
        for a latent that does not vary at all.

    Raises:
        ValueError: fewer than two images, or shapes that differ.
    """
    means, variances = as_values("means", means), as_values("variances", variances)
    if means.shape[0] < 2:
        raise ValueError(
            f"means must be those of at least two images, got {means.shape[0]}"
        )
    if means.shape[1:] != variances.shape:
        raise ValueError(
            f"variances must have the shape {means.shape[1:]} of one code, got "
            f"{variances.shape}"
        )
    between = jnp.var(means, axis=0, ddof=1)
    total = between + variances
    return safe_divide(between, total)


def active_latents(spread: Array, *, least: float = 0.01) -> Array:
    r"""The number of latents with a `code_spread` above ``least``.

    Args:
        spread: that of every latent, any shape.
        least: the threshold; 0.01 is the source's, which takes the variance of the
            means itself: the same for codes that have variance 1 together.

    Returns:
        The number, a float scalar.

    References:
        Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016,
        section 5.2 (active units).
    """
    return jnp.sum(spread > least).astype(spread.dtype)


def code_divergences(
    circuit: Circuit, params: PyTree, x: Array, z: Array
) -> tuple[Array, Array]:
    r"""Unbiased estimates of two divergences of :math:`p(z \mid x)`, in nats.

    For :math:`z \sim p(z \mid x)`, from exact log-likelihoods:

    .. math:: \log \frac{p(x, z)}{p(x)\, N(z; 0, I)}, \qquad
        \log \frac{p(x, z)}{p(x)\, p(z)}

    Their means over images are :math:`KL(p(z \mid x) \| N(0, I))` and
    :math:`KL(p(z \mid x) \| p(z))`. Each is the mutual information of image and code
    plus the divergence of all images' codes together from N(0, I), or from the
    circuit's own :math:`p(z)`. So both are upper bounds of the mutual information, and
    the second is tight where the circuit fits the images.

    Args:
        circuit: over image and latents.
        params: its parameters.
        x: ``[V, C]``, one image.
        z: ``[L, C]``, a draw from its conditional.

    Returns:
        Two scalars. The second is 0 for every z where the code ignores the image.
    """
    x, z = as_values("x", x), as_values("z", z)
    joint = jnp.concatenate([x, z])
    pixels = jnp.arange(joint.shape[0]) < x.shape[0]
    both, image, code = jax.vmap(circuit.log_prob, (None, None, 0))(
        params, joint, jnp.stack([jnp.ones_like(pixels), pixels, ~pixels])
    )
    conditional = both - image
    return conditional - jnp.sum(jax.scipy.stats.norm.logpdf(z)), conditional - code
