"""Measures the samples of a trained run: ``python -m experiments.evaluate --run=...``.

Distances between features of samples and of held-out images, beside what real images,
a constant image and independent pixels would reach; the run's own metrics; the error of
missing pixels, filled in.
"""

import dataclasses
import json
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from experiments import data
from experiments.console import summary
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import app, flags
from experiments.engine.metric_writer import finite_or_text, write_picture
from experiments.engine.workdir import write_atomically
from experiments.measuring import class_samples, measures, trained
from experiments.measuring.trained import Trained
from experiments.models import features
from experiments.models.features import Features
from experiments.models.preprocessing import to_images
from experiments.report.values import from_metrics

_RESULT = "evaluation.json"
_PICTURE = "evaluation.png"
_MEANS = "sampled, leaf means"
_NUM_PICTURES = 64  # images in a grid


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The flags of this program."""

    run: str | None = flags.flag(None, "folder of the run to be measured")
    classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier, on this data set or another, on "
        "whose features distances are measured (fd_classifier, kd_classifier)",
    )
    inception: str | None = flags.flag(
        None,
        "the weights file of the original FID's network, or download: fid, kid and "
        "Inception Score",
    )
    protocol: str = flags.flag(
        "clean",
        "clean: both sides preprocessed alike, samples and leaf means, antialiased "
        "resizing; paper: leaf means against test images as stored, where the set has "
        "larger ones, and the original resizing (both for --inception)",
        flags.one_of("clean", "paper"),
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
    )
    sample_seed: int = flags.flag(0, "seed of the samples", flags.at_least(0))


def evaluate(settings: EvaluateSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures a run.

    Args:
        settings: the flags.

    Returns:
        What is written: settings; ``model``, the run's own metrics on the real images
        and its errors of completion; ``rows``, title to the distances of its samples;
        numbers over seeds as `summary.over_seeds` has them. And pictures of the first
        seed: title to uint8 images.

    Raises:
        UserError: a flag is missing or names no such run.
    """
    if settings.run is None:
        raise UserError("--run must be given")
    if settings.classifier is None and settings.inception is None:
        raise UserError("--classifier or --inception must be given")
    start = time.perf_counter()
    run = trained.load(settings.run, "run", settings.data_dir)
    check_judge(settings.classifier, run.groups)
    dataset, places = run.dataset, range(len(run.seeds))
    data_dir = settings.data_dir or run.groups[0].data_dir
    seen = _features(settings, dataset, data_dir)
    real = np.asarray(getattr(dataset, settings.split)[: settings.num_samples])
    references = [_reference(of, settings, dataset, data_dir, real) for of in seen]

    def distances(levels):
        found = {}
        for of, reference in zip(seen, references, strict=True):
            found |= measures.distances(of, reference, levels)
        return found

    rows: dict[str, list[dict[str, float]]] = {}
    pictures = {"real": real[:_NUM_PICTURES]}
    for place in places:
        drawn = measures.samples(run, place, settings.num_samples, settings.sample_seed)
        if settings.protocol == "paper" and _MEANS in drawn:
            drawn = {_MEANS: drawn[_MEANS]}
        for title, levels in drawn.items():
            rows.setdefault(title, []).append(distances(levels))
            pictures.setdefault(title, levels[:_NUM_PICTURES])
    if not rows:
        raise UserError(f"--run must draw samples, got a run of {run.program}")
    floors = measures.floors(dataset, len(real), settings.sample_seed)
    for title, levels in floors.items():
        rows[title] = [distances(levels)]
    model = _own_metrics(run, Path(settings.run), settings.split)
    completed: dict[str, list[float]] = {}
    if run.system.complete is not None and settings.num_completions:
        few = real[: settings.num_completions]
        for place in places:
            errors, drawings = measures.completions(
                run, place, few, settings.sample_seed
            )
            for name, value in errors.items():
                completed.setdefault(name, []).append(value)
            for title, levels in drawings.items():
                pictures.setdefault(title, levels[:_NUM_PICTURES])
    judge = next((of for of in seen if of.name == "classifier"), None)
    if run.system.sample_class is not None and settings.cas_steps and judge:
        for place in places:
            scores = class_samples.accuracy_scores(
                run,
                place,
                judge,
                settings.num_samples,
                settings.cas_steps,
                settings.sample_seed,
            )
            for name, value in scores.items():
                completed.setdefault(name, []).append(value)
        real_score = class_samples.accuracy_after_training(
            dataset, settings.cas_steps, settings.sample_seed
        )
        completed["cas_of_real_images"] = [real_score]
    model |= {name: np.array(values) for name, values in completed.items()}
    result = {
        "program": run.program,
        "flags": dataclasses.asdict(settings),
        "dataset": dataset.name,
        "step": run.step,
        "seeds": run.seeds,
        "features": {of.name: of.source for of in seen},
        "protocol": settings.protocol,
        "split": settings.split,
        "num_real": len(real),
        "num_samples": settings.num_samples,
        "sample_seed": settings.sample_seed,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "seconds": time.perf_counter() - start,
        "model": summary.over_seeds(model),
        "rows": {
            title: summary.over_seeds(
                {name: np.array([row[name] for row in found]) for name in found[0]}
            )
            for title, found in rows.items()
        },
    }
    sides = dataset.height, dataset.width, dataset.num_values
    return result, {t: to_images(p, *sides) for t, p in pictures.items()}


