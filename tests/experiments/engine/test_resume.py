"""Runs that are killed or stopped, in processes of their own, continued or broken."""

import json
from pathlib import Path
import re
import signal
import time

import pytest

from experiments.console.errors import exit_code
from experiments.engine import code_version
from tests.experiments import gaussian_program, runs

# Two seeds, windows and checkpoints that do not coincide, and a state that changes at
# every step with batches, flips and noise of its own.
FLAGS = (
    *("--num_steps=200", "--num_seeds=2", "--batch_size=64", "--log_every=40"),
    *("--eval_every=100", "--checkpoint_every=50", "--ballast=1000000"),
    "--flip=horizontal",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, in this process."""
    workdir = tmp_path_factory.mktemp("whole")
    assert run_here(f"--workdir={workdir}", *FLAGS) == 0
    return workdir


def assert_same_run(workdir: Path, whole: Path) -> None:
    runs.assert_same_bits(workdir, whole, 200)
    assert runs.lines(workdir) == runs.lines(whole)


def test_a_whole_run_leaves_its_files(whole: Path):
    assert [line["step"] for line in runs.lines(whole)] == [40, 80, 100, 120, 160, 200]
    assert runs.steps_saved(whole) == [150, 200]
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [
        "samples_0000100.png",
        "samples_0000200.png",
    ]
    assert list((whole / "tensorboard").glob("events*"))
    last = runs.lines(whole)[-1]
    # The mean of step_again over the window 161 .. 200: no step twice, none left out.
    assert last["train/step_again"] == 180.5
    result = json.loads((whole / "result.json").read_text())
    assert result["version"] == code_version.version()
    assert result["commit"] == code_version.commit_of_code()
    source = result["data"]
    assert (source["source"], source["complete"]) == ("embedded", True)
    low, high = last["valid/bits_per_dim_seeds"]
    assert last["valid/bits_per_dim"] == pytest.approx((low + high) / 2)
    assert last["valid/bits_per_dim_std"] == pytest.approx(abs(low - high) / 2**0.5)


def test_the_same_bits_after_kill_9_and_after_sigterm(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One run that dies, is continued, is asked to stop, and is continued here."""
    workdir = f"--workdir={tmp_path}"
    code, _, _ = runs.run(workdir, *FLAGS, "--kill_at_step=80", "--sleep=0.003")
    assert code == -signal.SIGKILL
    assert runs.steps_saved(tmp_path)[-1] in (50, 100)
    assert not (tmp_path / "result.json").exists()
    process = runs.start(workdir, *FLAGS, "--sleep=0.01")
    metrics = tmp_path / "metrics.jsonl"
    while '"step": 120,' not in metrics.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert runs.without_progress(err) == ""
    (evaluation,) = (line for line in runs.progress(err) if "validation" in line)
    assert re.fullmatch(
        r"gaussian_program: step 100 of 200, [0-9.]+ steps/s, 00:0\d left, "
        r"loss -?[0-9.]+, validation [0-9.]+ bits/dimension",
        evaluation,
    )
    assert "continues" in out
    (stopped,) = (line for line in out.splitlines() if "stopped by SIGTERM" in line)
    step = int(stopped.split("after step ")[1].split(";")[0])
    assert 120 <= step < 200
    assert runs.steps_saved(tmp_path)[-1] == step
    capsys.readouterr()  # what the whole run has printed
    code = run_here(workdir, *FLAGS)
    out, err = capsys.readouterr()
    # Nothing else: stderr is no terminal.
    assert (code, runs.without_progress(err)) == (0, "")
    assert "valid/bits_per_dim" in out
    assert out.startswith("data: digits, complete, 1444 / 177 / 176 images")
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_the_same_bits_after_kill_9_while_a_checkpoint_is_written(
    whole: Path, tmp_path: Path
):
    workdir = f"--workdir={tmp_path}"
    code, _, _ = runs.run(workdir, *FLAGS, "--kill_in_save=100")
    assert code == -signal.SIGKILL
    assert runs.steps_saved(tmp_path) == [50]
    assert list((tmp_path / "checkpoints").glob("100.*tmp*"))  # half a checkpoint
    code, _, _ = runs.run(workdir, *FLAGS)
    assert code == 0
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
    assert_same_run(tmp_path, whole)


def run_here(*words: str) -> int:
    """Runs the program in this process: its exit code."""
    groups = gaussian_program.parse(["gaussian_program", *words])
    return exit_code(lambda: gaussian_program.main(groups))


def test_a_longer_run_continues_a_finished_one(whole: Path, tmp_path: Path):
    """Half of the steps, then the command with all of them."""
    for steps in (100, 200):
        words = (f"--workdir={tmp_path}", *FLAGS, f"--num_steps={steps}")
        assert run_here(*words) == 0
    runs.assert_same_bits(tmp_path, whole, 200)


def test_old_checkpoints_are_renewed_whatever_the_step_is(whole: Path, tmp_path: Path):
    """After every chunk of steps here; and a chunk less or more changes no bit."""
    words = ("--checkpoint_minutes=1e-9", "--checkpoint_every=500")
    assert run_here(f"--workdir={tmp_path}", *FLAGS, *words) == 0
    runs.assert_same_bits(tmp_path, whole, 200)
    assert len(runs.steps_saved(tmp_path)) == 2


def test_a_non_finite_loss_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Only the seed 4 starts above; its step is named though chunks are longer."""
    code = run_here(
        f"--workdir={tmp_path}",
        *("--seed=3", "--num_seeds=2", "--num_steps=200", "--checkpoint_every=50"),
        *("--nan_at_step=137", "--nan_seed=4"),
    )
    err = capsys.readouterr().err
    assert code == 1
    assert err == (
        "failed: loss is nan at step 137 (seed 4); the checkpoint of step 100 is kept\n"
    )
    assert runs.steps_saved(tmp_path) == [50, 100]
    assert not (tmp_path / "result.json").exists()
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["reason"] == err.removeprefix("failed: ").rstrip("\n")


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one(tmp_path: Path):
    flags = ("--num_steps=40", "--num_seeds=2", "--batch_size=64", "--draw=1")
    for devices in (1, 8):
        workdir = tmp_path / str(devices)
        code, out, _ = runs.run(f"--workdir={workdir}", *flags, devices=devices)
        assert code == 0
        assert f"{devices} x cpu" in out
    one, eight = (runs.checkpoint(tmp_path / n, 40) for n in ("1", "8"))
    different = 0
    for name, array in one.items():
        # 40 steps of Adam in float32, sums in another order.
        assert array == pytest.approx(eight[name], rel=1e-3, abs=1e-3), name
        different += array.tobytes() != eight[name].tobytes()
    assert different  # or the batch was not split
    left, right = (runs.lines(tmp_path / n)[-1] for n in ("1", "8"))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value == pytest.approx(right[name], rel=1e-3), name
    code, _, err = runs.run("--batch_size=36", devices=8)
    assert (code, err) == (
        2,
        "error: --batch_size must be a multiple of the 8 devices, got 36\n",
    )
