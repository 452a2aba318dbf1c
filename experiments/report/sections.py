"""The sections of the report about measures: distances, likelihoods, errors."""

from collections.abc import Callable, Sequence

from experiments.console.metrics import names_of
from experiments.measuring import last_values
from experiments.measuring.collection import Collected
from experiments.measuring.last_values import Value
from experiments.measuring.runs import Setting
from experiments.report.document import MISSING, Cell, Section, Table, make_table
from experiments.report.values import spread, title_of

_RECONSTRUCTION = (
    *("reconstruction_bce", "reconstruction_mse", "half_missing_bce"),
    *("hidden_half_bce", "hidden_half_direct_bce"),
)


def distances(collected: Collected) -> Section:
    """Table 2 of the paper: distances to real images, beside floors."""
    blocks = []
    for dataset in collected.datasets:
        settings = _settings(collected, dataset)
        evaluations = {s.name: last_values.evaluations(s) for s in settings}
        protocols = dict.fromkeys(m.protocol for ms in evaluations.values() for m in ms)
        for protocol in protocols:
            blocks.append(_distance_table(dataset, protocol, settings, evaluations))
        if settings and not protocols:
            rows = [[named(s), None, None] for s in settings]
            header = ["run", "images", "distances"]
            blocks.append(make_table(f"{dataset}: not evaluated", header, rows, 2))
    return Section(
        "Distances to real images",
        (
            "Table 2 of the paper. Written by experiments.evaluate. Distances of "
            "classifier features are named so; they are not FID and KID. Rows without "
            "a run are floors: images that no model made. Runs of "
            "experiments.classifier draw nothing and are not listed.",
            *([] if collected.runs else ["No runs."]),
        ),
        tuple(blocks),
    )


def _distance_table(
    dataset: str,
    protocol: str,
    settings: Sequence[Setting],
    evaluations: dict[str, list[last_values.Measurement]],
) -> Table:
    """One data set, one protocol: models, then floors."""
    by_setting = {
        name: [m for m in measurements if m.protocol == protocol]
        for name, measurements in evaluations.items()
    }
    tables = [m.values for ms in by_setting.values() for m in ms]
    names = list(dict.fromkeys(name for values in tables for name in values))
    rows, floors = [], {}
    for setting in settings:
        measurements = by_setting[setting.name]
        for m in measurements:
            cells = [text(m.values.get(n)) for n in names]
            if m.is_floor:
                floors.setdefault((m.title, *cells), setting.name)
            else:
                rows.append([named(setting), m.title, *cells])
        if not measurements:
            rows.append([named(setting), None] + [None] * len(names))
    titles = [title for title, *_ in floors]
    for (title, *cells), name in floors.items():
        # Floors depend on the protocol alone; where they differ, say whose they are.
        label = f"floor, with {name}" if titles.count(title) > 1 else "floor"
        rows.append([Cell(MISSING, "missing", label), title, *cells])
    header = ["run", "images", *map(title_of, names)]
    return make_table(f"{dataset}: {protocol}", header, rows, num_labels=2)


def inpainting(collected: Collected) -> Section:
    """Errors of missing pixels that were filled in."""
    names = names_of(
        name
        for run in collected.runs
        for content in run.evaluations.values()
        if isinstance(content.get("model"), dict)
        for name in content["model"]
        if name.startswith("inpainting_")
    )
    return _by_dataset(
        collected,
        "Inpainting",
        "Squared error of a missing gray value, by mask and by way of filling it in: "
        "written by experiments.evaluate.",
        "No run has this measure.",
        tuple(names),
        complete=True,
        measure=last_values.of_evaluation,
    )


def reconstruction(collected: Collected) -> Section:
    """Table 3 of the paper: how well images survive an auto-encoder."""
    return _by_dataset(
        collected,
        "Reconstruction",
        "Table 3 of the paper. Errors of whole images, summed over pixels, as "
        "experiments.models.reconstruction defines them.",
        "No run has an auto-encoder.",
        _RECONSTRUCTION,
    )


def bits_per_dimension(collected: Collected) -> Section:
    """Exact likelihoods, and where there is a bound only, the bound."""
    return _by_dataset(
        collected,
        "Bits per dimension",
        "Exact likelihood of the test split. The negative ELBO of a variational "
        "auto-encoder is a bound, in nats, and not comparable.",
        "No run has a likelihood.",
        ("bits_per_dim", "negative_elbo"),
        complete=True,
    )


def _by_dataset(
    collected: Collected,
    title: str,
    paragraph: str,
    empty: str,
    metrics: Sequence[str],
    complete: bool = False,
    measure: Callable[[Setting, str], Value | None] = last_values.of_setting,
) -> Section:
    """A table a data set: settings by metrics.

    Args:
        collected: everything.
        title: of the section.
        paragraph: explains the measures.
        empty: a second paragraph, where no run has any of them.
        metrics: the columns; those that no run has are left out.
        complete: whether runs without any of them are shown, with dashes.
        measure: ``(setting, metric) -> value``.

    Returns:
        The section.
    """
    blocks = []
    for dataset in collected.datasets:
        values = [
            (s, {name: measure(s, name) for name in metrics})
            for s in _settings(collected, dataset)
        ]
        names = [n for n in metrics if any(v[n] is not None for _, v in values)]
        rows = [
            [named(setting), *(text(by_metric[name]) for name in names)]
            for setting, by_metric in values
            if complete or any(by_metric[name] is not None for name in names)
        ]
        if names:
            blocks.append(make_table(dataset, ["run", *map(title_of, names)], rows))
    paragraphs = (paragraph,) if blocks else (paragraph, empty)
    return Section(title, paragraphs, tuple(blocks))


def _settings(collected: Collected, dataset: str) -> list[Setting]:
    """The settings of a data set that draw samples."""
    return [
        setting
        for setting in collected.settings
        if setting.first.dataset == dataset and setting.first.program != "classifier"
    ]


def named(setting: Setting) -> Cell:
    """A setting with its program."""
    return Cell(setting.name, note=setting.first.program)


def text(value: Value | None) -> Cell | None:
    """A value as a cell; None: missing."""
    return None if value is None else Cell(spread(value), note=value.where)
