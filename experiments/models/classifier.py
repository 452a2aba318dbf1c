"""A classifier of a data set: its flags, its training, and trained ones read back.

Its features measure samples where the Inception network's weights are not at hand, or
do not suit the images; a loss may see them, too.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dspc_jax.networks import Classifier, convolutional_classifier
from experiments import data
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import checkpointing, flags, run_folder
from experiments.engine.flags import Settings
from experiments.engine.requirements import Requirement
from experiments.engine.system import System
from experiments.models.reconstruction import unit

PROGRAM = "classifier"  # that trains them


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
    """The flags of the network."""

    classifier_filters: int = flags.flag(
        16, "filters of the first convolution", flags.at_least(1)
    )
    classifier_features: int = flags.flag(
        128, "units of the hidden layer, whose values are the features", flags.above(0)
    )
    classifier_dropout: float = flags.flag(
        0.5,
        "dropout rate of the hidden layer in training",
        Requirement(lambda v: 0 <= v < 1, "must be at least 0 and less than 1"),
    )


class State(NamedTuple):
    """Parameters of the network, and the state of their optimizer."""

    params: Any
    opt_state: optax.OptState


def network(settings: ClassifierSettings, dataset: Dataset) -> Classifier:
    """The network for the images and classes of a data set.

    Args:
        settings: the flags of the network.
        dataset: the images, with labels.

    Returns:
        The classifier.

    Raises:
        UserError: there are no labels.
    """
    if dataset.num_classes is None:
        raise UserError(f"--dataset must have labels, got {dataset.name!r}")
    return convolutional_classifier(
        dataset.height,
        dataset.width,
        dataset.num_channels,
        num_classes=dataset.num_classes,
        num_filters=settings.classifier_filters,
        num_features=settings.classifier_features,
        dropout_rate=settings.classifier_dropout,
    )


def make_system(
    settings: Settings, classifier_settings: ClassifierSettings, dataset: Dataset
) -> System:
    """Classification as the training loop sees it.

    Args:
        settings: the shared flags.
        classifier_settings: the flags of the network.
        dataset: the images, with labels.

    Returns:
        The system; it measures ``accuracy`` and ``cross_entropy`` (nats).

    Raises:
        UserError: there are no labels.
    """
    classifier = network(classifier_settings, dataset)
    optimizer = optax.adam(settings.learning_rate)
    cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels

    def init(key):
        params = classifier.init(key)
        return State(params, optimizer.init(params))

    def loss(params, key, batch):
        logits = classifier.train_logits(key, params, unit(dataset, batch.levels))
        return jnp.mean(cross_entropy(logits, batch.labels))

    def step(state, key, batch, step, draw):
        del step, draw
        value, grads = jax.value_and_grad(loss)(state.params, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), {"loss": value}

    def evaluate(state, key, batch):
        del key
        logits = classifier.logits(state.params, unit(dataset, batch.levels))
        right = jnp.argmax(logits, -1) == batch.labels
        return {
            "accuracy": right.astype(jnp.float32),
            "cross_entropy": cross_entropy(logits, batch.labels),
        }

    return System(
        *(init, step, evaluate),
        sample=lambda state, key, num: {},
        labelled=True,
        units={"loss": "nats/image"},
    )


class TrainedClassifier(NamedTuple):
    """The networks of a run, one a seed.

    Attributes:
        network: the functions of all of them.
        params: of each seed.
        dataset: the images that they were trained on.
        seeds: their numbers.
        step: of the checkpoint that they are from.
    """

    network: Classifier
    params: list[Any]
    dataset: Dataset
    seeds: list[int]
    step: int


def read(folder: Path, flag: str, data_dir: str | None) -> TrainedClassifier:
    """Reads trained classifiers from the folder of their run.

    Args:
        folder: of a run of `experiments.classifier`.
        flag: the flag that named it, for errors.
        data_dir: folder of the files of its data set, if not that of the run.

    Returns:
        The networks.

    Raises:
        UserError: the folder holds no such run, no checkpoint, or a damaged one.
    """
    config = run_folder.named_config(folder, flag)
    if config.program != PROGRAM:
        raise UserError(
            f"--{flag} must be a run of experiments.{PROGRAM}, got one of "
            f"experiments.{config.program}"
        )
    settings = flags.from_values(Settings, config.flags)
    images = data.load(
        settings.dataset, data_dir or settings.data_dir, settings.data_options()
    )
    classifier = network(flags.from_values(ClassifierSettings, config.flags), images)
    keys = jax.random.split(jax.random.key(0), settings.num_seeds)
    target = jax.eval_shape(jax.vmap(classifier.init), keys)
    stored = checkpointing.read_newest(folder, flag)
    params = stored.part(target, f"{stored.outcome}.params")
    each = [jax.tree.map(lambda a, i=i: a[i], params) for i in range(len(keys))]
    return TrainedClassifier(classifier, each, images, settings.seeds, stored.step)
