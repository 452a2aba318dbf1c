"""Measures of a trained run: of samples and completions, with floors beside them."""

from collections.abc import Iterator, Mapping
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dspc_jax.evaluation import (
    diversity,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    kernel_distance,
    precision_recall,
    random_masks,
    statistics,
    stripe_masks,
)
from experiments.data import Dataset
from experiments.engine.run_folder import is_sample
from experiments.measuring.trained import Trained
from experiments.models.features import Features

_BATCH = 250  # samples in one call
_SUBSET = 1000  # of the kernel distance
_LEAST_EXTRAPOLATED = 10_000  # samples, for the FID of infinitely many
_MOST_NEIGHBOURS = 5000  # points of each set; every pair of them is compared


def distances(
    features: Features, reference: np.ndarray, levels: np.ndarray
) -> dict[str, float]:
    """How far images are from the reference's features.

    Args:
        features: the map to features.
        reference: ``[n, D]`` features of real images.
        levels: ``[m, V, C]`` uint8.

    Returns:
        By name, with the features' name: Frechet and kernel distance, the latter with
        its standard error; precision, recall, density, coverage (sets of one size);
        the score of the classes; the samples' diversity.
    """
    points, logits = features.extract(levels)
    subset = max(2, min(_SUBSET, len(points) // 2, len(reference) // 2))
    kernel = kernel_distance(points, reference, subset_size=subset)
    size = min(len(points), len(reference), _MOST_NEIGHBOURS)
    near = precision_recall(points[:size], reference[:size])
    name = features.name
    values = {}
    if name == "inception" and len(points) >= _LEAST_EXTRAPOLATED:
        limit = frechet_distance_infinity(points, statistics(reference))
        values["fid_infinity"] = limit.distance
    return values | {
        features.frechet: frechet_distance(points, reference),
        features.kernel: kernel.distance,
        f"{features.kernel}_error": kernel.standard_error,
        f"precision_{name}": near.precision,
        f"recall_{name}": near.recall,
        f"density_{name}": near.density,
        f"coverage_{name}": near.coverage,
        f"score_{name}": inception_score(logits).score,
        f"diversity_{name}": diversity(points[:size], reference[:size]),
    }


def samples(run: Trained, place: int, num: int, seed: int) -> dict[str, np.ndarray]:
    """Samples of one seed of a run.

    Args:
        run: the model.
        place: of the seed in the run.
        num: how many.
        seed: of the noise.

    Returns:
        Title to levels ``[num, V, C]`` uint8, for everything that the run calls sampled
        or decoded.
    """
    state, parts = run.state(place), []
    key = jax.random.key(seed)
    for number in _progress(-(-num // _BATCH), f"samples, seed {run.seeds[place]}"):
        step_key = jax.random.fold_in(key, number)
        drawn = _draw(run.system.sample, state, step_key, _BATCH)
        parts.append(jax.device_get(drawn))
    return {
        title: np.concatenate([part[title] for part in parts])[:num]
        for title in parts[0]
    }


def completions(
    run: Trained, place: int, levels: np.ndarray, seed: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """How well missing pixels are filled in: the paper's stripes, and random pixels.

    Args:
        run: a circuit; ``System.complete`` must be there.
        place: of the seed in the run.
        levels: ``[n, V, C]`` uint8 images.
        seed: of the random masks.

    Returns:
        ``inpainting_MASK_HOW``: the mean squared error of a missing gray value in
        [0, 1], over images and masks, MASK ``stripes`` (each quarter of rows and
        columns) or ``random`` (half of the pixels); and pictures of the first images,
        uint8 levels: as given, and completed.
    """
    state = run.state(place)
    errors: dict[str, float] = {}
    pictures: dict[str, np.ndarray] = {}
    for name, observed in _masks(run.dataset, len(levels), seed).items():
        error, first = _completed(run, state, levels, observed, seed)
        errors |= {f"inpainting_{name}_{kind}": value for kind, value in error.items()}
        pictures |= {f"{name}: {title}": images for title, images in first.items()}
    return errors, pictures


def _masks(dataset: Dataset, num: int, seed: int) -> dict[str, jax.Array]:
    """Which pixels of so many images are observed, bool ``[num, V]``, by kind."""
    num_pixels = dataset.height * dataset.width
    random = random_masks(jax.random.key(seed), num, num_pixels, missing=0.5)
    if dataset.is_table:
        return {"random": random}
    stripes = stripe_masks(dataset.height, dataset.width)
    return {"stripes": stripes[np.arange(num) % len(stripes)], "random": random}


def _completed(
    run: Trained, state: Any, levels: np.ndarray, observed: jax.Array, seed: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Errors of every kind of completion, and pictures of the first batch."""
    assert run.system.complete is not None
    top = run.dataset.num_values - 1
    errors: dict[str, list[float]] = {}
    pictures: dict[str, np.ndarray] = {}
    for start in range(0, len(levels) - len(levels) % _BATCH or len(levels), _BATCH):
        rows = slice(start, start + _BATCH)
        batch, mask = levels[rows], observed[rows]
        key = jax.random.fold_in(jax.random.key(seed), start)
        error, filled = _complete(run.system.complete, top, state, key, batch, mask)
        for kind, value in error.items():
            errors.setdefault(kind, []).append(float(value))
        if start == 0:
            pictures = _filled(batch, np.asarray(mask)[..., None], filled, top)
    return {kind: float(np.mean(values)) for kind, values in errors.items()}, pictures


def _filled(
    levels: np.ndarray, observed: np.ndarray, filled: Mapping[str, jax.Array], top: int
) -> dict[str, np.ndarray]:
    """Images as given, missing pixels gray, and as completed: uint8 levels."""
    pictures = {"given": np.where(observed, levels, top // 2)}
    for kind, values in filled.items():
        nearest = np.clip(np.round(np.asarray(values) * top), 0, top)
        pictures[kind] = np.where(observed, levels, nearest)
    return {title: images.astype(np.uint8) for title, images in pictures.items()}


def floors(dataset: Dataset, num: int, seed: int) -> dict[str, np.ndarray]:
    """Images that a model should beat, and real ones, which none can.

    Args:
        dataset: the images.
        num: how many of each, at most.
        seed: of the independent pixels.

    Returns:
        Title to levels: other real images (the training set's), the mean image, and
        images whose pixels are drawn independently, each from its own marginal.
    """
    train = dataset.train
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(len(train))[:num])
    images = np.asarray(train[np.sort(generator.permutation(len(train))[:10_000])])
    mean = np.round(images.mean(0, dtype=np.float64)).astype(np.uint8)
    picked = generator.integers(len(images), size=(num, *images.shape[1:]))
    return {
        "real, training set": np.asarray(train[rows]),
        "mean image": np.broadcast_to(mean, (num, *mean.shape)),
        "independent pixels": np.take_along_axis(images, picked, axis=0),
    }


# One compilation for all seeds of a run: its functions are static arguments.
@functools.partial(jax.jit, static_argnums=(0, 3))
def _draw(sample, state, key, num):
    pictures = sample(state, key, num)
    return {title: levels for title, levels in pictures.items() if is_sample(title)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _complete(complete, top, state, key, levels, observed):
    """Values of every kind of completion, and the squared error of missing ones."""
    filled = complete(state, key, levels, observed)
    gray = levels.astype(jnp.float32) / top
    missing = ~observed[..., None]
    num_missing = jnp.sum(missing) * gray.shape[-1]
    return {
        kind: jnp.sum(jnp.where(missing, (values - gray) ** 2, 0.0)) / num_missing
        for kind, values in filled.items()
    }, filled


def _progress(num: int, title: str) -> Iterator[int]:
    return iter(tqdm.tqdm(range(num), desc=title, disable=not sys.stderr.isatty()))
