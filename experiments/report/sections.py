"""The sections of the report that show numbers: each from what was collected."""

from collections.abc import Callable, Sequence

from experiments.console.metrics import as_number, names_of
from experiments.measuring import last_values
from experiments.measuring.last_values import Value
from experiments.measuring.runs import Run, Setting
from experiments.report.document import MISSING, Cell, Section, Table, make_table
from experiments.report.runs import Collected
from experiments.report.values import duration, plain, spread, title_of

_RECONSTRUCTION = (
    *("reconstruction_bce", "reconstruction_mse", "half_missing_bce"),
    *("hidden_half_bce", "hidden_half_direct_bce"),
)
_TONES = {"finished": "good", "failed": "bad"}


def overview(collected: Collected) -> Section:
    """Every folder: what ran there, how far it came, how good it is."""
    distances = last_values.distance_names(collected.settings)
    header = [
        *("run", "program", "data set", "state", "seeds", "steps", "parameters"),
        *(title_of(n) for n in ("bits_per_dim", "mmd2", *distances)),
        *("wall time", "device"),
    ]
    rows = []
    for run in collected.runs:
        alone = Setting((run,))
        rows.append(
            [
                run.name,
                run.program,
                run.dataset,
                Cell(run.state, _TONES.get(run.state, "")),
                ", ".join(map(str, run.seeds[:8])) + " ..." * (len(run.seeds) > 8),
                _steps(run),
                _parameters(alone),
                *(
                    text(last_values.of_setting(alone, n))
                    for n in ("bits_per_dim", "mmd2")
                ),
                *(text(last_values.distance(alone, n)) for n in distances),
                wall_time(run),
                _device(run),
            ]
        )
    tables = [make_table("Runs", header, rows, num_labels=4)] if rows else []
    problems = [[run.name, remark] for run in collected.runs for remark in run.remarks]
    problems += [[r.name, f"failed: {r.failure}"] for r in collected.runs if r.failure]
    problems += [[s.name, remark] for s in collected.studies for remark in s.remarks]
    problems += [[name, reason] for name, reason in collected.unreadable]
    if problems:
        tables.append(
            make_table(
                "What could not be read, or failed", ["folder", "reason"], problems, 2
            )
        )
    states = [run.state for run in collected.runs]
    counts = [f"{states.count(s)} {s}" for s in ("finished", "unfinished", "failed")]
    return Section(
        "Overview",
        (
            f"Runs: {', '.join(counts)}. Studies of synthetic data: "
            f"{len(collected.studies)}. Other folders: {len(collected.unreadable)}. "
            "An unfinished run may still be running.",
            "Numbers are of the test split unless the cell says otherwise; after "
            "\N{PLUS-MINUS SIGN} stands the sample standard deviation over seeds. A "
            "dash: not measured. Arrows: down, less is better; up, more.",
        ),
        tuple(tables),
    )


