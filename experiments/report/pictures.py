"""The sections of the report that show pictures: samples, inpainting, curves."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from pathlib import Path

from experiments.engine.pictures import Panel, read_panels
from experiments.engine.run_folder import is_sample, is_sharpened
from experiments.measuring.collection import Collected
from experiments.measuring.runs import Run, Setting
from experiments.report.document import Figure, Gallery, Section
from experiments.report.figures import curve, curve_figure, image_figure

_CURVES = {
    "train/loss": "training loss",
    "valid/bits_per_dim": "bits/dim, validation",
    "valid/mmd2": "MMD\N{SUPERSCRIPT TWO} on pixels, validation",
    "valid/reconstruction_bce": "reconstruction BCE in nats, validation",
    "valid/accuracy": "accuracy, validation",
    "train/discriminator_real_accuracy": "discriminator right about data",
    "train/discriminator_fake_accuracy": "discriminator right about samples",
    "valid/sample_spread": "variance of samples over that of data",
}
_MOST_CURVES = 14  # in one picture; the others get another one


@functools.cache
def open_panels(path: Path) -> tuple[tuple[Panel, ...], str]:
    """The panels of a picture, and the reason where there are none."""
    try:
        return tuple(read_panels(path)), ""
    except ValueError as error:
        return (), str(error)


def _sample_file(run: Run) -> Path | None:
    return run.pictures.get("samples")


def picture_of(setting: Setting, caption: str) -> Figure:
    """The last kind of samples of a setting's first run: leaf means where it has them.

    Args:
        setting: runs with samples.
        caption: below the picture.

    Returns:
        The figure; without data if there is no picture.
    """
    path = _sample_file(setting.first)
    if path is None:
        return Figure(f"{caption}: no picture")
    panels, problem = open_panels(path)
    plain = [p for p in panels if not is_sharpened(p.title)]
    candidates = [p for p in plain if is_sample(p.title)] or list(panels)
    if not candidates:
        return Figure(f"{caption}: {problem}")
    return image_figure(caption, candidates[-1].image)


def samples(collected: Collected) -> Section:
    """Table 1 of the paper: objectives side by side, a gallery a data set."""
    blocks = []
    for dataset in collected.datasets:
        runs = [run for run in collected.runs if run.dataset == dataset]
        figures: list[Figure] = []
        for run in runs:
            figures += _figures(run, is_sample, always=run.program != "classifier")
        real = [f for run in runs for f in _figures(run, lambda title: title == "real")]
        if real:
            figures.insert(0, dataclasses.replace(real[0], caption="real"))
        if figures:
            blocks.append(Gallery(dataset, tuple(figures)))
    return Section(
        "Samples",
        (
            "Table 1 of the paper: the newest samples of each run, of its first seed. "
            "Leaf means: the same choices without the noise of the leaves.",
            *(() if blocks else ("No run has pictures.",)),
        ),
        tuple(blocks),
    )


def _figures(
    run: Run, selects: Callable[[str], bool], always: bool = False
) -> list[Figure]:
    """Panels of a run's sample picture.

    Args:
        run: the run.
        selects: ``title -> whether`` the panel is shown.
        always: whether a picture that names no panels is shown whole, and a figure says
            so where there is none.

    Returns:
        The figures.
    """
    name = f"{run.name} ({run.program})"
    path = _sample_file(run)
    panels, problem = ((), "no picture") if path is None else open_panels(path)
    step = "" if path is None else f", {path.stem.replace('_', ' ').strip()}"
    figures = [
        image_figure(f"{name}: {panel.title or 'picture' + step}", panel.image)
        for panel in panels
        if (selects(panel.title) if panel.title else always)
    ]
    if always and not figures:
        figures.append(Figure(f"{name}: {problem or 'no samples'}"))
    return figures


def completions(collected: Collected) -> Section:
    """Pictures of reconstruction and inpainting."""
    blocks = []
    for run in collected.runs:
        name = f"{run.name} ({run.program})"
        figures = _figures(run, _is_completion)
        for kind, path in run.pictures.items():
            if kind == "samples":
                continue
            panels, problem = open_panels(path)
            figures += [
                image_figure(f"{name}: {panel.title or kind}", panel.image)
                for panel in panels
                if _is_completion(panel.title)
            ]
            if not panels:
                figures.append(Figure(f"{run.name}, {kind}: {problem}"))
        if figures:
            blocks.append(Gallery(name, tuple(figures)))
    paragraph = "Held-out images: the pixels that the model saw, and its completions."
    empty = () if blocks else ("No run has such pictures.",)
    return Section(
        "Reconstructed and inpainted pictures", (paragraph, *empty), tuple(blocks)
    )


def _is_completion(title: str) -> bool:
    return title != "real" and not is_sample(title)


def curves(collected: Collected) -> Section:
    """Metrics over the steps, a gallery a program and data set."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in collected.runs:
        groups.setdefault((run.dataset, run.program), []).append(run)
    blocks = []
    for (dataset, program), runs in sorted(groups.items()):
        figures = [
            figure
            for name, title in _CURVES.items()
            for figure in _curves(runs, name, title)
        ]
        if figures:
            blocks.append(Gallery(f"{program} on {dataset}", tuple(figures)))
    curveless = [
        run.name
        for run in collected.runs
        if all(curve(run.name, 0, run.lines, name) is None for name in _CURVES)
    ]
    paragraphs = [
        "Over the training steps: means over seeds, with a band of one standard "
        "deviation. Metrics of one step only are in the tables."
    ]
    if curveless:
        paragraphs.append(f"No curves: {', '.join(curveless)}.")
    return Section("Training curves", tuple(paragraphs), tuple(blocks))


def _curves(runs: Sequence[Run], name: str, title: str) -> list[Figure]:
    all_curves = [
        c
        for number, run in enumerate(runs)
        if (c := curve(run.name, number, run.lines, name)) is not None
    ]
    if all(len(c.steps) == 1 for c in all_curves):  # the tables have it
        return []
    return [
        curve_figure(title, all_curves[start : start + _MOST_CURVES])
        for start in range(0, len(all_curves), _MOST_CURVES)
    ]
