"""The circuit that the flags ask for, on a data set: what all programs share."""

from collections.abc import Iterator, Mapping
import contextlib
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc
from dspc_jax.evaluation import Codec, bits_per_example
from dspc_jax.networks import count_params
from dspc_jax.objectives import (
    Kernel,
    mmd2_unbiased,
    negative_log_likelihood,
    sample_spread,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.engine.run_folder import sharpened_title
from experiments.engine.system import levels_and_labels
from experiments.models.pixel_circuit import of_pixels
from experiments.models.pixel_kernels import pixel_kernel, references
from experiments.models.preprocessing import (
    codec_of,
    num_leaf_values,
)
from experiments.models.structures import structure_of


class Model(NamedTuple):
    """A circuit and the units of its data.

    Attributes:
        circuit: pure functions, see `dspc_jax.Circuit`.
        codec: between pixel levels and leaf values.
        kernel: Gaussian kernels scaled to the training images, for gray values in
            [0, 1]; measures the MMD on the validation images.
        references: ``[n, V, C]`` uint8 training images, evenly spaced.
        num_dims: variables times channels.
        labelled: whether the roots are the classes of the data.
        num_latents: variables of the circuit beyond those of an image, which come
            after; ``circuit`` integrates them out.
        is_table: whether an image is a row of a table.
    """

    circuit: pc.Circuit
    codec: Codec
    kernel: Kernel
    references: np.ndarray
    num_dims: int
    labelled: bool = False
    num_latents: int = 0
    is_table: bool = False


def make_model(settings: Settings, dataset: Dataset) -> Model:
    """Builds the circuit.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        The model.

    Raises:
        UserError: the flags describe no circuit on these images; one line.
    """
    return of_circuit(settings, dataset, _build(circuit_config(settings, dataset)))


def circuit_config(settings: Settings, dataset: Dataset) -> pc.CircuitConfig:
    """The circuit that the flags ask for, not built yet.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        The configuration.

    Raises:
        UserError: the flags describe no circuit on these images; one line.
    """
    num_channels, tie_leaves = dataset.num_channels, settings.tie_leaves
    with describing_flags():
        structure = structure_of(settings, dataset)
        if settings.channels == "variables":
            if tie_leaves == "all":  # a set of leaves for each channel
                tie_leaves = tuple(range(num_channels)) * (
                    dataset.height * dataset.width
                )
            num_channels = 1
        return pc.CircuitConfig(
            structure=structure,
            leaf=_leaf(settings, num_leaf_values(settings, dataset)),
            num_channels=num_channels,
            num_leaves=settings.num_leaves,
            num_sums=settings.num_sums,
            num_classes=_num_classes(settings, dataset),
            sum_layer=settings.sum_layer,
            tie_leaves=tie_leaves,
            tie_sums=settings.tie_sums,
            mixing=settings.mixing,
        )


@contextlib.contextmanager
def describing_flags() -> Iterator[None]:
    """Turns the library's complaint about a configuration into one about flags."""
    try:
        yield
    except ValueError as error:
        flag = re.sub(r"\b(min|max)_scale", r"leaf_\1_scale", str(error))
        raise UserError(f"the flags describe no circuit: --{flag}") from error


def _build(config: pc.CircuitConfig) -> pc.Circuit:
    with describing_flags():
        return pc.build(config)


def of_circuit(
    settings: Settings, dataset: Dataset, circuit: pc.Circuit, num_latents: int = 0
) -> Model:
    """A circuit over the images of a data set, with the units of its leaves."""
    codec = codec_of(settings, dataset)
    images = references(dataset)
    if settings.channels == "variables":
        circuit = of_pixels(circuit, dataset.num_channels)
    return Model(
        circuit=circuit,
        codec=codec,
        kernel=pixel_kernel(codec, images),
        references=images,
        num_dims=dataset.train[0].size,
        labelled=settings.labels == "roots",
        num_latents=num_latents,
        is_table=dataset.is_table,
    )


def _num_classes(settings: Settings, dataset: Dataset) -> int:
    """Roots of the circuit."""
    if settings.labels == "unused":
        return settings.num_classes
    num = dataset.num_classes
    if num is None:
        raise UserError(
            f"--labels must be unused for a data set without labels, {dataset.name}"
        )
    if settings.num_classes not in (1, num):
        raise UserError(
            f"--num_classes must be {num}, the classes of {dataset.name}, with "
            f"--labels=roots, got {settings.num_classes}"
        )
    return num


def _leaf(settings: Settings, num_values: int) -> Any:
    """The leaf family for values of so many levels."""
    if settings.leaf == "normal":
        return pc.UnitNormal(
            min_scale=settings.leaf_min_scale, max_scale=settings.leaf_max_scale
        )
    return {
        "binomial": lambda: pc.Binomial(num_values - 1, settings.leaf_noise),
        "bernoulli": pc.Bernoulli,
        "categorical": lambda: pc.Categorical(num_values),
        "discretized_logistic": lambda: pc.DiscretizedLogistic(num_values),
    }[settings.leaf]()


Params = dict[str, Any]
"""``{"circuit": ..., **more}``: parameters of a run, the circuit's among them."""


def init(model: Model, key: jax.Array) -> Params:
    """Initial parameters, their leaves scaled to the training images."""
    noise_key, init_key = jax.random.split(key)
    # The barrier: or XLA computes with the images while it compiles, slowly.
    levels = jax.lax.optimization_barrier(jnp.asarray(model.references))
    references = model.codec.encode(noise_key, levels)
    return {"circuit": model.circuit.init(init_key, references)}


def likelihood_loss(
    model: Model, params: Params, key: jax.Array, x: jax.Array, labels: Any = None
) -> jax.Array:
    """The mean negative log-likelihood a dimension, in nats.

    Args:
        model: the circuit.
        params: the circuit's parameters, and more.
        key: not used.
        x: ``[B, V, C]``, encoded.
        labels: None, or int32 ``[B]``: the likelihood is then that of image and label.

    Returns:
        A scalar.
    """
    circuit, own = model.circuit, params["circuit"]
    if labels is None:
        loss, _ = negative_log_likelihood(own, key, x, log_prob=circuit.log_prob)
    else:
        by_class = jax.vmap(circuit.class_log_probs, (None, 0))(own, x)
        joint = by_class + jax.nn.log_softmax(own.classes)[None]
        loss = -jnp.mean(jnp.take_along_axis(joint, labels[:, None], 1))
    return loss / model.num_dims


def expected_counts(model: Model, params: Params, x: jax.Array, **options: Any) -> Any:
    """Of images ``[N, V, C]``, the latents unknown: see `dspc_jax.expected_counts`."""
    circuit, own = model.circuit, params["circuit"]
    if not model.num_latents:
        x = x.reshape(len(x), -1, circuit.config.num_channels)  # channels as variables
        return pc.expected_counts(circuit, own, x, **options)
    joint = jnp.pad(x, ((0, 0), (0, model.num_latents), (0, 0)))
    observed = jnp.arange(joint.shape[1]) < x.shape[1]
    observed = jnp.broadcast_to(observed, joint.shape[:2])
    return pc.expected_counts(circuit, own, joint, observed, **options)


def evaluate(
    model: Model, params: Params, key: jax.Array, batch: Any
) -> dict[str, jax.Array]:
    """Bits per dimension, and the MMD between images and ancestral samples.

    Args:
        model: the circuit.
        params: the circuit's parameters, and more.
        key: for dequantization and samples.
        batch: ``[B, V, C]`` uint8, with labels or without.

    Returns:
        ``bits_per_dim`` ``[B]``, ``mmd2``, the unbiased estimate on pixels,
        ``sample_spread``: near 0 the samples have collapsed, and ``num_params``. With
        labels ``accuracy`` ``[B]``, of the most probable class; of a table
        ``log_likelihood`` ``[B]`` of a row, in nats.
    """
    levels, labels = levels_and_labels(batch)
    noise_key, sample_key = jax.random.split(key)
    x = model.codec.encode(noise_key, levels)
    log_p = jax.vmap(model.circuit.log_prob, (None, 0))(params["circuit"], x)
    samples = sample(model, params, sample_key, len(levels))
    real, samples = model.codec.to_unit(x), model.codec.to_unit(samples)
    metrics = {
        "bits_per_dim": bits_per_example(model.codec, x, log_p),
        "mmd2": mmd2_unbiased(real, samples, model.kernel),
        "sample_spread": sample_spread(samples, real),
        "num_params": jnp.float32(count_params(model.circuit.init)),
    }
    if model.is_table:
        scale = -math.log(2) * model.num_dims
        metrics["log_likelihood"] = scale * metrics["bits_per_dim"]
    if labels is not None:
        class_posterior = jax.vmap(model.circuit.class_posterior, (None, 0))
        right = jnp.argmax(class_posterior(params["circuit"], x), -1) == labels
        metrics["accuracy"] = right.astype(jnp.float32)
    return metrics


def sample(
    model: Model, params: Params, key: jax.Array, num: int, **options: Any
) -> jax.Array:
    """Ancestral samples, ``[num, V, C]`` in the leaves' units."""

    def draw(key):
        return model.circuit.sample(key, params["circuit"], **options)

    return jax.vmap(draw)(jax.random.split(key, num))


def with_sharpness(
    sharpness: float, ways: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Ways to draw samples, and those of the sharper circuit beside them.

    Args:
        sharpness: of ``--sharpness``; 1: there are no others.
        ways: title to options of ``circuit.sample``.

    Returns:
        More of them; titles say the sharpness.
    """
    sharper = {
        sharpened_title(title, sharpness): options | {"sharpness": sharpness}
        for title, options in ways.items()
        if sharpness != 1
    }
    return dict(ways) | sharper


WAYS = {"sampled": {}, "sampled, leaf means": {"leaf_mode": "mean"}}
"""Titles of pictures, and the options of ``circuit.sample`` that make them."""


def pictures(
    model: Model, params: Params, key: jax.Array, num: int, sharpness: float = 1.0
) -> dict[str, jax.Array]:
    """Sampled images with leaf noise, and the same choices with the leaves' means.

    Args:
        model: the circuit.
        params: the circuit's parameters, and more.
        key: one key for both, so that they show the same images.
        num: how many.
        sharpness: not 1: of the sharper circuit as well.

    Returns:
        Title to levels, ``[num, V, C]`` uint8.
    """
    to_levels = model.codec.to_levels
    return {
        title: to_levels(sample(model, params, jax.random.clone(key), num, **options))
        for title, options in with_sharpness(sharpness, WAYS).items()
    }


def sample_class(
    model: Model, params: Params, key: jax.Array, label: jax.Array, num: int
) -> jax.Array:
    """Samples of one class, ``[num, V, C]`` uint8 levels."""
    own = params | {"circuit": pc.given_class(params["circuit"], label)}
    return model.codec.to_levels(sample(model, own, key, num))


def complete(
    model: Model, params: Params, key: jax.Array, levels: jax.Array, observed: jax.Array
) -> dict[str, jax.Array]:
    """Fills in missing pixels.

    Args:
        model: the circuit.
        params: the circuit's parameters, and more.
        key: for dequantization.
        levels: ``[B, V, C]`` uint8.
        observed: bool ``[B, V]``.

    Returns:
        Gray values ``[B, V, C]``: ``mpe``, the most probable explanation, and ``mean``,
        the exact conditional mean.
    """
    x = model.codec.encode(key, levels)
    queries = {"mpe": model.circuit.mpe, "mean": model.circuit.mean}
    return {
        name: model.codec.to_unit(
            jax.vmap(query, (None, 0, 0))(params["circuit"], x, observed)
        )
        for name, query in queries.items()
    }
