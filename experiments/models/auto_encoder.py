"""A circuit over images and latents as its own auto-encoder, as the programs see it."""

import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

import dspc_jax as pc
from dspc_jax.networks import convolutional_generator, count_params, mlp_generator
from dspc_jax.objectives import auto_encoding_loss, circuit_decoder, circuit_encoder
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.losses import score_function
from experiments.losses.mixture import Term
from experiments.models import circuit as model
from experiments.models import code_usage, joint_circuit, reconstruction, temperature
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
        "binary cross-entropy of grey values, or squared error (mse)",
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
    )
    pae_network_width: int = flags.flag(
        64,
        "its units in the first hidden layer, or filters in the last",
        flags.at_least(1),
    )


class JointSample(NamedTuple):
    """Differentiable samples of images at one temperature, see `generators.Sample`."""

    circuit: pc.Circuit
    relaxation: str
    temperature: jax.Array
    codec: Any

    def __call__(self, keys: jax.Array, params: Any) -> jax.Array:
        """``[B, V, C]`` grey values."""

        def draw(key):
            return self.circuit.sample_differentiable(
                key,
                params["circuit"],
                relaxation=self.relaxation,
                temperature=self.temperature,
            )

        return self.codec.to_unit(jax.vmap(draw)(keys))


class AutoEncoder:
    """The circuit, and the network that may decode for it, as a generator and a term.

    Its parameters are ``{"circuit": ..., "temperature": ..., "network": ...}``.
    """

    def __init__(
        self,
        settings: Settings,
        pae: PaeSettings,
        dataset: Dataset,
        num_steps_before: int = 0,
    ):
        """Builds it.

        Args:
            settings: the shared flags.
            pae: those of auto-encoding.
            dataset: the images.
            num_steps_before: steps before the temperature schedule begins.

        Raises:
            UserError: the flags describe no circuit on these images.
        """
        self._settings, self._pae, self._dataset = settings, pae, dataset
        least, greatest = pae.pae_latent_min_scale, pae.pae_latent_max_scale
        if least >= greatest:
            raise UserError(
                "--pae_latent_min_scale must be below "
                f"--pae_latent_max_scale={greatest}, got {least}"
            )
        if settings.relaxation in score_function.NAMES:
            raise UserError(
                "--relaxation must relax the choices of a sample here (an auto-encoder "
                f"is no loss on a set of samples), got {settings.relaxation!r}"
            )
        leaf = pc.Normal(least, greatest, init_mean=(0.0, 1.0))
        self.joint = joint_circuit.make_joint_model(
            settings,
            dataset,
            num_latents=pae.pae_latents,
            patch=pae.pae_patch,
            latent_leaf=leaf,
            latent_scale=pae.pae_latent_scale,
        )
        self._temperature = temperature.schedule(settings, num_steps_before)
        self._network = None
        num_channels, width = dataset.num_channels, pae.pae_network_width
        num_inputs = pae.pae_latents * num_channels
        if pae.pae_decode == "network" and pae.pae_network == "mlp":
            self._network = mlp_generator(
                dataset.height * dataset.width,
                num_channels,
                width=width,
                num_latents=num_inputs,
            )
        elif pae.pae_decode == "network":
            self._network = convolutional_generator(
                dataset.height,
                dataset.width,
                num_channels,
                num_filters=width,
                num_latents=num_inputs,
            )

    @property
    def num_params(self) -> int:
        """How many numbers are learned, circuit and network together."""
        network = 0 if self._network is None else self._network.num_params()
        return count_params(self.joint.circuit.init) + network

    # ---- encoding and decoding -----------------------------------------------------

    def _encoder(self, method: str, heat: jax.Array | float = 1.0):
        encode = circuit_encoder(
            self.joint.circuit,
            cast(Any, method),
            relaxation=self._settings.relaxation,
            temperature=heat,
        )
        return lambda params, key, x, observed: encode(
            params["circuit"], key, x, observed
        )

    def _decoder(self, method: str, heat: jax.Array | float = 1.0):
        """To grey values."""
        network = self._network
        if network is not None:
            return lambda params, key, z: network.generate(
                params["network"], z.reshape(1, -1)
            )[0]
        decode = circuit_decoder(
            self.joint.circuit,
            cast(Any, method),
            relaxation=self._settings.relaxation,
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
        z = jax.vmap(self._encoder(self._pae.pae_encode), (None, 0, 0, 0))(
            params, jax.random.split(encode_key, len(x)), x, observed
        )
        return self._decode(params, decode_key, z)

    def complete(self, params, key, levels, observed):
        """E[x | observed pixels], exact and without a code; see `reconstruction`.

        It is the mean over codes z of E[x | z, observed pixels]: no single code does
        better, nor does a decoder that knows the code alone.
        """
        image = self.joint.image
        x = image.codec.encode(key, levels)
        mean = jax.vmap(image.circuit.mean, (None, 0, 0))
        return image.codec.to_unit(mean(params["circuit"], x, observed))

    def _decode(self, params, key, z):
        keys = jax.random.split(key, len(z))
        return jax.vmap(self._decoder("mean"), (None, 0, 0))(params, keys, z)

    # ---- as the mixture sees it ----------------------------------------------------

    def _init(self, key):
        circuit_key, network_key = jax.random.split(key)
        network = self._network
        return {
            "circuit": joint_circuit.init(self.joint, circuit_key),
            "temperature": temperature.init_learned(self._settings),
            "network": {} if network is None else network.init(network_key),
        }

    def _evaluate(self, params, key, levels):
        image_key, code_key, key = jax.random.split(key, 3)
        image = self.joint.image
        count = {"num_params": jnp.float32(self.num_params)}
        return (
            model.evaluate(image, params["circuit"], image_key, levels)
            | count
            | code_usage.evaluate(self.joint, params["circuit"], code_key, levels)
            | reconstruction.evaluate(
                self.reconstruct, self._dataset, params, key, levels, self.complete
            )
        )

    def _pictures(self, params, key, num):
        real_key, own_key, prior_key, sample_key, decode_key = jax.random.split(key, 5)
        circuit, dataset = self.joint.circuit, self._dataset
        num_pixels = dataset.height * dataset.width
        own = jax.vmap(lambda k: circuit.sample(k, params["circuit"])[num_pixels:])(
            jax.random.split(own_key, num)
        )
        prior = jax.random.normal(prior_key, own.shape)
        decoded = {
            title: reconstruction.to_levels(dataset, self._decode(params, k, z))
            for title, k, z in (
                ("decoded, z of the circuit", sample_key, own),
                ("decoded, z from N(0, 1)", decode_key, prior),
            )
        }
        return (
            reconstruction.pictures(
                self.reconstruct, dataset, params, real_key, num, self.complete
            )
            | decoded
        )

    def generator(self) -> Generator:
        """The circuit as what is trained."""
        image = self.joint.image
        heat = self._temperature
        return Generator(
            codec=image.codec,
            init=self._init,
            sampler=lambda params, step: JointSample(
                image.circuit,
                self._settings.relaxation,
                heat(params["temperature"], step),
                image.codec,
            ),
            temperature=lambda params, step: heat(params["temperature"], step),
            likelihood_loss=lambda params, key, x: model.likelihood_loss(
                image, params["circuit"], key, x
            ),
            evaluate=self._evaluate,
            pictures=self._pictures,
            circuit=image,
            complete=lambda params, *given: model.complete(
                image, params["circuit"], *given
            ),
            expected_counts=lambda params, x: joint_circuit.expected_counts(
                self.joint, params["circuit"], x
            ),
        )

    def term(self) -> Term:
        """The loss, in nats a dimension (or squared grey values a dimension)."""
        pae, codec = self._pae, self.joint.image.codec

        def loss(params, key, x, adversary, sample):
            del adversary
            assert isinstance(sample, JointSample)
            x = codec.from_unit(x)
            mask_key, key = jax.random.split(key)
            value, metrics = auto_encoding_loss(
                params,
                key,
                x,
                encode=self._encoder(pae.pae_encode, sample.temperature),
                decode=self._decoder(pae.pae_decode, sample.temperature),
                reconstruction=cast(Any, pae.pae_loss),
                target=reconstruction.unit(self._dataset, codec.to_levels(x)),
                observed=_hide(mask_key, x, pae.pae_missing),
                joint_weight=pae.pae_joint_weight,
                kl_weight=pae.pae_kl_weight,
                log_prob=lambda params, *x: self.joint.circuit.log_prob(
                    params["circuit"], *x
                ),
                draw=self._encoder("sample", sample.temperature),
            )
            return value / self.joint.image.num_dims, metrics

        return Term("pae", init=lambda key: (), train=None, loss=loss)


def _hide(key: jax.Array, x: jax.Array, most: float) -> jax.Array | None:
    """Which pixels ``[B, V]`` the encoder sees; None: all."""
    if not most:
        return None
    share_key, pixel_key = jax.random.split(key)
    share = most * jax.random.uniform(share_key, (len(x), 1))
    return jax.random.uniform(pixel_key, x.shape[:2]) >= share
