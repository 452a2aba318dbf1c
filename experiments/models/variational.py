"""A variational auto-encoder of images, the neural counterpart of `auto_encoder`."""

import dataclasses

import jax
import jax.numpy as jnp

from dspc_jax.networks import (
    VariationalAutoEncoder,
    convolutional_variational_auto_encoder,
    mlp_variational_auto_encoder,
)
from dspc_jax.objectives import (
    active_latents,
    code_spread,
    gaussian_kl,
    mmd2_unbiased,
    sample_spread,
    variational_loss,
)
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.models import reconstruction
from experiments.models.auto_encoder import AutoEncoder, PaeSettings
from experiments.models.generators import Generator, Sampler
from experiments.models.networks import matching_width
from experiments.models.pixel_kernels import pixel_kernel, references
from experiments.models.preprocessing import preprocessing

_WIDTHS = {"mlp": 500, "conv": 32}  # the paper's; of the convolutional one, ours


@dataclasses.dataclass(frozen=True)
class VaeSettings:
    """The flags of the network."""

    vae_network: str = flags.flag(
        "mlp",
        "fully connected (the paper's), or convolutional (conv)",
        flags.one_of("mlp", "conv"),
    )
    vae_latents: int = flags.flag(20, "latents; the paper's are 20", flags.at_least(1))
    vae_width: int | None = flags.flag(
        None,
        "hidden units, or filters of the first convolution (default: 500, or 32)",
        flags.at_least(1),
        kind=int,
        only={"match_params": ["none"]},
    )
    vae_kl_weight: float = flags.flag(
        1.0, "weight of the divergence to N(0, I)", flags.at_least(0)
    )
    match_params: str = flags.flag(
        "none",
        "circuit: choose the width whose number of parameters is nearest to that of "
        "the circuit of experiments.pae with the same flags; none: --vae_width",
        flags.one_of("none", "circuit"),
    )


def make_network(
    vae: VaeSettings, dataset: Dataset, width: int
) -> VariationalAutoEncoder:
    """The network of the flags with this width."""
    if vae.vae_network == "mlp":
        return mlp_variational_auto_encoder(
            dataset.height * dataset.width,
            dataset.num_channels,
            width=width,
            num_latents=vae.vae_latents,
        )
    return convolutional_variational_auto_encoder(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        num_filters=width,
        num_latents=vae.vae_latents,
    )


def chosen_network(
    settings: Settings,
    vae: VaeSettings,
    pae_settings: PaeSettings,
    dataset: Dataset,
) -> tuple[VariationalAutoEncoder, int | None]:
    """The network, as wide as the flags or the circuit's parameters have it.

    Args:
        settings: the shared flags, which describe the circuit to be matched.
        vae: this program's flags.
        pae_settings: the flags of that circuit.
        dataset: the images.

    Returns:
        ``(network, target)``: target is the circuit's number of parameters, or None.
    """
    if vae.match_params == "none":
        width = vae.vae_width or _WIDTHS[vae.vae_network]
        return make_network(vae, dataset, width), None
    target = AutoEncoder(settings, pae_settings, dataset).num_params
    width = matching_width(lambda width: make_network(vae, dataset, width), target)
    return make_network(vae, dataset, width), target


def variational_generator(
    network: VariationalAutoEncoder, target: int | None, dataset: Dataset
) -> Generator:
    """The network as what is trained; it draws by decoding N(0, I).

    Args:
        network: its functions.
        target: the number of parameters that it was to match, for the metrics, or None.
        dataset: the images.

    Returns:
        The generator, of ``{"network": ...}``; it has no exact likelihood.
    """
    counts = {"num_params": network.num_params()}
    if target is not None:
        counts["num_circuit_params"] = target
    codec = preprocessing("binomial", dataset.num_values)  # gray values as they are
    kernel = pixel_kernel(codec, references(dataset))

    def decode(params, z):
        return jax.nn.sigmoid(network.decode(params["network"], z))

    def draw(keys, params):
        z = jax.vmap(lambda k: jax.random.normal(k, (network.num_latents,)))(keys)
        return decode(params, z)

    def reconstruct(params, key, levels, observed):
        """By the code's mean; hidden pixels are 0 to a network."""
        del key
        x = reconstruction.unit(dataset, levels)
        if observed is not None:
            x = jnp.where(observed[..., None], x, 0.0)
        return decode(params, network.encode(params["network"], x)[0])

    def evaluate(params, key, levels):
        bound_key, sample_key, key = jax.random.split(key, 3)
        x = reconstruction.unit(dataset, levels)
        samples = draw(jax.random.split(sample_key, len(x)), params)
        own = params["network"]
        bound, _ = variational_loss(
            own, bound_key, x, encode=network.encode, decode=network.decode
        )
        means, log_variances = network.encode(own, x)
        spread = code_spread(means, jnp.mean(jnp.exp(log_variances), axis=0))
        return (
            {name: jnp.float32(count) for name, count in counts.items()}
            | {
                "kl": gaussian_kl(means, log_variances),
                "code_spread": jnp.mean(spread),
                "active_latents": active_latents(spread),
                "negative_elbo": bound,
                "mmd2": mmd2_unbiased(x, samples, kernel),
                "sample_spread": sample_spread(samples, x),
            }
            | reconstruction.evaluate(reconstruct, dataset, params, key, levels)
        )

    def pictures(params, key, num):
        real_key, sample_key = jax.random.split(key)
        samples = draw(jax.random.split(sample_key, num), params)
        return reconstruction.pictures(reconstruct, dataset, params, real_key, num) | {
            "decoded, z from N(0, 1)": reconstruction.to_levels(dataset, samples)
        }

    return Generator(
        codec=codec,
        init=lambda key: {"network": network.init(key)},
        sampler=lambda params, step: Sampler(draw),
        evaluate=evaluate,
        pictures=pictures,
    )
