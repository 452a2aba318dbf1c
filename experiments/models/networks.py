"""Neural generators for the programs that train through samples."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax.networks import (
    NetworkGenerator,
    convolutional_generator,
    count_params,
    mlp_generator,
)
from dspc_jax.objectives import mmd2_unbiased, sample_spread
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.models import circuit as model
from experiments.models.generators import Generator, Sampler
from experiments.models.pixel_kernels import pixel_kernel, references
from experiments.models.preprocessing import preprocessing

_WIDTHS = {"mlp": 128, "conv": 64}  # the paper's source, and DCGAN's


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The flags of a neural generator."""

    gan_generator: str = flags.flag(
        "mlp",
        "mlp: the paper's network; conv: transposed convolutions",
        flags.one_of("mlp", "conv"),
    )
    gan_width: int | None = flags.flag(
        None,
        "units of mlp's first hidden layer (default: 128; the others have 2, 4, 8 "
        "times as many), or filters of conv's last (default: 64)",
        flags.at_least(1),
        kind=int,
        only={"match_params": ["none"]},
    )
    gan_latents: int = flags.flag(
        100, "length of the generator's noise", flags.at_least(1)
    )
    match_params: str = flags.flag(
        "none",
        "circuit: choose the width whose number of parameters is nearest to that of "
        "the circuit that the flags describe; none: --gan_width",
        flags.one_of("none", "circuit"),
    )


def network_generator(
    settings: Settings, network_settings: NetworkSettings, dataset: Dataset
) -> Generator:
    """A network that makes images from Gaussian noise, in the place of a circuit.

    Its evaluation is ``mmd2`` on pixels, as for circuits, and its number of parameters,
    ``num_params``; with ``--match_params=circuit`` that of the circuit, too,
    ``num_circuit_params``. It has no likelihood, and no bits per dimension.

    Args:
        settings: the shared flags; they describe the circuit to be matched.
        network_settings: the flags of the network.
        dataset: the images.

    Returns:
        The generator, of ``{"network": ...}``.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    counts = {}
    width = network_settings.gan_width or _WIDTHS[network_settings.gan_generator]

    def network_of(width: int) -> NetworkGenerator:
        latents = network_settings.gan_latents
        if network_settings.gan_generator == "mlp":
            return mlp_generator(
                *dataset.train.shape[1:], width=width, num_latents=latents
            )
        return convolutional_generator(
            dataset.height,
            dataset.width,
            dataset.num_channels,
            num_filters=width,
            num_latents=latents,
        )

    if network_settings.match_params == "circuit":
        counts["num_circuit_params"] = num_circuit_params(settings, dataset)
        width = matching_width(network_of, counts["num_circuit_params"])
    network = network_of(width)
    counts["num_params"] = network.num_params()

    codec = preprocessing("binomial", dataset.num_values)  # the levels themselves
    kernel = pixel_kernel(codec, references(dataset))

    def draw(keys, params):
        return network.sample(keys, params["network"])

    def evaluate(params, key, levels):
        samples = draw(jax.random.split(key, len(levels)), params)
        real = codec.to_unit(levels.astype(jnp.float32))
        metrics = {name: jnp.float32(count) for name, count in counts.items()}
        return metrics | {
            "mmd2": mmd2_unbiased(real, samples, kernel),
            "sample_spread": sample_spread(samples, real),
        }

    def pictures(params, key, num):
        samples = draw(jax.random.split(key, num), params)
        return {"sampled": codec.to_levels(codec.from_unit(samples))}

    return Generator(
        codec=codec,
        init=lambda key: {"network": network.init(key)},
        sampler=lambda params, step: Sampler(draw),
        evaluate=evaluate,
        pictures=pictures,
    )


def num_circuit_params(settings: Settings, dataset: Dataset) -> int:
    """The numbers that the circuit of the flags learns.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        Their count, logits of normalized weights counted in full.

    Raises:
        UserError: the flags describe no circuit on these images.
    """
    circuit = model.make_model(settings, dataset)
    return count_params(lambda key: model.init(circuit, key))


def matching_width(network_of: Callable[[int], Any], target: int) -> int:
    """The width whose number of parameters is nearest to a target.

    Args:
        network_of: from a width to a network with ``num_params()``; wider ones have
            more parameters.
        target: the number of parameters.

    Returns:
        The width, at least 1.
    """
    high = 1
    while network_of(high).num_params() < target:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        if network_of(middle).num_params() < target:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda w: abs(network_of(w).num_params() - target))
