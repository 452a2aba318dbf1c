"""Fixed maps from images to features, on which distances are measured."""

from collections.abc import Callable
import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.evaluation.efficientnet_lite import (
    Variant,
    efficientnet_lite_outputs,
    installed_weights,
    read_efficientnet_lite_params,
)
from dspc_jax.evaluation.efficientnet_lite.network import SCALES
from dspc_jax.evaluation.efficientnet_lite.weights import WEIGHTS_FILES
from dspc_jax.evaluation.inception import inception_outputs, read_inception_params
from dspc_jax.types import PyTree
from experiments.console.errors import UserError
from experiments.console.paths import cache_dir
from experiments.data import Dataset, cache, to_images
from experiments.engine import run_folder
from experiments.models import classifier, weights
from experiments.models.classifier import TrainedClassifier
from experiments.models.reconstruction import unit

_BATCH = 500  # images in one call
_INCEPTION_BATCH = 50  # of 299x299 pixels
_EFFICIENTNET_BATCH = 50  # of at most 260x260 pixels


class Features(NamedTuple):
    """A fixed map from images to features and class logits.

    Attributes:
        name: what the distances are named after: ``classifier``, ``inception``,
            ``efficientnet_lite0``.
        frechet: name of the Frechet distance: ``fd_classifier``, ``fid``.
        kernel: name of the kernel distance: ``kd_classifier``, ``kid``.
        source: where it came from, for the record.
        extract: levels ``[n, V, C]`` uint8 to features ``[n, D]`` and logits
            ``[n, Y]``, NumPy float32, in batches.
        extract_images: the same for images ``[n, H, W, C]`` uint8 of any size; None
            where the map knows one size.
    """

    name: str
    frechet: str
    kernel: str
    source: dict[str, Any]
    extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    extract_images: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


def of_inception(path: str, dataset: Dataset, protocol: str) -> Features:
    """The Inception network of the original FID code, with its published weights.

    Args:
        path: the weights file, or ``download``: fetched once into the user's cache.
        dataset: the images to be measured.
        protocol: ``clean`` resizes as clean-fid, ``paper`` as the original code.

    Returns:
        The features; distances are named ``fid`` and ``kid``.

    Raises:
        UserError: a file that cannot be had, or with another hash or content.
    """
    try:
        params = read_inception_params(weights.read(path))
    except ValueError as error:
        raise UserError(f"--inception: {error}") from None
    method: Any = "bicubic" if protocol == "clean" else "bilinear"

    @jax.jit
    def outputs(images):
        return inception_outputs(params, images, method=method)

    extract_images = _batched(outputs, _INCEPTION_BATCH)

    def extract(levels):
        return extract_images(to_images(dataset, levels))

    source = {"file": "pt_inception-2015-12-05-6726825d.pth", "resized": method}
    return Features("inception", "fid", "kid", source, extract, extract_images)


def of_efficientnet(variant: Variant, dataset: Dataset) -> Features:
    """An EfficientNet-Lite with the weights of its package, trained on ImageNet.

    Args:
        variant: ``lite0``, ``lite1`` or ``lite2``.
        dataset: the images to be measured.

    Returns:
        The features, named ``efficientnet_lite0`` and so on.

    Raises:
        UserError: the package is not installed, or its file is another; or the examples
            are rows of a table.
    """
    network = efficientnet_images(variant, "efficientnet", dataset)
    extract_images = _batched(jax.jit(network), _EFFICIENTNET_BATCH)

    def extract(levels):
        return extract_images(to_images(dataset, levels))

    weights_file, size = WEIGHTS_FILES[variant], SCALES[variant].size
    source = {"sha256": weights_file.sha256, "resized": f"triangle, {size}x{size}"}
    name = f"efficientnet_{variant}"
    names = name, f"fd_{name}", f"kd_{name}"
    return Features(*names, source, extract, extract_images)


