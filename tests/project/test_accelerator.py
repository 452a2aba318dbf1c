"""The accelerator day: stages end to end at tiny sizes, and all that may go wrong."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
import types

import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import frame, peaks, peer, record, speed
from benchmarks.accelerator.job import Job
from benchmarks.accelerator.stages import STAGES, Stage
from benchmarks.tasks import Cell
import dspc_jax as pc

ROOT = pathlib.Path(__file__).parents[2]

_NAMES = ("first", "second", "third")
# A worker that makes three measurements, and ends or hangs in the second.
_WORKER = """
import json, os, sys, time
job = json.loads(sys.argv[1])
names = [name for name in {names} if name not in job["done"]]
print(json.dumps(dict(plan=names)), flush=True)
for name in names:
    print(json.dumps(dict(begin=name)), flush=True)
    if name == "second":
        {fault}
    print(json.dumps(dict(name=name, value=1.5)), flush=True)
"""


def run_worker(tmp_path, fault: str, seconds: float = 60.0, silence: float = 60.0):
    """The results of a stage of that worker, by name."""
    results = record.Record(tmp_path)
    stage = Stage("none", seconds, silence, "")
    job = Job("stage", seconds, str(tmp_path), str(tmp_path))
    code = _WORKER.format(names=_NAMES, fault=fault)
    frame.run_stage(stage, job, results, [sys.executable, "-c", code])
    lines = (tmp_path / record.LINES).read_text().splitlines()
    assert [json.loads(line) for line in lines] == results.results
    return {r["name"]: r for r in results.results}


def test_results_are_on_the_disk(tmp_path):
    results = run_worker(tmp_path, "pass")
    assert [results[name]["value"] for name in _NAMES] == [1.5] * 3
    assert "| second | 1.50 |" in (tmp_path / record.REPORT).read_text()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sys.exit('out of memory')", "exit 1: out of memory"),
        ("os.kill(os.getpid(), 9)", "SIGKILL: "),
        ("time.sleep(600)", "silent for 1 s"),
    ],
)
def test_a_stage_goes_on_after_the_measurement_that_failed(tmp_path, fault, message):
    silence = 1.0 if "sleep" in fault else 60.0
    results = run_worker(tmp_path, fault, silence=silence)
    assert results["second"]["error"] == message
    assert results["first"]["value"] == results["third"]["value"] == 1.5


def test_a_stage_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "_LEAST", 0.5)
    results = run_worker(tmp_path, "time.sleep(600)", seconds=1.5)
    assert results["second"]["error"] == "the stage's time was over"
    assert results["third"]["skipped"] == "no time was left"


def test_programs_of_a_stage_end_with_it(tmp_path):
    late = tmp_path / "late"
    child = f"import time; time.sleep(1.5); open({str(late)!r}, 'w')"
    fault = f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])"
    run_worker(tmp_path, fault, silence=0.5)
    time.sleep(1.5)
    assert not late.exists()


def test_without_time_nothing_begins(tmp_path):
    results = run_worker(tmp_path, "pass", seconds=1.0)
    assert results == {
        "(all)": {"stage": "stage", "name": "(all)", "skipped": "no time was left"}
    }


def test_results_continue_after_a_line_that_a_kill_cut(tmp_path):
    record.Record(tmp_path).add("a", name="b", value=1)
    with (tmp_path / record.LINES).open("a") as file:
        file.write('{"stage": "a", "na')
    assert len(record.Record(tmp_path).results) == 1


@pytest.mark.parametrize(
    ("kind", "gbs"),
    [
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H200", 4800),
        ("NVIDIA L4", 300),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("TPU v5 lite", 819),
    ],
)
def test_data_sheets_are_found_by_name(kind, gbs):
    sheet = peaks.data_sheet(kind)
    assert sheet is not None
    assert sheet.gbs == gbs


def test_unknown_devices_are_measured():
    assert peaks.data_sheet("NVIDIA L40S") is None
    assert peaks.data_sheet("cpu") is None
    peak = peaks.of_device()
    assert peak.source == "measured"
    assert peak.gflops > 0
    assert peak.gbs > 0


def test_shares_are_of_the_peaks():
    result = {"median_ms": 2.0, "xla_gflop": 10.0, "xla_gb": 1.0}
    shares = speed.shares(result, peaks.Peak(20e3, 1e3, "by hand"))
    assert shares == {"flop_share": 0.25, "band_share": 0.5}
    result = {"median_ms": 2.0, "least_gflop": 10.0, "least_gb": 1.5}
    shares = speed.shares(result, peaks.Peak(20e3, 1e3, "by hand"))
    assert shares == {"limit_share": 0.75}


def test_the_least_work_of_a_step():
    # 4 pixels, 2 regions [3, 3] and the root [1, 3], 1 class.
    cell = Cell("train", height=2, width=2, batch=5, structure="quad_tree")
    cell = dataclasses.replace(cell, num_units=3, sum_layer="cp_t", leaf="categorical")
    work = speed.least_work(cell)
    assert work["least_gflop"] == pytest.approx(3 * 2 * 5 * 21 / 1e9)
    assert work["least_gb"] == pytest.approx(7 * 4 * (21 + 1 + 4 * 3 * 256) / 1e9)
    assert not speed.least_work(dataclasses.replace(cell, task="sample"))


def test_the_parent_leaves_the_device_alone():
    code = (
        "import sys; from benchmarks.accelerator import __main__; "
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_peer_gets_the_same_structure():
    # A node of the other library as its scope and its number of units.
    def wide(num_node_blocks, block_size):
        return num_node_blocks * block_size

    def multiply(*children):
        scopes = [scope for scope, _ in children]
        assert sum(map(len, scopes)) == len(set().union(*scopes))
        (units,) = {units for _, units in children}
        return set().union(*scopes), units

    juice = types.SimpleNamespace(
        distributions=types.SimpleNamespace(Categorical=lambda num_cats: num_cats),
        inputs=lambda var, dist, **size: ({var}, wide(**size)),
        multiply=multiply,
        summate=lambda child, **size: (child[0], wide(**size)),
    )
    graph = pc.QuadTree(3, 4).region_graph()
    assert peer.nodes(juice, graph, 96) == (set(range(12)), 1)


def run_stages(tmp_path, stages):
    """The results of the command, by stage and name."""
    options = [f"--out={tmp_path}", f"--stages={stages}", "--tiny"]
    assert command.main(options) == 0
    lines = (tmp_path / record.LINES).read_text().splitlines()
    return {(r["stage"], r["name"]): r for r in map(json.loads, lines)}


@pytest.mark.slow
def test_two_stages_end_to_end(tmp_path):
    results = run_stages(tmp_path, "device,pyjuice")
    assert not [r for r in results.values() if "error" in r]
    checks = {name for (_, name), r in results.items() if r.get("ok")}
    assert {"float32 products", "samples: quad tree", "log_prob: image"} <= checks
    assert any(stage == "pyjuice" for stage, _ in results)


@pytest.mark.slow
def test_all_stages_end_to_end(tmp_path):
    results = run_stages(tmp_path, ",".join(STAGES))
    assert not [r for r in results.values() if "error" in r]
    assert {stage for stage, _ in results} == set(STAGES)
    assert results["mnist", "mnist_last"]["test_bits"] > 0
    assert results["hybrid", "hybrid_mmd"]["fd_classifier"] > 0
    assert (tmp_path / "mnist_last.png").exists()
    assert "limit_share" in (tmp_path / record.REPORT).read_text()


def test_help_names_every_stage_and_its_time(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, stage in STAGES.items():
        assert f"{name:9}{stage.seconds:4.0f} s" in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--stages=speed,heat", "--stages must be among device, .*, got 'heat'"),
        ("--minutes=0", "--minutes must be positive, got 0.0"),
    ],
)
def test_a_wrong_flag_is_an_error(tmp_path, capsys, argument, message):
    with pytest.raises(SystemExit):
        command.main([f"--out={tmp_path}", argument])
    assert re.search(message, capsys.readouterr().err)
