"""Samples of known classes, judged by classifiers."""

import functools

import jax
from jax.sharding import Mesh
import numpy as np

from experiments.console.errors import RunFailed
from experiments.data import Dataset
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.measuring.trained import Trained
from experiments.models import classifier
from experiments.models.classifier import ClassifierSettings
from experiments.models.features import Features

_BATCH = 100  # samples in one call


def draw(run: Trained, place: int, num: int, seed: int) -> tuple[np.ndarray, ...]:
    """Samples of every class, as many of each.

    Args:
        run: a run whose model knows the classes (``--labels=roots``).
        place: of the seed in the run.
        num: how many in all, at least; rounded up to whole batches of every class.
        seed: of the noise.

    Returns:
        Levels ``[n, V, C]`` uint8 and labels ``[n]`` int32, in a random order.
    """
    num_classes = run.dataset.num_classes
    assert num_classes is not None
    assert run.system.sample_class is not None
    sample = jax.jit(run.system.sample_class, static_argnums=3)
    rounds = -(-num // (num_classes * _BATCH))
    state, key, drawn = run.state(place), jax.random.key(seed), []
    for number in range(rounds * num_classes):
        label = np.int32(number % num_classes)
        step_key = jax.random.fold_in(key, number)
        drawn.append(np.asarray(sample(state, step_key, label, _BATCH)))
    levels = np.concatenate(drawn)
    classes = np.arange(rounds * num_classes, dtype=np.int32) % num_classes
    classes = np.repeat(classes, _BATCH)
    order = np.random.default_rng(seed).permutation(len(levels))
    return levels[order], classes[order]


def accuracy_scores(
    run: Trained, place: int, features: Features, num: int, num_steps: int, seed: int
) -> dict[str, float]:
    """How well classifiers carry over between samples and real images.

    Args:
        run: a run whose model knows the classes.
        place: of the seed in the run.
        features: of a classifier that was trained on real images.
        num: samples.
        num_steps: of the classifier that is trained on them.
        seed: of samples and classifier.

    Returns:
        ``cas``: accuracy on the real test images of a classifier that was trained on
        samples alone (the classification accuracy score); ``cas_reverse``: accuracy on
        samples of the one that was trained on real images.

    Raises:
        RunFailed: the classifier's loss was not finite.

    References:
        Ravuri and Vinyals, "Classification accuracy score for conditional generative
        models", NeurIPS 2019.
    """
    levels, labels = draw(run, place, num, seed)
    _, logits = features.extract(levels)
    reverse = float(np.mean(logits.argmax(-1) == labels))
    dataset = run.dataset._replace(train=levels, train_labels=labels)
    return {
        "cas": accuracy_after_training(dataset, num_steps, seed),
        "cas_reverse": reverse,
    }


def accuracy_after_training(dataset: Dataset, num_steps: int, seed: int) -> float:
    """Accuracy on the test images of a classifier of the training images.

    Args:
        dataset: images and labels.
        num_steps: of its training, in batches of 128, Adam with the step size 0.001.
        seed: of initialization and batches.

    Returns:
        In [0, 1].

    Raises:
        RunFailed: the loss was not finite.
    """
    settings = Settings(batch_size=128, learning_rate=1e-3, seed=seed)
    system = classifier.make_system(settings, ClassifierSettings(), dataset)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    make_loop = functools.partial(DeviceLoop, resident_bytes=2**62)
    loop = make_loop(system, dataset, seed, 1, settings.batch_size, mesh)
    carry, step = loop.init(), 0
    while step < num_steps:
        chunk = min(loop.max_chunk, num_steps - step)
        carry, failure = loop.run(carry, step, chunk)
        if failure is not None:
            raise RunFailed(f"the classifier of samples: {failure.metric} not finite")
        step += chunk
    return float(loop.evaluate(carry.state, loop.examples("test"))["accuracy"][0])