def _own_metrics(run: Trained, folder: Path, split: str) -> dict[str, np.ndarray]:
    """The run's own metrics, ``[S]`` each: as it wrote them at its end, or anew."""
    try:
        result = json.loads((folder / "result.json").read_text())
        if result["step"] == run.step and result["seeds"] == run.seeds:
            metrics, prefix = dict(result["metrics"]), f"{split}/"
            found = {
                name.removeprefix(prefix): np.array(from_metrics(metrics, name) or [])
                for name in metrics
                if name.startswith(prefix) and not name.endswith(("_std", "_seeds"))
            }
            if found and all(len(of) == len(run.seeds) for of in found.values()):
                return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a run without an end, or a damaged file
    return run.loop.evaluate(run.loop.put(run.states), run.loop.examples(split))


def check_judge(classifier: str | None, groups: list[Any]) -> None:
    """Refuses a judge whose features a loss has seen: they are learnt by heart.

    Args:
        classifier: folder of the judge, or None: there is none.
        groups: the flags of what it measures.

    Raises:
        UserError: it is that of the loss.
    """
    for group in groups:
        for name, value in vars(group).items():
            if not (classifier and value and name.endswith("_classifier")):
                continue
            if Path(classifier).resolve() == Path(value).resolve():
                raise UserError(
                    f"--classifier must not be the --{name} of the run, or it measures "
                    f"itself, got {classifier!r}"
                )


def _features(
    settings: EvaluateSettings, dataset: Dataset, data_dir: str | None
) -> list[Features]:
    """Everything that distances are measured on."""
    seen = []
    if settings.classifier is not None:
        seen.append(features.of_classifier(settings.classifier, dataset, data_dir))
    if settings.inception is not None:
        protocol = settings.protocol
        seen.append(features.of_inception(settings.inception, dataset, protocol))
    return seen


def _reference(
    of: Features,
    settings: EvaluateSettings,
    dataset: Dataset,
    data_dir: str | None,
    real: np.ndarray,
) -> np.ndarray:
    """Features of the real images."""
    if of.extract_images is None:
        return of.extract(real)[0]
    if settings.protocol == "paper":
        stored = data.stored_images(dataset.name, data_dir, settings.split, len(real))
        if stored is not None:
            return features.remembered(of, of.extract_images, stored)
    return features.remembered(of, of.extract, real)


def main(groups: list[Any]) -> int:
    """Measures a run, writes ``evaluation.json`` into its folder, shows a table."""
    (settings,) = groups
    result, pictures = evaluate(settings)
    folder = Path(settings.run)
    text = json.dumps(finite_or_text(result), indent=2) + "\n"
    dataset = result["dataset"]
    try:
        write_atomically(folder / _RESULT, text)
        write_picture(folder / _PICTURE, pictures)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    summary.write(f"{result['program']} on {dataset}, step {result['step']}\n\n")
    summary.write(summary.table({"model": result["model"]}) + "\n")
    summary.write(summary.table(result["rows"]))
    summary.write(f"\n  written to {folder / _RESULT} and {_PICTURE}\n")
    return 0


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
