"""Adaptive density estimation: ``python -m experiments.ade --dataset=digits``.

A density over the features of an invertible network is trained by its likelihood and
through its samples at once: coverage and quality (Lucas et al. 2019). The density is a
circuit, with an exact likelihood, or what it is compared with.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dspc_jax import networks
from dspc_jax.evaluation import bits_per_example
from dspc_jax.objectives import mmd2_unbiased, sample_spread
from experiments import data
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.system import System
from experiments.losses import mixture, score_function
from experiments.losses.adversary import AdversarySettings, adversarial_term
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, sample_term
from experiments.models import circuit as model
from experiments.models.densities import Density, make_density
from experiments.models.density_settings import DensitySettings
from experiments.models.generators import Generator
from experiments.models.preprocessing import preprocessing

_NETWORKS = ("flow", "vae")  # among the parameters of a density


@dataclasses.dataclass(frozen=True)
class AdeSettings:
    """The flags of this program alone."""

    sample_loss: str = flags.flag(
        "adv",
        "loss on samples: adv (a discriminator, --adv_...) or mmd (--mmd_...)",
        flags.one_of("adv", "mmd"),
    )
    network_rate: float = flags.flag(
        0.2,
        "step size of the flow and of networks, as a share of that of all else",
        flags.above(0),
    )


def density_generator(
    density: Density, dataset: data.Dataset, network_rate: float = 1.0
) -> Generator:
    """A density as what programs train through samples.

    Args:
        density: of dequantised grey values in [0, 1].
        dataset: the images.
        network_rate: step size of flow and networks as a share of that of all else.

    Returns:
        The generator. Its evaluation is ``bits_per_dim`` where the likelihood is exact
        and ``bits_per_dim_bound`` where it is bounded, ``mmd2`` on pixels,
        ``sample_spread``, and the number of parameters.
    """
    codec = preprocessing("normal", dataset.num_values)
    images = model.references(dataset)
    kernel = model.pixel_kernel(codec, images)
    num_dims = dataset.train[0].size
    bits = "bits_per_dim" if density.is_exact else "bits_per_dim_bound"

    def init(key):
        noise_key, init_key = jax.random.split(key)
        # The barrier: or XLA computes with the images while it compiles, slowly.
        levels = jax.lax.optimization_barrier(jnp.asarray(images))
        return density.init(init_key, codec.encode(noise_key, levels))

    num_params = networks.count_params(init)

    def evaluate(params, key, levels):
        noise_key, bound_key, sample_key = jax.random.split(key, 3)
        x = codec.encode(noise_key, levels)
        log_p = density.log_prob(params, bound_key, x)
        samples = density.draw(params, sample_key, len(x))["sampled"]
        return {
            bits: bits_per_example(codec, x, log_p),
            "mmd2": mmd2_unbiased(x, samples, kernel),
            "sample_spread": sample_spread(samples, x),
            "num_params": jnp.float32(num_params),
        }

    def pictures(params, key, num):
        drawn = density.draw(params, key, num)
        return {title: codec.to_levels(x) for title, x in drawn.items()}

    def paced(updates):
        return {
            name: optax.tree.scale(network_rate, of) if name in _NETWORKS else of
            for name, of in updates.items()
        }

    def complete(params, key, levels, observed):
        assert density.complete is not None
        found = density.complete(params, codec.encode(key, levels), observed)
        return {how: codec.to_unit(x) for how, x in found.items()}

    def likelihood_loss(params, key, x):
        return -jnp.mean(density.log_prob(params, key, x)) / num_dims

    return Generator(
        codec=codec,
        init=init,
        sampler=density.sampler,
        temperature=density.temperature,
        likelihood_loss=likelihood_loss,
        evaluate=evaluate,
        pictures=pictures,
        circuit=None,
        complete=complete if density.complete else None,
        paced=paced,
    )


def make_system(
    settings: Settings,
    mixture_settings: MixtureSettings,
    density_settings: DensitySettings,
    ade_settings: AdeSettings,
    adversary_settings: AdversarySettings,
    mmd_settings: MmdSettings,
    critic_settings: CriticSettings,
    dataset: data.Dataset,
) -> System:
    """Joint training as the training loop sees it.

    Args:
        settings: the shared flags.
        mixture_settings: how the likelihood takes part.
        density_settings: what is trained.
        ade_settings: by which loss on samples.
        adversary_settings: the flags of a discriminator.
        mmd_settings: the flags of the MMD.
        critic_settings: those of its learned kernels.
        dataset: the images.

    Returns:
        The system, see `mixture.make_system`.

    Raises:
        UserError: the flags do not fit one another or the images.
    """
    _check(settings)
    codec = preprocessing("normal", dataset.num_values)
    before = mixture_settings.pretrain_steps
    density = make_density(settings, density_settings, dataset, codec, before)
    generator = density_generator(density, dataset, ade_settings.network_rate)
    if ade_settings.sample_loss == "adv":
        term = adversarial_term(settings, adversary_settings, dataset, generator)
    else:
        term = sample_term(
            settings, mmd_settings, critic_settings, dataset, generator.codec
        )
    return mixture.make_system(settings, mixture_settings, generator, term)


def _check(settings: Settings) -> None:
    """Refuses shared flags that mean nothing behind a flow."""
    unfit: list[tuple[str, Any]] = [("optimizer", "adam"), ("labels", "unused")]
    for name, needed in unfit:
        given = getattr(settings, name)
        if given != needed:
            raise UserError(f"--{name} must be {needed} in this program, got {given!r}")
    if settings.relaxation in (*score_function.NAMES, "implicit"):
        raise UserError(
            "--relaxation must be a path through the flow (simple, straight_through, "
            f"gumbel_softmax, ...), got {settings.relaxation!r}"
        )


PROGRAM = training_program(
    "experiments.ade",
    "Trains a density over the features of a flow by likelihood and through samples.",
    make_system,
    Settings,
    MixtureSettings,
    DensitySettings,
    AdeSettings,
    AdversarySettings,
    MmdSettings,
    CriticSettings,
    defaults={
        "learning_rate": 5e-3,
        "sampler_learning_rate": 1e-3,
        "ll_weight": 1.0,
        "balance": "norm",
        "clip_norm": 1.0,
        "leaf_max_scale": 3.0,
    },
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
