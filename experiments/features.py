"""What maps images to the features that distances are measured on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import classifier, trained
from experiments.data import Dataset
from experiments.errors import UserError

_BATCH = 500  # images in one call


class Features(NamedTuple):
    """A fixed map from images to features and class logits.

    Attributes:
        name: what the distances are named after: ``classifier``.
        frechet: name of the Frechet distance: ``fd_classifier``.
        kernel: name of the kernel distance: ``kd_classifier``.
        source: where it came from, for the record.
        extract: levels ``[n, V, C]`` uint8 to features ``[n, D]`` and logits
            ``[n, Y]``, NumPy float32, in batches.
    """

    name: str
    frechet: str
    kernel: str
    source: dict[str, Any]
    extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def of_classifier(workdir: str, dataset: Dataset, data_dir: str | None) -> Features:
    """The features of a network that `experiments.classifier` trained.

    Args:
        workdir: the folder of its run; of several seeds the first is taken.
        dataset: the images to be measured.
        data_dir: folder of the data set's files.

    Returns:
        The features, named ``classifier``.

    Raises:
        UserError: the folder holds no classifier of this data set.
    """
    run, (outputs, *_) = trained_classifiers(workdir, "classifier", dataset, data_dir)
    source = {
        "program": "experiments.classifier",
        "dataset": dataset.name,
        "step": run.step,
        "seed": run.seeds[0],
    }
    of_levels = jax.jit(lambda levels: outputs(classifier.to_unit(dataset, levels)))
    names = "classifier", "fd_classifier", "kd_classifier"
    return Features(*names, source, _batched(of_levels))


Outputs = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Grey values ``[B, V, C]`` to features ``[B, D]`` and logits ``[B, Y]``."""


def trained_classifiers(
    workdir: str, flag: str, dataset: Dataset, data_dir: str | None
) -> tuple[trained.Trained, list[Outputs]]:
    """A run of `experiments.classifier` and what its networks say of grey values.

    Args:
        workdir: the folder of the run.
        flag: the flag that named it, for errors.
        dataset: the images that it must know.
        data_dir: folder of the data set's files.

    Returns:
        The run, and a differentiable function of grey values for each of its seeds.

    Raises:
        UserError: the folder holds no classifier of this data set.
    """
    run = trained.load(workdir, flag, data_dir)
    if run.program != "classifier":
        raise UserError(
            f"--{flag} must be a run of experiments.classifier, got one of "
            f"experiments.{run.program}"
        )
    if run.dataset.name != dataset.name:
        raise UserError(
            f"--{flag} must be trained on {dataset.name}, got {run.dataset.name}"
        )
    network = classifier.network(run.groups[1], dataset)

    def outputs_of(params):
        return lambda x: (network.features(params, x), network.logits(params, x))

    return run, [outputs_of(run.state(i).params) for i in range(len(run.seeds))]


def _batched(function: Callable) -> Callable:
    """Applies ``function`` to batches of one size, the last padded."""

    def call(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for start in range(0, len(levels), _BATCH):
            rows = np.arange(start, start + _BATCH) % len(levels)
            valid = min(_BATCH, len(levels) - start)
            outputs = jax.device_get(function(levels[rows]))
            parts.append([output[:valid] for output in outputs])
        features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features, logits

    return call
