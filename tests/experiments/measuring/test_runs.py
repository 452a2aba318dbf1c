"""What the folder of a run says of it."""

from pathlib import Path
from typing import Any

from experiments.measuring.runs import read_run, settings_of
from tests.experiments import fabricated


def test_a_run_that_ended_early_is_finished(tmp_path: Path):
    folder = fabricated.make(tmp_path / "run", metrics={}, step=60)
    run = read_run(folder, "run")
    assert run is not None
    assert run.state == "unfinished"
    result = folder / "result.json"
    result.write_text(result.read_text().replace("{", '{"stopped_step": 60, ', 1))
    run = read_run(folder, "run")
    assert run is not None
    assert (run.state, run.step) == ("finished", 60)


def test_evaluations_decide_where_the_best_state_is_kept(tmp_path: Path):
    def num_settings(name: str, **same: Any) -> int:
        folders = [
            fabricated.make(tmp_path / f"{name}{every}", eval_every=every, **same)
            for every in (10, 20)
        ]
        outcome = [run for f in folders if (run := read_run(f, f.name)) is not None]
        return len(settings_of(outcome))

    assert num_settings("last") == 1
    assert num_settings("best", keep_best=True) == 2
