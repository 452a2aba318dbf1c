"""A circuit over images and latents as its own auto-encoder, as the programs see it."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp

import dspc_jax as pc
from dspc_jax.networks import (
    NetworkGenerator,
    convolutional_generator,
    count_params,
    mlp_generator,
)
from dspc_jax.objectives import (
    SCORE_ESTIMATORS,
    Decoder,
    Encoder,
    circuit_decoder,
    circuit_encoder,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.models import circuit as model
from experiments.models import (
    code_usage,
    generators,
    joint_circuit,
    reconstruction,
    temperature,
)
from experiments.models.generators import Generator


@dataclasses.dataclass(frozen=True)
class PaeSettings:
    """The flags of probabilistic auto-encoding."""

    pae_latents: int = flags.flag(
        64, "latents, shared out among the regions of the image", flags.at_least(1)
    )
    pae_patch: int | None = flags.flag(
        None,
        "side of the quad tree's input regions in pixels (default: the least, from 2 "
        "on, for which each region has a latent of its own)",
        flags.at_least(1),
        kind=int,
    )
    pae_encode: str = flags.flag(
        "mean",
        "latents of an image: their conditional mean, the most probable explanation "
        "(mpe), or a differentiable sample",
        flags.one_of("mean", "mpe", "sample"),
    )
    pae_decode: str = flags.flag(
        "mean",
        "image of latents in training: its conditional mean, the means of sampled "
        "leaves (leaf_mean), a differentiable sample, or what a network makes of them",
        flags.one_of("mean", "leaf_mean", "sample", "network"),
    )
    pae_loss: str = flags.flag(
        "bce",
        "binary cross-entropy of gray values, or squared error (mse)",
        flags.one_of("bce", "mse"),
    )
    pae_joint_weight: float = flags.flag(
        0.0,
        "weight of the negative log-likelihood of image and latents (that of the image "
        "alone is --ll_weight)",
        flags.at_least(0),
    )
    pae_kl_weight: float = flags.flag(
        0.0,
        "weight of the divergence of p(z | x) from N(0, I)",
        flags.at_least(0),
    )
    pae_missing: float = flags.flag(
        0.0,
        "greatest share of pixels that the encoder does not see in training, drawn "
        "anew for each image",
        flags.at_least(0),
    )
    pae_latent_scale: float = flags.flag(
        0.2, "deviation of the latents' leaves at the start", flags.above(0)
    )
    pae_latent_min_scale: float = flags.flag(
        0.02, "least deviation of the latents' leaves", flags.above(0)
    )
    pae_latent_max_scale: float = flags.flag(
        2.0, "greatest deviation of the latents' leaves", flags.above(0)
    )
    pae_network: str = flags.flag(
        "mlp",
        "network of --pae_decode=network: fully connected or convolutional (conv)",
        flags.one_of("mlp", "conv"),
        only={"pae_decode": ["network"]},
    )
    pae_network_width: int = flags.flag(
        64,
        "its units in the first hidden layer, or filters in the last",
        flags.at_least(1),
        only={"pae_decode": ["network"]},
    )


OF_CODES = (
    *("pae_latents", "pae_patch", "pae_decode", "pae_network", "pae_network_width"),
)
"""Flags that decide how many numbers an auto-encoder learns."""
OF_TRAINING = tuple(
    field.name for field in flags.fields_of([PaeSettings]) if field.name not in OF_CODES
)
"""The others: how it is trained and used."""


class AutoEncoder:
    """The circuit, and the network that may decode for it, as what is trained.

    Its parameters are ``{"circuit": ...}``, ``network`` and a learned ``temperature``
    where there are any.

    Attributes:
        joint: the circuit over image and latents.
        settings: the flags of auto-encoding.
    """

    def __init__(self, settings: Settings, pae: PaeSettings, dataset: Dataset):
        """Builds it.

        Args:
            settings: the shared flags.
            pae: those of auto-encoding.
            dataset: the images.

        Raises:
            UserError: the flags describe no circuit on these images.
        """
        least, greatest = pae.pae_latent_min_scale, pae.pae_latent_max_scale
        if least >= greatest:
            raise UserError(
                "--pae_latent_min_scale must be below "
                f"--pae_latent_max_scale={greatest}, got {least}"
            )
        if settings.relaxation in SCORE_ESTIMATORS:
            raise UserError(
                "--relaxation must relax the choices of a sample here (an auto-encoder "
                f"is no loss on a set of samples), got {settings.relaxation!r}"
            )
        self.settings = pae
        self.joint = joint_circuit.make_joint_model(
            settings,
            dataset,
            num_latents=pae.pae_latents,
            patch=pae.pae_patch,
            latent_leaf=pc.Normal(least, greatest, init_mean=(0.0, 1.0)),
            latent_scale=pae.pae_latent_scale,
        )
        self._shared, self._dataset = settings, dataset
        self._network = _network(pae, dataset)

    @property
    def num_params(self) -> int:
        """How many numbers are learned, circuit and network together."""
        network = 0 if self._network is None else self._network.num_params()
        return count_params(self.joint.circuit.init) + network

    def encoder(self, method: str, heat: jax.Array | float = 1.0) -> Encoder:
        """To latents: ``(params, key, x[V, C], observed) -> [L, C]``."""
        encode = circuit_encoder(
            self.joint.circuit,
            cast(Any, method),
            relaxation=self._shared.relaxation,
            temperature=heat,
        )
        return lambda params, *rest: encode(params["circuit"], *rest)

    def decoder(self, method: str, heat: jax.Array | float = 1.0) -> Decoder:
        """To gray values: ``(params, key, z[L, C]) -> [V, C]``."""
        network = self._network
        if network is not None:
            return lambda params, key, z: network.generate(
                params["network"], z.reshape(1, -1)
            )[0]
        decode = circuit_decoder(
            self.joint.circuit,
            cast(Any, method),
            relaxation=self._shared.relaxation,
            temperature=heat,
        )
        to_unit = self.joint.image.codec.to_unit
        return lambda params, key, z: to_unit(decode(params["circuit"], key, z))

    def reconstruct(self, params, key, levels, observed):
        """Encodes as in training, decodes to the mean; see `reconstruction`."""
        noise_key, encode_key, decode_key = jax.random.split(key, 3)
        x = self.joint.image.codec.encode(noise_key, levels)
        if observed is None:
            observed = jnp.ones(x.shape[:2], bool)
        z = jax.vmap(self.encoder(self.settings.pae_encode), (None, 0, 0, 0))(
            params, jax.random.split(encode_key, len(x)), x, observed
        )
        return self._decode(params, decode_key, z)

    def complete(self, params, key, levels, observed):
        """E[x | observed pixels], exact and without a code; see `reconstruction`.

        It is the mean over codes z of E[x | z, observed pixels]: no single code does
        better, nor does a decoder that knows the code alone.
        """
        filled = model.complete(self.joint.image, params, key, levels, observed)
        return filled["mean"]

    def generator(self, num_steps_before: int = 0) -> Generator:
        """The circuit as what is trained through samples.

        Args:
            num_steps_before: steps before the temperature schedule begins.

        Returns:
            The generator, of images.

        Raises:
            UserError: the circuit has no differentiable samples.
        """
        generator = generators.of_circuit(
            self._shared, self.joint.image, num_steps_before
        )
        return generator._replace(
            init=self._init, evaluate=self._evaluate, pictures=self._pictures
        )

    def _init(self, key):
        circuit_key, network_key = jax.random.split(key)
        params = joint_circuit.init(self.joint, circuit_key)
        if self._network is not None:
            params["network"] = self._network.init(network_key)
        return params | temperature.init(self._shared)

    def _evaluate(self, params, key, levels):
        image_key, code_key, key = jax.random.split(key, 3)
        return (
            model.evaluate(self.joint.image, params, image_key, levels)
            | {"num_params": jnp.float32(self.num_params)}
            | code_usage.evaluate(self.joint, params, code_key, levels)
            | reconstruction.evaluate(
                self.reconstruct, self._dataset, params, key, levels, self.complete
            )
        )

    def _pictures(self, params, key, num):
        real_key, own_key, prior_key, sample_key, decode_key = jax.random.split(key, 5)
        circuit, dataset = self.joint.circuit, self._dataset
        num_pixels = dataset.height * dataset.width
        ways = model.with_sharpness(
            self._shared.sharpness, {"decoded, z of the circuit": {}}
        )

        def codes(options):
            def sample(key):
                return circuit.sample(key, params["circuit"], **options)[num_pixels:]

            return jax.vmap(sample)(jax.random.split(jax.random.clone(own_key), num))

        drawn = {title: (sample_key, codes(way)) for title, way in ways.items()}
        own = drawn["decoded, z of the circuit"][1]
        prior = jax.random.normal(prior_key, own.shape)
        drawn["decoded, z from N(0, 1)"] = decode_key, prior
        decoded = {
            title: reconstruction.to_levels(
                dataset, self._decode(params, jax.random.clone(k), z)
            )
            for title, (k, z) in drawn.items()
        }
        return (
            reconstruction.pictures(
                self.reconstruct, dataset, params, real_key, num, self.complete
            )
            | decoded
        )

    def _decode(self, params, key, z):
        keys = jax.random.split(key, len(z))
        return jax.vmap(self.decoder("mean"), (None, 0, 0))(params, keys, z)


def _network(pae: PaeSettings, dataset: Dataset) -> NetworkGenerator | None:
    """What decodes in the circuit's place, where the flags ask for it."""
    if pae.pae_decode != "network":
        return None
    num_latents = pae.pae_latents * dataset.num_channels
    if pae.pae_network == "mlp":
        return mlp_generator(
            dataset.height * dataset.width,
            dataset.num_channels,
            width=pae.pae_network_width,
            num_latents=num_latents,
        )
    return convolutional_generator(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        num_filters=pae.pae_network_width,
        num_latents=num_latents,
    )
