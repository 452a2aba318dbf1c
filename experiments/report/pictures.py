"""The sections of the report that show pictures: samples, inpainting, curves."""

from collections.abc import Callable, Sequence
import functools
from pathlib import Path

from experiments.engine.pictures import Panel, read_panels
from experiments.engine.run_folder import is_sample
from experiments.measuring.runs import Run, Setting
from experiments.report.document import Figure, Gallery, Section
from experiments.report.figures import curve, curve_figure, image_figure
from experiments.report.runs import Collected

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
_MOST_CURVES = 14  # in one picture; more get another one


@functools.cache
def open_panels(path: Path) -> tuple[tuple[Panel, ...], str]:
    """The panels of a picture, or why there are none."""
    try:
        return tuple(read_panels(path)), ""
    except ValueError as error:
        return (), str(error)


def _sample_file(run: Run) -> Path | None:
    return run.pictures.get("samples")


def picture_of(setting: Setting, caption: str) -> Figure:
    """The last kind of samples of a setting's first run: leaf means where it has them.

    Args:
        setting: whose samples.
        caption: below the picture.

    Returns:
        The figure; without data if there is no picture.
    """
    path = _sample_file(setting.first)
    if path is None:
        return Figure(f"{caption}: no picture")
    found, problem = open_panels(path)
    shown = [p for p in found if is_sample(p.title)] or list(found)
    if not shown:
        return Figure(f"{caption}: {problem}")
    return image_figure(caption, shown[-1].image)


def samples(collected: Collected) -> Section:
    """Table 1 of the paper: objectives side by side, a gallery a data set."""
    blocks = []
    for dataset in collected.datasets:
        runs = [run for run in collected.runs if run.dataset == dataset]
        figures: list[Figure] = []
        for run in runs:
            figures += _figures(run, is_sample, always=run.program != "classifier")
        real = [f for run in runs for f in _figures(run, lambda t: t == "real")]
        if real:
            figures.insert(0, Figure("real", *_content(real[0])))
        if figures:
            blocks.append(Gallery(dataset, tuple(figures)))
    return Section(
        "Samples",
        (
            "Table 1 of the paper: the newest samples of each run, of its first seed. "
            "Leaf means: the same choices without the noise of the leaves.",
            *([] if blocks else ["No run has pictures."]),
        ),
        tuple(blocks),
    )


def _content(figure: Figure) -> tuple:
    return figure.data, figure.kind, figure.width, figure.height


def _figures(
    run: Run, wanted: Callable[[str], bool], always: bool = False
) -> list[Figure]:
    """Panels of a run's sample picture.

    Args:
        run: whose.
        wanted: by title; a picture that names no panels is wanted whole by ``always``.
        always: whether a figure says so where there is none.

    Returns:
        The figures.
    """
    name = f"{run.name} ({run.program})"
    path = _sample_file(run)
    found, problem = ((), "no picture") if path is None else open_panels(path)
    step = "" if path is None else f", {path.stem.replace('_', ' ').strip()}"
    figures = [
        image_figure(f"{name}: {panel.title or 'picture' + step}", panel.image)
        for panel in found
        if (wanted(panel.title) if panel.title else always)
    ]
    if always and not figures:
        figures.append(Figure(f"{name}: {problem or 'no samples'}"))
    return figures


def completions(collected: Collected) -> Section:
    """Pictures of reconstruction and inpainting."""
    blocks = []
    for run in collected.runs:
        figures = _figures(run, lambda t: t != "real" and not is_sample(t))
        for kind, path in run.pictures.items():
            if kind == "samples":
                continue
            found, problem = open_panels(path)
            figures += [
                image_figure(
                    f"{run.name} ({run.program}): {panel.title or kind}", panel.image
                )
                for panel in found
                if panel.title != "real" and not is_sample(panel.title)
            ]
            if not found:
                figures.append(Figure(f"{run.name}, {kind}: {problem}"))
        if figures:
            blocks.append(Gallery(f"{run.name} ({run.program})", tuple(figures)))
    words = "Held-out images: what the model saw, and what it made of it."
    none = () if blocks else ("No run has such pictures.",)
    return Section(
        "Reconstructed and inpainted pictures", (words, *none), tuple(blocks)
    )


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
    without = [
        run.name
        for run in collected.runs
        if all(curve(run.name, 0, run.lines, name) is None for name in _CURVES)
    ]
    words = [
        "Over the training steps: means over seeds, with a band of one standard "
        "deviation. What was measured at one step only is in the tables."
    ]
    if without:
        words.append(f"No curves: {', '.join(without)}.")
    return Section("Training curves", tuple(words), tuple(blocks))


def _curves(runs: Sequence[Run], name: str, title: str) -> list[Figure]:
    found = [
        c
        for number, run in enumerate(runs)
        if (c := curve(run.name, number, run.lines, name)) is not None
    ]
    if all(len(c.steps) == 1 for c in found):  # the tables have it
        return []
    parts = [found[i : i + _MOST_CURVES] for i in range(0, len(found), _MOST_CURVES)]
    return [curve_figure(title, part) for part in parts]
