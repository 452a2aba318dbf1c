"""The table of a study holds what the folders of its runs hold, once."""

import json
from pathlib import Path

import pytest

from experiments.console.errors import UserError
from experiments.study import table
from tests.experiments import fabricated
from tests.experiments.fabricated import seeds


def written(runs: Path | str, out: Path) -> dict:
    assert table.main(table.parse(["table", f"--runs={runs}", f"--out={out}"])) == 0
    text = out.read_text()
    assert text.endswith("}\n")
    return json.loads(text)


def a_study(root: Path) -> None:
    floor = {"fd_classifier": 0.75, "kd_classifier_error": 0.5}
    for name, more in (("a", {}), ("b", {"learning_rate": 0.2})):
        fabricated.make(
            root / name,
            **{"num_seeds": 2, "eval_every": 7, "data_dir": "/home/me", **more},
            start_from="/home/me/start",
            metrics=seeds("test/bits_per_dim", 1.23456789, 2.0)
            | seeds("test/num_params", 1234567.0, 1234567.0)
            | {"valid/bits_per_dim": 3.0},
            rows={
                "sampled": seeds("fd_classifier", 10.0, 14.5) | {"score_x": 2.0},
                "sampled, leaf means": {"fd_classifier": 9.0, "score_x": 2.0},
                "real, training set": floor,
            },
            model=seeds("bits_per_dim", 8.0, 8.0) | {"inpainting_random_mean": 0.5},
            lines=[{"step": 50, "train/loss": 1.0}, {"step": 99, "valid/mmd2": 1 / 3}],
        )
    job = {"label": "the first", "seconds": 2.5, "commit": "abc", "state": "finished"}
    study = {"preset": "best", "only": "a", "jobs": {"a": job}}
    (root / "study.json").write_text(json.dumps(study))


def test_what_runs_share_is_written_once(tmp_path):
    a_study(tmp_path / "study")
    result = written(f"{tmp_path}/study/*", tmp_path / "name.json")
    assert (result["study"], result["preset"]) == ("name", "best")
    assert result["common"] == {
        **{"program": "ll", "step": 100, "seeds": [0, 1], "device": "1 x cpu"},
        "flags": {"start_from": "start", "num_steps": 100, "batch_size": 64},
        "evaluation": {
            **{"split": "test", "num_real": 9, "num_samples": 10},
            "real, training set": {"fd_classifier": 0.75},
        },
    }
    assert list(result["runs"]) == ["a", "b"]
    a, b = result["runs"].values()
    assert a.pop("label") == "the first"
    assert a.pop("commit") == "abc"
    assert a.pop("wall_seconds") == 2.5
    rates = [run.pop("flags")["learning_rate"] for run in (a, b)]
    assert rates == [0.1, 0.2]
    assert a == b
    assert a == {
        "test": {
            "bits_per_dim": [1.23457, 2],
            **{"inpainting_random_mean": 0.5, "num_params": 1234567},
        },
        "sampled": {"fd_classifier": [10, 14.5], "score_x": 2},
        "sampled, leaf means": {"fd_classifier": 9},
        "over_time": {"step": [99], "valid/mmd2": [0.333333]},
    }
    assert "home" not in (tmp_path / "name.json").read_text()


def test_a_flag_at_its_default_in_some_runs_is_not_shared(tmp_path):
    fabricated.make(tmp_path / "a", metrics={}, batch_size=128)  # the default
    fabricated.make(tmp_path / "b", metrics={})
    result = written(f"{tmp_path}/*", tmp_path / "table.json")
    assert result["runs"] == {"a": {}, "b": {"flags": {"batch_size": 64}}}


def test_synthetic_data_have_a_table_too(tmp_path):
    content = {"set": "moons", "settings": {"seed": 0}, "seconds": 61.25}
    content |= {"energy": [0.25, float("inf")], "modes": [1.0, 1.0]}
    for objective, ll in (("ll", -1.0), ("mmd", -1.5)):
        one = content | {"objective": objective, "test_ll": [ll, -2.0]}
        (tmp_path / f"moons-{objective}.json").write_text(json.dumps(one))
    result = written(tmp_path, tmp_path / "table.json")
    assert result["common"]["flags"] == {"seed": 0}
    test = {"test_ll": [-1.5, -2], "energy": [0.25, "inf"], "modes": 1}
    assert result["runs"]["moons-mmd"] == {"test": test}


def test_folders_without_results_are_refused(tmp_path):
    fabricated.make(tmp_path / "a")
    words = ["table", f"--runs={tmp_path}/*", f"--out={tmp_path / 'table.json'}"]
    with pytest.raises(UserError, match="--runs must name folders of runs with"):
        table.main(table.parse(words))
