"""A density of images, and what trains and measures it as programs do."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.evaluation import bits_per_example
from dspc_jax.networks import count_params
from dspc_jax.objectives import mmd2_unbiased, sample_spread
from experiments.data import Dataset
from experiments.models.circuit import Params
from experiments.models.generators import Generator, Sampler
from experiments.models.pixel_kernels import pixel_kernel, references
from experiments.models.preprocessing import preprocessing


class Density(NamedTuple):
    """A distribution of values: pure functions of its parameters.

    The parameters are a dict of named parts, such as ``circuit`` and ``flow``.

    Attributes:
        init: ``(key, x[N, V, C]) -> params``, scaled to the values.
        log_prob: ``(params, key, x[B, V, C]) -> [B]`` nats: exact, or an estimate of a
            lower bound.
        is_exact: which.
        sampler: ``(params, step) -> Sampler``: what a loss on samples sees.
        draw: ``(params, key, num) -> {title: x[num, V, C]}``: true samples, and means
            where these are not the same.
        complete: ``(params, x[B, V, C], observed[B, V]) -> {name: x}``: ``mpe`` and
            ``mean`` given the observed values, exact; None where the flow has lost
            these queries.
    """

    init: Callable[..., Params]
    log_prob: Callable[..., jax.Array]
    is_exact: bool
    sampler: Callable[[Params, jax.Array], Sampler]
    draw: Callable[..., dict[str, jax.Array]]
    complete: Callable[..., dict[str, jax.Array]] | None = None


def density_generator(density: Density, dataset: Dataset) -> Generator:
    """A density as what programs train through samples.

    Args:
        density: of dequantized gray values in [0, 1].
        dataset: the images.

    Returns:
        The generator. Its evaluation is ``bits_per_dim`` where the likelihood is exact
        and ``bits_per_dim_bound`` where it is bounded, ``mmd2`` on pixels,
        ``sample_spread``, and the number of parameters.
    """
    codec = preprocessing("normal", dataset.num_values)
    images = references(dataset)
    kernel = pixel_kernel(codec, images)
    num_dims = dataset.train[0].size
    bits = "bits_per_dim" if density.is_exact else "bits_per_dim_bound"

    def init(key):
        noise_key, init_key = jax.random.split(key)
        # The barrier: or XLA computes with the images while it compiles, slowly.
        levels = jax.lax.optimization_barrier(jnp.asarray(images))
        return density.init(init_key, codec.encode(noise_key, levels))

    num_params = count_params(init)

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

    def complete(params, key, levels, observed):
        assert density.complete is not None
        filled = density.complete(params, codec.encode(key, levels), observed)
        return {name: codec.to_unit(x) for name, x in filled.items()}

    def likelihood_loss(params, key, x, labels=None):
        del labels
        return -jnp.mean(density.log_prob(params, key, x)) / num_dims

    return Generator(
        codec=codec,
        init=init,
        sampler=density.sampler,
        evaluate=evaluate,
        pictures=pictures,
        likelihood_loss=likelihood_loss,
        complete=complete if density.complete else None,
    )
