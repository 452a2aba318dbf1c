r"""Probabilistic auto-encoding with one circuit over images and latents.

A circuit :math:`p(x, z)` encodes by its conditional :math:`p(z \mid x)` and decodes by
:math:`p(x \mid z)`; both are exact, for any missing pixels, and differentiable. The
variables are those of `dspc_jax.structure.latents.with_latents`: the image first, then
the latents.

An *encoder* is ``(params, key, x[V, C], observed[V] | None) -> z[L, C]``, a *decoder*
``(params, key, z[L, C]) -> [V, C]``, one example per call; either may be a network.

References:
    Lang et al. 2022, section 3.3 (PAE).
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from dspc_jax.circuit import Circuit
from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree

Encoder: TypeAlias = Callable[[Any, Array, Array, Array | None], Array]
Decoder: TypeAlias = Callable[[Any, Array, Array], Array]

ENCODINGS = ("mean", "mpe", "sample")
DECODINGS = ("mean", "leaf_mean", "sample")
RECONSTRUCTIONS = ("bce", "mse")


def circuit_encoder(
    circuit: Circuit,
    method: Literal["mean", "mpe", "sample"],
    *,
    relaxation: str = "straight_through",
    temperature: Array | float = 1.0,
) -> Encoder:
    r"""The circuit's conditional over its latents, as an encoder.

    - ``mean``: :math:`E[z \mid x]`, exact and deterministic.
    - ``mpe``: the latents of the most probable explanation (the paper's), in value;
      the gradient is that of the conditional mean, which the explanation's discrete
      choices do not have.
    - ``sample``: a draw from :math:`p(z \mid x)`, with the relaxation's gradient.

    Args:
        circuit: over image and latents.
        method: see above.
        relaxation: relaxation of ``sample``.
        temperature: temperature of ``sample``; may be traced.

    Returns:
        ``(params, key, x[V, C], observed[V] | None) -> z[L, C]``; pixels that are not
        observed are integrated out. The circuit has V + L variables.

    Raises:
        ValueError: an unknown method; on use, an example of all variables.
    """
    _check("method", method, ENCODINGS)

    def encode(
        params: PyTree, key: Key, x: Array, observed: Array | None = None
    ) -> Array:
        x = as_values("x", x)
        joint, known = _join(circuit, x, observed)
        num_pixels = x.shape[0]
        if method == "sample":
            return circuit.sample_differentiable(
                key,
                params,
                relaxation=relaxation,
                temperature=temperature,
                x=joint,
                observed=known,
            )[num_pixels:]
        mean = circuit.mean(params, joint, known)[num_pixels:]
        if method == "mean":
            return mean
        best = circuit.mpe(params, joint, known)[num_pixels:]
        return mean + jax.lax.stop_gradient(best - mean)

    return encode


def circuit_decoder(
    circuit: Circuit,
    method: Literal["mean", "leaf_mean", "sample"],
    *,
    relaxation: str = "straight_through",
    temperature: Array | float = 1.0,
) -> Decoder:
    r"""The circuit's conditional over the image, as a decoder.

    - ``mean``: :math:`E[x \mid z]`, exact and deterministic.
    - ``leaf_mean``: the means of the leaves that a differentiable conditional sample
      chooses.
    - ``sample``: a differentiable sample of :math:`p(x \mid z)`, leaf noise included
      (the paper's).

    Args:
        circuit: over image and latents.
        method: see above.
        relaxation: relaxation of ``leaf_mean`` and ``sample``.
        temperature: their temperature; may be traced.

    Returns:
        ``(params, key, z[L, C]) -> [V, C]`` in the units of the image's leaves.

    Raises:
        ValueError: an unknown method; on use, as many latents as variables.
    """
    _check("method", method, DECODINGS)

    def decode(params: PyTree, key: Key, z: Array) -> Array:
        z = as_values("z", z)
        num_pixels = _num_others(circuit, "z", z)
        joint = jnp.concatenate([jnp.zeros((num_pixels, z.shape[1]), z.dtype), z])
        known = jnp.arange(joint.shape[0]) >= num_pixels
        if method == "mean":
            return circuit.mean(params, joint, known)[:num_pixels]
        return circuit.sample_differentiable(
            key,
            params,
            relaxation=relaxation,
            temperature=temperature,
            x=joint,
            observed=known,
            leaf_mode="mean" if method == "leaf_mean" else "sample",
        )[:num_pixels]

    return decode


def bernoulli_cross_entropy(
    target: Array, mean: Array, *, epsilon: float = 1e-3
) -> Array:
    r"""The cross-entropy of gray values, summed over all axes but the first.

    .. math:: -\sum_i t_i \log m_i + (1 - t_i) \log (1 - m_i)

    with :math:`m` clipped into :math:`[\epsilon, 1 - \epsilon]`. A flat
    :math:`m = 1/2` costs :math:`\log 2` a value, 543.4 nats on 28x28 pixels.

    Args:
        target: ``[B, ...]`` in [0, 1].
        mean: ``[B, ...]``, the decoder's. Where it is clipped, only a gradient that
            leads back into the range passes.
        epsilon: in (0, 1/2); a certain pixel that is wrong costs
            :math:`-\log \epsilon`.

    Returns:
        ``[B]``, nats.
    """
    target, mean = as_values("target", target), as_values("mean", mean)
    mean = _clip(mean, epsilon, 1 - epsilon)
    entropy = target * jnp.log(mean) + (1 - target) * jnp.log1p(-mean)
    return -jnp.sum(entropy.reshape(entropy.shape[0], -1), axis=1)


def squared_error(target: Array, mean: Array) -> Array:
    """The squared error summed over all axes but the first, ``[B]``."""
    target, mean = as_values("target", target), as_values("mean", mean)
    return jnp.sum(((target - mean) ** 2).reshape(target.shape[0], -1), axis=1)


def auto_encoding_loss(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    encode: Encoder,
    decode: Decoder,
    reconstruction: Literal["bce", "mse"] = "bce",
    target: Array | None = None,
    observed: Array | None = None,
    epsilon: float = 1e-3,
    joint_weight: float = 0.0,
    ll_weight: float = 0.0,
    kl_weight: float = 0.0,
    log_prob: Callable[..., Array] | None = None,
    draw: Encoder | None = None,
) -> tuple[Array, Metrics]:
    r"""The reconstruction error of images from their latents, and three optional terms.

    .. math:: L = \frac1B \sum_b \ell(t_b, d(e(x_b))) - w_j \log p(x_b, e(x_b))
        - w_l \log p(x_b) + w_k \big(\log p(x_b, z_b) - \log p(x_b) - \log N(z_b; 0, I)
        \big), \quad z_b \sim p(z \mid x_b)

    The last term is an unbiased estimate of :math:`KL(p(z \mid x_b) \| N(0, I))` from
    exact log-likelihoods, which only a tractable model has. In the joint likelihood the
    latents are held fixed: gradients through them would pay for pulling all codes
    together. For an encoder that samples its gradient is then, in the mean, that of
    :math:`\log p(x)`.

    Args:
        params: parameters of encoder and decoder.
        key: one typed key.
        batch: ``[B, V, C]`` in the units of the leaves.
        encode: an `Encoder`.
        decode: a `Decoder`, in the units of ``target``.
        reconstruction: ``"bce"``, `bernoulli_cross_entropy`, or ``"mse"``,
            `squared_error`; both summed over the image.
        target: ``[B, V, C]`` to be reconstructed, all of it; the batch by default.
            Values in [0, 1] for ``"bce"``.
        observed: bool ``[B, V]``, the pixels that the encoder sees; None: all.
        epsilon: see `bernoulli_cross_entropy`.
        joint_weight: :math:`w_j`, of the negative log-likelihood of image and code.
        ll_weight: :math:`w_l`, of that of the image's observed pixels.
        kl_weight: :math:`w_k`.
        log_prob: ``(params, x[V + L, C], observed[V + L] | None) -> nats``, the joint
            circuit's; needed where a weight is not 0.
        draw: an encoder that samples, for the KL; needed with ``kl_weight``.

    Returns:
        The loss in nats an image, and the metrics ``reconstruction`` and, where
        weighted, ``joint_ll``, ``ll`` and ``kl``, unweighted means. With ``observed``
        the terms are those of the observed pixels.

    Raises:
        ValueError: an unknown reconstruction, a missing function, or shapes that
            differ.
    """
    _check("reconstruction", reconstruction, RECONSTRUCTIONS)
    if (joint_weight or ll_weight or kl_weight) and log_prob is None:
        raise ValueError("log_prob must be given with a weighted likelihood, got None")
    if kl_weight and draw is None:
        raise ValueError("draw must be given with kl_weight, got None")
    batch = as_values("batch", batch)
    target = batch if target is None else as_values("target", target)
    encode_key, decode_key, draw_key = jax.random.split(key, 3)
    num_images = batch.shape[0]
    codes = _each(encode, params, encode_key, batch, observed)
    decoded = jax.vmap(decode, (None, 0, 0))(
        params, jax.random.split(decode_key, num_images), codes
    )
    if decoded.shape != target.shape:
        raise ValueError(
            f"target must have the shape of decoded images, {decoded.shape}, got "
            f"{target.shape}"
        )
    if reconstruction == "bce":
        per_image = bernoulli_cross_entropy(target, decoded, epsilon=epsilon)
    else:
        per_image = squared_error(target, decoded)
    loss = jnp.mean(per_image)
    metrics = {"reconstruction": loss}

    def joint(z):
        assert log_prob is not None
        x = jnp.concatenate([batch, z], axis=1)
        if observed is None:
            return jax.vmap(log_prob, (None, 0))(params, x)
        known = jnp.concatenate([observed, jnp.ones(z.shape[:2], bool)], axis=1)
        return jax.vmap(log_prob, (None, 0, 0))(params, x, known)

    def alone():
        assert log_prob is not None
        x = jnp.concatenate([batch, jnp.zeros_like(codes)], axis=1)
        known = jnp.ones(batch.shape[:2], bool) if observed is None else observed
        known = jnp.concatenate([known, jnp.zeros(codes.shape[:2], bool)], axis=1)
        return jax.vmap(log_prob, (None, 0, 0))(params, x, known)

    if joint_weight:
        metrics["joint_ll"] = jnp.mean(joint(jax.lax.stop_gradient(codes)))
        loss = loss - joint_weight * metrics["joint_ll"]
    if ll_weight or kl_weight:
        metrics["ll"] = jnp.mean(alone())
        loss = loss - ll_weight * metrics["ll"]
    if kl_weight:
        assert draw is not None
        z = _each(draw, params, draw_key, batch, observed)
        prior = jax.scipy.stats.norm.logpdf(z).reshape(num_images, -1).sum(axis=1)
        metrics["kl"] = jnp.mean(joint(z) - prior) - metrics["ll"]
        loss = loss + kl_weight * metrics["kl"]
    return loss, metrics


def _each(encode, params, key, batch, observed):
    keys = jax.random.split(key, batch.shape[0])
    if observed is None:
        return jax.vmap(lambda k, x: encode(params, k, x, None))(keys, batch)
    return jax.vmap(encode, (None, 0, 0, 0))(params, keys, batch, observed)


def _num_others(circuit: Circuit, name: str, part: Array) -> int:
    """The number of the circuit's variables beside those of ``part``."""
    total = circuit.config.structure.num_variables
    if not 0 < part.shape[0] < total:
        raise ValueError(
            f"{name} must leave some of the circuit's {total} variables over, got "
            f"{part.shape[0]}"
        )
    return total - part.shape[0]


def _join(circuit: Circuit, x: Array, observed: Array | None) -> tuple[Array, Array]:
    """The image followed by latents that are not observed."""
    num_latents = _num_others(circuit, "x", x)
    known = jnp.ones(x.shape[0], bool) if observed is None else observed
    return (
        jnp.concatenate([x, jnp.zeros((num_latents, x.shape[1]), x.dtype)]),
        jnp.concatenate([known, jnp.zeros(num_latents, bool)]),
    )


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


@Differentiable
def _clip(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


def _clip_fwd(x, low, high):
    return _clip(x, low, high), (x, low, high)


def _clip_bwd(residuals, g):
    x, low, high = residuals
    # A step against g moves x up where g is negative.
    leads_out = ((x < low) & (g > 0)) | ((x > high) & (g < 0))
    return jnp.where(leads_out, 0.0, g), jnp.zeros_like(low), jnp.zeros_like(high)


_clip.defvjp(
    _clip_fwd, _clip_bwd, "its derivative depends on the direction of the gradient"
)
