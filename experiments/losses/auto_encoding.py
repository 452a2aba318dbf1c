"""How well images survive the way through their latents, as a term of the mixture."""

from typing import Any, cast

import jax

from dspc_jax.networks import VariationalAutoEncoder
from dspc_jax.objectives import auto_encoding_loss, variational_loss
from experiments.data import Dataset
from experiments.losses.term import Term
from experiments.models import reconstruction
from experiments.models.auto_encoder import AutoEncoder
from experiments.models.generators import NATS


def auto_encoding_term(pae: AutoEncoder, dataset: Dataset) -> Term:
    """The loss of a circuit's auto-encoder.

    Args:
        pae: the circuit, its encoders and decoders.
        dataset: the images.

    Returns:
        The term, ``pae``, in nats a dimension (or squared gray values a dimension).
    """
    settings, image = pae.settings, pae.joint.image
    circuit, codec = pae.joint.circuit, image.codec

    def loss(params, key, x, adversary, sample):
        del adversary
        x, heat = codec.from_unit(x), sample.temperature
        mask_key, key = jax.random.split(key)
        value, metrics = auto_encoding_loss(
            params,
            key,
            x,
            encode=pae.encoder(settings.pae_encode, heat),
            decode=pae.decoder(settings.pae_decode, heat),
            reconstruction=cast(Any, settings.pae_loss),
            target=reconstruction.unit(dataset, codec.to_levels(x)),
            observed=_hide(mask_key, x, settings.pae_missing),
            joint_weight=settings.pae_joint_weight,
            kl_weight=settings.pae_kl_weight,
            log_prob=lambda params, *x: circuit.log_prob(params["circuit"], *x),
            draw=pae.encoder("sample", heat),
        )
        return value / image.num_dims, metrics

    unit = NATS if settings.pae_loss == "bce" else "squared gray values/dimension"
    return Term("pae", loss, draws=False, unit=unit)


def variational_term(network: VariationalAutoEncoder, kl_weight: float) -> Term:
    """The loss of a variational auto-encoder.

    Args:
        network: its functions; the parameters are ``{"network": ...}``.
        kl_weight: weight of the divergence to N(0, I).

    Returns:
        The term, ``vae``, in nats a dimension; it needs no samples.
    """

    def loss(params, key, x, adversary, sample):
        del adversary, sample
        value, metrics = variational_loss(
            params["network"],
            key,
            x,
            encode=network.encode,
            decode=network.decode,
            kl_weight=kl_weight,
        )
        return value / x[0].size, metrics

    return Term("vae", loss, draws=False, unit=NATS)


def _hide(key: jax.Array, x: jax.Array, most: float) -> jax.Array | None:
    """Which pixels ``[B, V]`` the encoder sees; None: all."""
    if not most:
        return None
    share_key, pixel_key = jax.random.split(key)
    share = most * jax.random.uniform(share_key, (len(x), 1))
    return jax.random.uniform(pixel_key, x.shape[:2]) >= share