def efficientnet_images(
    variant: Variant, flag: str, dataset: Dataset
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Features and logits of images, by an EfficientNet-Lite.

    Args:
        variant: ``lite0``, ``lite1`` or ``lite2``.
        flag: the flag that named it, for errors.
        dataset: the images that it shall see.

    Returns:
        A differentiable function of gray levels ``[B, H, W, C]`` from 0 to 255 to
        ``[B, 1280]`` and ``[B, 1000]``.

    Raises:
        UserError: as `of_efficientnet`.
    """
    if dataset.is_table:
        raise UserError(f"--{flag} must go with images, got the table {dataset.name!r}")
    params = _efficientnet_params(variant, flag)

    def outputs(images):
        output = efficientnet_lite_outputs(params, images, variant=variant)
        return output.features, output.logits

    return outputs


@functools.cache  # of the installed file: read and hashed once
def _efficientnet_params(variant: Variant, flag: str) -> PyTree:
    try:
        return read_efficientnet_lite_params(installed_weights(variant), variant)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"--{flag}: {error}") from None


def of_classifier(workdir: str, dataset: Dataset, data_dir: str | None) -> Features:
    """The features of a network that `experiments.classifier` trained.

    Args:
        workdir: the folder of its run; of several seeds the first is taken.
        dataset: the images to be measured.
        data_dir: folder of the data set's files.

    Returns:
        The features, named ``classifier``.

    Raises:
        UserError: the folder holds no classifier that can see these images.
    """
    trained = read_classifier(workdir, "classifier", dataset, data_dir)
    outputs = outputs_of(trained, dataset)[0]
    source = {
        "program": f"experiments.{classifier.PROGRAM}",
        "dataset": trained.dataset.name,
        "step": trained.step,
        "seed": trained.seeds[0],
    }
    extract = jax.jit(lambda levels: outputs(unit(dataset, levels)))
    names = "classifier", "fd_classifier", "kd_classifier"
    return Features(*names, source, _batched(extract, _BATCH))


Outputs = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Gray values ``[B, V, C]`` to features ``[B, D]`` and logits ``[B, Y]``."""


def read_classifier(
    workdir: str, flag: str, dataset: Dataset, data_dir: str | None
) -> TrainedClassifier:
    """The networks of a run of `experiments.classifier` that can see these images.

    Args:
        workdir: the folder of the run.
        flag: the flag that named it, for errors.
        dataset: the images that the networks shall see.
        data_dir: folder of the data set's files, for networks trained on it.

    Returns:
        The networks of all seeds.

    Raises:
        UserError: the folder holds no classifier, or one of gray images for colored
            ones.
    """
    folder = Path(workdir)
    name = run_folder.named_config(folder, flag).flags.get("dataset")
    data_dir = data_dir if name == dataset.name else None
    trained = classifier.read(folder, flag, data_dir)
    if trained.dataset.num_channels < dataset.num_channels:
        raise UserError(
            f"--{flag} must be trained on colored images such as {dataset.name}, got "
            f"{trained.dataset.name}"
        )
    return trained


def outputs_of(trained: TrainedClassifier, dataset: Dataset) -> list[Outputs]:
    """Features and logits of gray values, by trained classifiers.

    They may have been trained on another data set, as the Inception network is when it
    measures faces: images are resized (with antialiasing), and gray ones get three
    equal channels, where the networks know others.

    Args:
        trained: the networks.
        dataset: the images that they shall see.

    Returns:
        A differentiable function of gray values for each seed.
    """
    network = trained.network

    def of_seed(params):
        def outputs(x):
            x = _as_known(x, dataset, trained.dataset)
            return network.features(params, x), network.logits(params, x)

        return outputs

    return [of_seed(params) for params in trained.params]


def _as_known(x: jax.Array, dataset: Dataset, known: Dataset) -> jax.Array:
    """Gray values ``[B, V, C]`` of one set in the size and colors of another."""
    if (dataset.height, dataset.width) != (known.height, known.width):
        images = x.reshape(len(x), dataset.height, dataset.width, -1)
        shape = (len(x), known.height, known.width, images.shape[-1])
        x = jax.image.resize(images, shape, "linear").reshape(len(x), -1, shape[-1])
    return jnp.broadcast_to(x, (*x.shape[:2], known.num_channels))


def remembered(
    features: Features,
    extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    examples: np.ndarray,
) -> np.ndarray:
    """Features of real images, the same for all runs: kept in the user's cache.

    Ten thousand images take the Inception network many minutes on a CPU.

    Args:
        features: what ``extract`` belongs to; its ``source`` says all it depends on.
        extract: `Features.extract` or `Features.extract_images`.
        examples: what it takes.

    Returns:
        ``[n, D]`` float32.

    Raises:
        UserError: the cache cannot be written.
    """
    examples = np.ascontiguousarray(examples)
    key = {
        **features.source,
        "shape": list(examples.shape),
        "sha256": hashlib.sha256(examples.tobytes()).hexdigest(),
    }

    def prepare(place: Path) -> dict[str, Any]:
        points = extract(examples)[0]
        cache.write_array(place / "features.npy", len(points), [points], np.float32)
        return {}

    place, _ = cache.prepared(cache_dir(), features.name, key, prepare)
    return np.load(place / "features.npy")


def _batched(function: Callable, size: int) -> Callable:
    """Applies ``function`` to batches of one size, the last padded."""

    def call(examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for start in range(0, len(examples), size):
            rows = np.arange(start, start + size) % len(examples)
            valid = min(size, len(examples) - start)
            outputs = jax.device_get(function(examples[rows]))
            parts.append([output[:valid] for output in outputs])
        features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features, logits

    return call
