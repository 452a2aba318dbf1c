"""The files of a run: what is written is read back, and damage is named."""

from pathlib import Path

import numpy as np
import pytest

from experiments.console.errors import UserError
from experiments.engine import run_folder
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.run_folder import Config, Unreadable


def test_a_configuration_is_read_back(tmp_path: Path):
    assert run_folder.read_config(tmp_path) is None
    run_folder.write_config(tmp_path, "experiments.ll", {"seed": 3, "flip": None})
    config = Config("ll", {"seed": 3, "flip": None})
    assert run_folder.read_config(tmp_path) == config
    assert run_folder.named_config(tmp_path, "run") == config


def test_the_sum_layer_of_an_older_run_has_its_name_of_today(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"program": "experiments.ll", "flags": {"sum_layer": "cp"}}')
    assert run_folder.read_config(tmp_path) == Config("ll", {"sum_layer": "cp_t"})
    run_folder.write_config(tmp_path, "experiments.ll", {"sum_layer": "cp"})
    assert run_folder.read_config(tmp_path) == Config("ll", {"sum_layer": "cp"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{not json", "config.json is not JSON"),
        ("[]", "config.json is not an object"),
        ("{}", "config.json has no program and flags"),
        ('{"program": "ll", "flags": 1}', "config.json has no program and flags"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path: Path, text: str, reason: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Unreadable, match=reason):
        run_folder.read_config(tmp_path)
    with pytest.raises(UserError, match="--run must be the folder of a run, got") as e:
        run_folder.named_config(tmp_path, "run")
    assert reason in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_folder_is_named():
    with pytest.raises(UserError, match="there is no config.json in '/nowhere'"):
        run_folder.named_config(Path("/nowhere"), "run")


def test_metrics_are_read_back(tmp_path: Path):
    assert run_folder.read_lines(tmp_path) == ([], "metrics.jsonl is missing")
    assert run_folder.last_step(tmp_path) is None
    writer = MetricWriter(tmp_path, 0)
    writer.write_scalars(10, {"train/loss": 1.0})
    writer.write_scalars(20, {"valid/loss": float("nan")})
    writer.close()
    lines, problem = run_folder.read_lines(tmp_path)
    assert lines == [{"step": 10, "train/loss": 1.0}, {"step": 20, "valid/loss": "nan"}]
    assert problem == ""
    assert run_folder.last_step(tmp_path) == 20
    path = tmp_path / run_folder.METRICS
    path.write_text(path.read_text() + '{"step": "nan"}\n[]\n{"step": 30')  # cut
    again, problem = run_folder.read_lines(tmp_path)
    assert (again, problem) == (lines, "metrics.jsonl: 3 of 5 lines are unreadable")
    assert run_folder.last_step(tmp_path) is None
    assert len(run_folder.lines_up_to(tmp_path, 10)) == 1
    assert run_folder.lines_up_to(tmp_path, 0) == []


def test_a_result_belongs_to_a_step(tmp_path: Path):
    assert run_folder.finished_result(tmp_path, 5) is None
    writer = MetricWriter(tmp_path, 0)
    writer.write_result({"step": 5, "metrics": {"loss": float("inf")}})
    writer.close()
    result = {"step": 5, "metrics": {"loss": "inf"}}
    assert run_folder.finished_result(tmp_path, 5) == result
    assert run_folder.finished_result(tmp_path, 6) is None
    (tmp_path / run_folder.RESULT).write_text('{"step": 5')
    assert run_folder.finished_result(tmp_path, 5) is None


def test_a_run_is_finished_at_its_last_step_or_where_it_ended_early():
    for result, finished in (
        ({"step": 5}, True),
        ({"step": 6}, True),  # it had more steps once
        ({"step": 4}, False),
        ({"step": 4, "stopped_step": 4}, True),
        ({"step": 4, "stopped_step": 3}, False),
        ({"step": "x", "stopped_step": "x"}, False),
        ({}, False),
    ):
        assert run_folder.is_finished(result, 5) is finished


def test_a_failure_is_forgotten_when_the_run_goes_on(tmp_path: Path):
    run_folder.clear_failure(tmp_path)
    run_folder.write_failure(tmp_path, "loss is nan")
    path = tmp_path / run_folder.FAILURE
    content = run_folder.read_object(path)
    assert run_folder.failure_reason(content) == "loss is nan"
    run_folder.clear_failure(tmp_path)
    assert run_folder.failure_reason(run_folder.read_object(path)) is None


def test_the_newest_picture_of_each_kind_counts(tmp_path: Path):
    writer = MetricWriter(tmp_path, 0)
    images = {"sampled": np.zeros((1, 2, 2, 1), np.uint8)}
    for kind, step in (("samples", 5), ("samples", 40), ("faces", 7)):
        writer.write_images(kind, step, images)
    writer.close()
    (tmp_path / run_folder.EVALUATION_PICTURE).write_bytes(b"")
    assert run_folder.newest_pictures(tmp_path) == {
        "evaluation": tmp_path / "evaluation.png",
        "faces": run_folder.sample_path(tmp_path, "faces", 7),
        "samples": run_folder.sample_path(tmp_path, "samples", 40),
    }
