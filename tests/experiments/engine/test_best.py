"""Runs that keep the state of the best validation, and end when nothing improves."""

from collections.abc import Mapping
import json
from pathlib import Path
import signal
from typing import Any

import numpy as np
import pytest

from experiments import data
from experiments.console.errors import UserError, exit_code
from experiments.engine import best, training
from experiments.engine.best import Best, Progress
from experiments.engine.checkpointing import Checkpoints, read_newest
from experiments.engine.flags import Settings
from experiments.engine.saving import Saver
from tests.experiments import gaussian_program, runs

# Adam's steps are so long that each of the two seeds is at its best early.
FLAGS = (
    *("--num_steps=400", "--num_seeds=2", "--batch_size=64", "--learning_rate=0.3"),
    *("--eval_every=20", "--checkpoint_every=15", "--log_every=40", "--patience=2"),
)


def run_here(workdir: Path, *words: str) -> int:
    """Runs the program in this process: its exit code."""
    words = f"--workdir={workdir}", *FLAGS, *words
    groups = gaussian_program.parse(["gaussian_program", *words])
    return exit_code(lambda: gaussian_program.main(groups))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole")
    assert run_here(workdir) == 0
    return workdir


def result_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "result.json").read_text())


def test_a_run_ends_in_vain_with_the_best_state_of_each_seed(whole: Path):
    bits = {
        line["step"]: line["valid/bits_per_dim_seeds"]
        for line in runs.lines(whole)
        if "valid/bits_per_dim" in line
    }
    result = result_of(whole)
    one, other = (min(bits, key=lambda step, i=i: bits[step][i]) for i in range(2))
    assert one != other
    assert result["best_step"] == [one, other]
    last = max(one, other) + 40  # two evaluations more
    assert (result["step"], result["stopped_step"]) == (last, last)
    assert runs.steps_saved(whole)[-1] == max(bits) == last
    outcome = result["metrics"]["valid/bits_per_dim_seeds"]
    assert outcome == pytest.approx([bits[one][0], bits[other][1]], rel=1e-6)
    # Pictures are of the first seed, the last ones of its best state.
    pictures = (
        (whole / "samples" / f"samples_{step:07d}.png").read_bytes()
        for step in (one, last, 20)
    )
    at_best, at_end, at_first = pictures
    assert at_best == at_end != at_first


def test_a_run_that_ended_early_is_finished(
    whole: Path, capsys: pytest.CaptureFixture[str]
):
    before = (whole / "result.json").read_text()
    assert run_here(whole) == 0
    assert "finished before, nothing left to do" in capsys.readouterr().out
    assert (whole / "result.json").read_text() == before
    for word in ("--num_steps=500", "--eval_every=10"):
        assert run_here(whole, word) == 2
        assert f"differs in {word.split('=')[0]}" in capsys.readouterr().err


def assert_same_run(workdir: Path, whole: Path) -> None:
    runs.assert_same_bits(workdir, whole, result_of(whole)["step"])
    assert runs.lines(workdir) == runs.lines(whole)
    for name in ("step", "stopped_step", "best_step", "metrics"):
        assert result_of(workdir)[name] == result_of(whole)[name]
    pictures = (sorted((run / "samples").iterdir()) for run in (workdir, whole))
    for one, other in zip(*pictures, strict=True):
        assert one.read_bytes() == other.read_bytes()


class Died(Exception):
    """In the place of a signal."""


