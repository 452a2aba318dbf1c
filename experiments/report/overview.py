"""The sections of the report about the runs themselves: state, flags, hardware."""

from collections.abc import Callable

from experiments.console.metrics import as_number
from experiments.measuring import last_values
from experiments.measuring.collection import Collected
from experiments.measuring.runs import Run, Setting
from experiments.report.document import Cell, Section, Table, make_table
from experiments.report.sections import named, text
from experiments.report.values import duration, plain, title_of

_TONES = {"finished": "good", "failed": "bad"}


def overview(collected: Collected) -> Section:
    """Every folder: its program, its state, its best known measures."""
    tables = [_run_table(collected), _problem_table(collected)]
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
        tuple(table for table in tables if table.rows),
    )


def _run_table(collected: Collected) -> Table:
    """A row a run."""
    distances = last_values.distance_names(collected.settings)
    metrics = ("bits_per_dim", "mmd2")
    header = [
        *("run", "program", "data set", "state", "seeds", "steps", "parameters"),
        *map(title_of, (*metrics, *distances)),
        *("wall time", "device"),
    ]
    rows = []
    for run in collected.runs:
        setting = Setting((run,))
        rows.append(
            [
                run.name,
                run.program,
                run.dataset,
                Cell(run.state, _TONES.get(run.state, "")),
                ", ".join(map(str, run.seeds[:8])) + " ..." * (len(run.seeds) > 8),
                _steps(run),
                _parameters(setting),
                *(text(last_values.of_setting(setting, name)) for name in metrics),
                *(text(last_values.distance(setting, name)) for name in distances),
                _wall_time(run),
                _device(run),
            ]
        )
    return make_table("Runs", header, rows, num_labels=4)


def _problem_table(collected: Collected) -> Table:
    """A row for everything that failed or could not be read."""
    rows = [[run.name, remark] for run in collected.runs for remark in run.remarks]
    rows += [[r.name, f"failed: {r.failure}"] for r in collected.runs if r.failure]
    rows += [[s.name, remark] for s in collected.studies for remark in s.remarks]
    rows += [[name, reason] for name, reason in collected.unreadable]
    return make_table("Unreadable, or failed", ["folder", "reason"], rows, 2)


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
    flags = [
        [named(Setting((run,))), _changes(run, defaults_of(run.program))]
        for run in collected.runs
    ]
    hardware = [
        [run.name, _device(run), _rate(run), _wall_time(run)] for run in collected.runs
    ]
    hardware_header = ["run", "device", "steps a second", "wall time"]
    blocks = [
        make_table("Flags", ["run", "flags other than the default"], flags, 2),
        make_table("Hardware and wall time", hardware_header, hardware, 2),
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


def _changes(run: Run, defaults: dict | None) -> Cell | None:
    """Flags that differ from the defaults."""
    flags = [
        f"--{name}={value}"
        for name, value in run.flags.items()
        if name != "workdir"
        and (defaults is None or name not in defaults or defaults[name] != value)
    ]
    if defaults is None:
        flags.append("(all flags: the program's defaults are not known)")
    return Cell(" ".join(flags) or "none", "code" if flags else "")


def _rate(run: Run) -> str | None:
    rate = as_number((run.result or {}).get("steps_per_second"))
    return None if rate is None else plain(rate)


def _wall_time(run: Run) -> str | None:
    """Duration of training, perhaps an estimate; None: not known."""
    result = run.result or {}
    seconds, first_step = (as_number(result.get(n)) for n in ("seconds", "first_step"))
    if seconds is not None:
        start = f" from step {int(first_step):,} on" if first_step else ""
        return duration(seconds) + start
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
