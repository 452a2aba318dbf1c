"""What is measured of a trained run: samples, completions, and floors beside them."""

from collections.abc import Iterator
import functools
import sys

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
    found = {}
    if name == "inception" and len(points) >= _LEAST_EXTRAPOLATED:
        of_data = statistics(reference)
        found["fid_infinity"] = frechet_distance_infinity(points, of_data).distance
    return found | {
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
        run: what is drawn from.
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
        ``inpainting_MASK_HOW``: the mean squared error of a missing grey value in
        [0, 1], over images and masks, MASK ``stripes`` (each quarter of rows and
        columns) or ``random`` (half of the pixels); and pictures of the first images,
        uint8 levels: as given, and completed.
    """
    dataset = run.dataset
    complete = run.system.complete
    assert complete is not None
    top = dataset.num_values - 1
    stripes = stripe_masks(dataset.height, dataset.width)
    number = dataset.height * dataset.width
    random = random_masks(jax.random.key(seed), len(levels), number, missing=0.5)
    rows = np.arange(len(levels))
    masks = {"stripes": stripes[rows % len(stripes)], "random": random}

    state, found, pictures = run.state(place), {}, {}
    starts = range(0, len(levels) - len(levels) % _BATCH or len(levels), _BATCH)
    for name, observed in masks.items():
        totals: dict[str, list[float]] = {}
        for start in starts:
            part = slice(start, start + _BATCH)
            key = jax.random.fold_in(jax.random.key(seed), start)
            given, known = levels[part], observed[part]
            error, filled = _complete(complete, top, state, key, given, known)
            for how, value in error.items():
                totals.setdefault(how, []).append(float(value))
            if start == 0:
                seen = np.asarray(known)[..., None]
                pictures[f"{name}: given"] = np.where(seen, given, top // 2)
                for how, values in filled.items():
                    grey = np.clip(np.round(np.asarray(values) * top), 0, top)
                    pictures[f"{name}: {how}"] = np.where(seen, given, grey)
        for how, values in totals.items():
            found[f"inpainting_{name}_{how}"] = float(np.mean(values))
    return found, {t: p.astype(np.uint8) for t, p in pictures.items()}


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
    some = np.asarray(train[np.sort(generator.permutation(len(train))[:10_000])])
    mean = np.round(some.mean(0, dtype=np.float64)).astype(np.uint8)
    picked = generator.integers(len(some), size=(num, *some.shape[1:]))
    return {
        "real, training set": np.asarray(train[rows]),
        "mean image": np.broadcast_to(mean, (num, *mean.shape)),
        "independent pixels": np.take_along_axis(some, picked, axis=0),
    }


# One compilation for all seeds of a run: its functions are static arguments.
@functools.partial(jax.jit, static_argnums=(0, 3))
def _draw(sample, state, key, num):
    pictures = sample(state, key, num)
    return {t: v for t, v in pictures.items() if t.startswith(("sampled", "dec"))}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _complete(complete, top, state, key, levels, observed):
    """Values of every kind of completion, and the squared error of missing ones."""
    filled = complete(state, key, levels, observed)
    grey = levels.astype(jnp.float32) / top
    missing = ~observed[..., None]
    share = jnp.sum(missing) * grey.shape[-1]
    return {
        how: jnp.sum(jnp.where(missing, (values - grey) ** 2, 0.0)) / share
        for how, values in filled.items()
    }, filled


def _progress(num: int, title: str) -> Iterator[int]:
    return iter(tqdm.tqdm(range(num), desc=title, disable=not sys.stderr.isatty()))