def test_the_same_bits_after_deaths_before_and_after_the_best_steps(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a checkpoint before any evaluation, and between the last and the result."""
    steps = {15, 75, result_of(whole)["stopped_step"]}
    save = Saver.save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        if arguments[-1] in steps:
            raise Died

    monkeypatch.setattr(Saver, "save", save_and_die)
    for step in sorted(steps):
        with pytest.raises(Died):
            run_here(tmp_path)
        assert runs.steps_saved(tmp_path)[-1] == step
        assert not (tmp_path / "result.json").exists()
        if step == 15:
            check_nothing_kept(runs.checkpoint(tmp_path, step))
    assert run_here(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def check_nothing_kept(arrays: Mapping[str, np.ndarray]) -> None:
    """The best state is that of the start, which the steps have left."""
    np.testing.assert_array_equal(arrays[".best.bits"], np.inf)
    name = ".state.params['log_scale']"
    np.testing.assert_array_equal(arrays[f".best{name}"], 0)
    assert np.abs(arrays[name]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("step", [20, 80])
def test_the_same_bits_after_kill_9(whole: Path, tmp_path: Path, step: int):
    """Before and after the best steps, in processes of their own."""
    words = f"--workdir={tmp_path}", *FLAGS
    code, _, _ = runs.run(*words, f"--kill_at_step={step}", "--sleep=0.01")
    assert code == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    code, out, err = runs.run(*words)
    assert (code, err) == (0, "")
    assert "the states with the best validation: after" in out
    assert_same_run(tmp_path, whole)


def test_better_seeds_are_replaced_and_the_others_stay():
    state = {"x": np.zeros((3, 2)), "none": np.zeros((3, 0))}
    first = best.nothing(3, state)
    nan = float("nan")
    for step, bits, wanted, steps in (
        (10, [3.0, nan, 2.0], [3.0, np.inf, 2.0], [10, 0, 10]),
        (20, [3.0, 5.0, 1.0], [3.0, 5.0, 1.0], [10, 20, 20]),  # equal is not better
        (30, [4.0, nan, 1.5], [3.0, 5.0, 1.0], [10, 20, 20]),
    ):
        new = {"x": np.full((3, 2), float(step)), "none": np.zeros((3, 0))}
        metrics = {"valid/bits_per_dim": np.array(bits)}
        first = best.updated(first, metrics, step, new)
        np.testing.assert_array_equal(first.bits, wanted)
        np.testing.assert_array_equal(first.step, steps)
        np.testing.assert_array_equal(first.state["x"], np.outer(steps, [1.0, 1.0]))


@pytest.mark.parametrize(
    ("step", "patience", "over"),
    [(60, 2, False), (79, 2, False), (80, 2, True), (99, 2, True), (80, 3, False)]
    + [(1000, 0, False)],
)
def test_patience_counts_evaluations_since_the_last_improvement(
    step: int, patience: int, over: bool
):
    state = Best(np.array([1.0, 2.0]), np.array([20, 40]), {})
    assert best.is_over(state, step, patience, 20) is over
    assert not best.is_over(None, step, patience, 20)


def test_patience_implies_the_best_state():
    assert Settings(patience=1).keep_best
    assert not Settings().keep_best
    with pytest.raises(UserError, match="keep_best"):
        gaussian_program.parse(["x", "--keep_best=perhaps"])
    settings, _ = gaussian_program.parse(["x", "--nokeep_best", "--patience=3"])
    assert settings.keep_best


def test_a_program_without_bits_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    groups = gaussian_program.parse(["x", f"--workdir={tmp_path / 'run'}", *FLAGS])
    dataset = data.load("digits", None)
    system = gaussian_program.gaussian_system(dataset, *groups)
    best.check(system, dataset)
    for name, fits in (("bits_per_dim_bound", True), ("mmd2", False)):
        other = system._replace(evaluate=lambda *_, name=name: {name: np.zeros(2)})
        if fits:
            best.check(other, dataset)
            continue
        message = "--keep_best must go with a program that measures bits per dimension"
        with pytest.raises(UserError, match=f"{message}, got .* mmd2$"):
            training.run("x", other, dataset, groups)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_stands_for_its_best_state_where_it_has_one(tmp_path: Path):
    state = {"x": np.arange(2.0)}
    kept = Best(np.ones(2), np.ones(2, int), {"x": np.arange(2.0, 4.0)})
    for name, each, wanted in (("no", None, [0.0, 1.0]), ("best", kept, [2.0, 3.0])):
        checkpoints = Checkpoints(tmp_path / name)
        checkpoints.save(1, Progress(state, {"loss": np.ones(2)}, np.ones(2), each))
        checkpoints.close()
        stored = read_newest(tmp_path / name, "run")
        others = {key for key in stored.arrays if key.startswith(".best")}
        assert len(others) == (3 if name == "best" else 0)  # or old runs are refused
        read = stored.part(state, stored.outcome)["x"]
        np.testing.assert_array_equal(read, wanted)
