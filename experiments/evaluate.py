"""Measures the samples of a trained run: ``python -m experiments.evaluate --run=...``.

Distances between features of samples and of held-out images, beside what real images,
a constant image and independent pixels would reach.
"""

from collections.abc import Iterator
import dataclasses
import functools
import json
from pathlib import Path
import sys
import time
from typing import Any

import jax
import numpy as np
import tqdm

from dspc_jax.evaluation import frechet_distance, kernel_distance
from experiments import app, features, flags, summary, trained
from experiments.data import Dataset
from experiments.errors import UserError
from experiments.features import Features
from experiments.metric_writer import finite_or_text
from experiments.trained import Trained
from experiments.workdir import write_atomically

_RESULT = "evaluation.json"
_BATCH = 250  # samples in one call


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The flags of this program."""

    run: str | None = flags.flag(None, "folder of the run to be measured")
    classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier on the same data set, on whose "
        "features distances are measured (fd_classifier, kd_classifier)",
    )
    num_samples: int = flags.flag(
        10_000, "samples of each seed, and at most so many images", flags.at_least(2)
    )
    split: str = flags.flag(
        "test",
        "the real images on the other side",
        flags.one_of("train", "valid", "test"),
    )
    data_dir: str | None = flags.flag(
        None, "folder with the files of the data set, if not that of the run"
    )
    sample_seed: int = flags.flag(0, "seed of the samples", flags.at_least(0))


Row = dict[str, float]


def distances(
    extracted: Features, reference: np.ndarray, levels: np.ndarray
) -> dict[str, float]:
    """How far images are from the reference's features.

    Args:
        extracted: the map to features.
        reference: ``[n, D]`` features of real images.
        levels: ``[m, V, C]`` uint8.

    Returns:
        ``fd_NAME``, the Frechet distance, and ``kd_NAME``, the kernel distance, with
        its standard error.
    """
    points, _ = extracted.extract(levels)
    subset = min(1000, len(points), len(reference))
    kernel = kernel_distance(points, reference, subset_size=subset)
    return {
        f"fd_{extracted.name}": frechet_distance(points, reference),
        f"kd_{extracted.name}": kernel.distance,
        f"kd_{extracted.name}_error": kernel.standard_error,
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

    @functools.partial(jax.jit, static_argnums=2)
    def draw(state, key, size):
        pictures = run.system.sample(state, key, size)
        return {t: v for t, v in pictures.items() if t.startswith(("sampled", "dec"))}

    state, parts = run.state(place), []
    key = jax.random.key(seed)
    for number in _progress(range(-(-num // _BATCH)), f"seed {run.seeds[place]}"):
        drawn = draw(state, jax.random.fold_in(key, number), _BATCH)
        parts.append(jax.device_get(drawn))
    return {
        title: np.concatenate([part[title] for part in parts])[:num]
        for title in parts[0]
    }


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
    rows = generator.permutation(len(train))[:num]
    mean = np.round(train.mean(0, dtype=np.float64)).astype(np.uint8)
    picked = generator.integers(len(train), size=(num, *train.shape[1:]))
    return {
        "real, training set": train[rows],
        "mean image": np.broadcast_to(mean, (num, *mean.shape)),
        "independent pixels": np.take_along_axis(train, picked, axis=0),
    }


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Measures a run.

    Args:
        settings: the flags.

    Returns:
        What is written: settings, and ``rows``, title to metrics; over seeds as
        `summary.over_seeds` has it.

    Raises:
        UserError: a flag is missing or names no such run.
    """
    for name in ("run", "classifier"):
        if getattr(settings, name) is None:
            raise UserError(f"--{name} must be given")
    assert settings.run is not None
    assert settings.classifier is not None
    start = time.perf_counter()
    run = trained.load(settings.run, "run", settings.data_dir)
    dataset = run.dataset
    extracted = features.of_classifier(
        settings.classifier, dataset, settings.data_dir or run.groups[0].data_dir
    )
    real = getattr(dataset, settings.split)[: settings.num_samples]
    reference, _ = extracted.extract(real)
    rows: dict[str, list[Row]] = {}
    for place in range(len(run.seeds)):
        drawn = samples(run, place, settings.num_samples, settings.sample_seed)
        for title, levels in drawn.items():
            row = distances(extracted, reference, levels)
            rows.setdefault(title, []).append(row)
    if not rows:
        raise UserError(f"--run must draw samples, got a run of {run.program}")
    for title, levels in floors(dataset, len(real), settings.sample_seed).items():
        rows[title] = [distances(extracted, reference, levels)]
    return {
        "program": run.program,
        "dataset": dataset.name,
        "step": run.step,
        "seeds": run.seeds,
        "features": extracted.source,
        "split": settings.split,
        "num_real": len(real),
        "num_samples": settings.num_samples,
        "sample_seed": settings.sample_seed,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "seconds": time.perf_counter() - start,
        "rows": {
            title: summary.over_seeds(
                {name: np.array([row[name] for row in found]) for name in found[0]}
            )
            for title, found in rows.items()
        },
    }


def main(groups: list[Any]) -> int:
    """Measures a run, writes ``evaluation.json`` into its folder, shows a table."""
    (settings,) = groups
    result = evaluate(settings)
    path = Path(settings.run) / _RESULT
    text = json.dumps(finite_or_text(result), indent=2) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    summary.write(summary.table(result["rows"]) + f"\n  written to {path}\n")
    return 0


def _progress(steps: range, title: str) -> Iterator[int]:
    return iter(tqdm.tqdm(steps, desc=title, disable=not sys.stderr.isatty()))


parse = app.parser(
    "experiments.evaluate",
    "Measures the samples of a trained run against held-out images.",
    EvaluateSettings,
)


def run() -> None:
    """Runs the program on the command line; does not return."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