def distances(collected: Collected) -> Section:
    """Table 2 of the paper: distances to real images, beside what is trivial."""
    blocks = []
    for dataset in collected.datasets:
        settings = [
            s
            for s in collected.settings
            if s.first.dataset == dataset and s.first.program != "classifier"
        ]
        found = {s.name: last_values.evaluations(s) for s in settings}
        protocols = dict.fromkeys(m.protocol for ms in found.values() for m in ms)
        for protocol in protocols:
            blocks.append(_distance_table(dataset, protocol, settings, found))
        if settings and not protocols:
            rows = [[_named(s), None, None] for s in settings]
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
    found: dict[str, list[last_values.Measurement]],
) -> Table:
    """One data set, one protocol: models, then floors."""
    here = [m for ms in found.values() for m in ms if m.protocol == protocol]
    names = list(dict.fromkeys(n for m in here for n in m.values))
    rows, floors = [], {}
    for setting in settings:
        measurements = [m for m in found[setting.name] if m.protocol == protocol]
        for m in measurements:
            cells = [text(m.values.get(n)) for n in names]
            if m.is_floor:
                floors.setdefault((m.title, *cells), setting.name)
            else:
                rows.append([_named(setting), m.title, *cells])
        if not measurements:
            rows.append([_named(setting), None] + [None] * len(names))
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
        "Squared error of a missing grey value, by mask and how it was filled in, as "
        "experiments.evaluate measures it.",
        "No run was evaluated so.",
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
    words: str,
    none: str,
    metrics: Sequence[str],
    complete: bool = False,
    measure: Callable[[Setting, str], Value | None] = last_values.of_setting,
) -> Section:
    """A table a data set: settings by metrics.

    Args:
        collected: everything.
        title: of the section.
        words: what is shown.
        none: said where there is nothing.
        metrics: the columns; those that no run has are left out.
        complete: whether runs without any of them are shown, with dashes.
        measure: ``(setting, metric) -> value``.

    Returns:
        The section.
    """
    blocks = []
    for dataset in collected.datasets:
        values = {
            s.name: (s, [measure(s, n) for n in metrics])
            for s in collected.settings
            if s.first.dataset == dataset and s.first.program != "classifier"
        }
        used = [
            i
            for i in range(len(metrics))
            if any(found[i] is not None for _, found in values.values())
        ]
        rows = [
            [_named(s), *(text(found[i]) for i in used)]
            for s, found in values.values()
            if complete or any(found[i] is not None for i in used)
        ]
        if used:
            header = ["run", *(title_of(metrics[i]) for i in used)]
            blocks.append(make_table(dataset, header, rows))
    return Section(title, (words,) if blocks else (words, none), tuple(blocks))


def configurations(
    collected: Collected, defaults_of: Callable[[str], dict | None]
) -> Section:
    """Flags that differ from the program's defaults, hardware and time.

    Args:
        collected: everything.
        defaults_of: a program's defaults by flag; None for an unknown program.

    Returns:
        The section.
    """
    flags, hardware = [], []
    for run in collected.runs:
        changed = _changed(run, defaults_of(run.program))
        flags.append([_named(Setting((run,))), changed])
        rate = as_number((run.result or {}).get("steps_per_second"))
        hardware.append(
            [
                *(run.name, _device(run)),
                None if rate is None else plain(rate),
                wall_time(run),
            ]
        )
    blocks = [
        make_table("Flags", ["run", "flags other than the default"], flags, 2),
        make_table(
            "Hardware and wall time",
            ["run", "device", "steps a second", "wall time"],
            hardware,
            2,
        ),
    ]
    return Section(
        "Configurations, hardware and wall time",
        (
            "Wall time is of the process that finished the run, compilation and "
            "evaluation included; where the run was continued it says from which step. "
            '"About": from the rate alone, by a run that did not write its seconds.',
        ),
        tuple(blocks if collected.runs else ()),
    )


def _changed(run: Run, defaults: dict | None) -> Cell | None:
    """Flags that differ from the defaults."""
    parts = [
        f"--{name}={value}"
        for name, value in run.flags.items()
        if name != "workdir"
        and (defaults is None or name not in defaults or defaults[name] != value)
    ]
    if defaults is None:
        parts.append("(all flags: the program's defaults are not known)")
    return Cell(" ".join(parts) or "none", "code" if parts else "")


def _named(setting: Setting) -> Cell:
    """A setting with its program."""
    return Cell(setting.name, note=setting.first.program)


def text(value: Value | None) -> Cell | None:
    """A value as a cell; None: missing."""
    return None if value is None else Cell(spread(value), note=value.where)


def wall_time(run: Run) -> str | None:
    """How long training took, or about how long; None: not known."""
    result = run.result or {}
    seconds, first = (as_number(result.get(n)) for n in ("seconds", "first_step"))
    if seconds is not None:
        since = f" from step {int(first):,} on" if first else ""
        return duration(seconds) + since
    rate, step = (as_number(result.get(n)) for n in ("steps_per_second", "step"))
    return f"about {duration(step / rate)}" if rate and step else None


def _steps(run: Run) -> str:
    if run.num_steps is None or run.step == run.num_steps:
        return f"{run.step:,}"
    return f"{run.step:,} of {run.num_steps:,}"


def _parameters(setting: Setting) -> str | None:
    value = last_values.of_setting(setting, "num_params")
    return None if value is None else plain(value.mean)


def _device(run: Run) -> str | None:
    device = (run.result or {}).get("device")
    return None if device is None else str(device)
