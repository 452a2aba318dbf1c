"""The folder of a run: who may have it, and what is written there."""

import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from experiments.console.errors import UserError
from experiments.engine import run_folder
from experiments.engine.checkpointing import Checkpoints, OtherState, read_newest
from experiments.engine.metric_writer import MetricWriter
from experiments.engine.pictures import read_panels
from experiments.engine.workdir import claim

FLAGS = {"seed": 0, "leaf": "normal", "num_steps": 100}


def refused(path: Path, words: str, program: str = "p", **changed: Any) -> None:
    with (
        pytest.raises(UserError, match=words) as caught,
        claim(path, program, FLAGS | changed, {"num_steps"}),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_workdir_belongs_to_one_configuration(tmp_path: Path):
    path = tmp_path / "out" / "run"
    with claim(path, "p", FLAGS, {"num_steps"}):
        refused(path, "in use by another process")
    stored = json.loads((path / "config.json").read_text())
    assert stored == {"program": "p", "version": 2, "flags": FLAGS}
    with claim(path, "p", FLAGS | {"num_steps": 200}, {"num_steps"}):
        assert json.loads((path / "config.json").read_text())["flags"] == FLAGS | {
            "num_steps": 200
        }
    refused(
        path,
        r'differs in --leaf \(there "normal", now "binomial"\), '
        r"--seed \(there 0, now 7\)$",
        seed=7,
        leaf="binomial",
    )
    refused(path, r"the program \(there p, now q\)", program="q")
    refused(path, r"--depth \(there absent, now 4\)", depth=4)
    # What was refused has changed nothing.
    assert json.loads((path / "config.json").read_text())["flags"]["seed"] == 0


def test_foreign_and_unwritable_folders_are_refused(tmp_path: Path):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.txt").write_text("do not touch")
    refused(foreign, "has files and no config.json")
    assert sorted(p.name for p in foreign.iterdir()) == ["chapter1.txt"]
    refused(foreign / "chapter1.txt", "must be a folder that can be written")
    refused(Path("/proc/no/such"), "must be a folder that can be written")
    (tmp_path / "config.json").write_text("{not json")
    refused(tmp_path, r"must be new, empty or the folder of a run, got .* is not JSON")


def test_a_run_killed_at_its_very_start_may_start_again(tmp_path: Path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config.json.tmp").write_text('{"prog')
    with claim(tmp_path, "p", FLAGS, set()):
        pass
    assert json.loads((tmp_path / "config.json").read_text())["program"] == "p"


class State(NamedTuple):
    weights: dict[str, jax.Array]
    number: jax.Array
    nothing: tuple[()]
    empty: jax.Array


def state_of(value: float) -> State:
    return State(
        {"a": jnp.full((2, 3), value), "b": jnp.arange(4, dtype=jnp.bfloat16)},
        jnp.int32(7),
        (),
        jnp.zeros((0, 5)),
    )


def test_checkpoints_return_the_same_bits(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    for step, value in ((1, 0.1), (5, jnp.nan), (9, -jnp.inf)):
        checkpoints.save(step, state_of(value))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() == 9
    target = jax.eval_shape(lambda: state_of(0.0))
    for step, value in ((5, jnp.nan), (9, -jnp.inf)):
        restored = checkpoints.restore(step, target)
        assert jax.tree.structure(restored) == jax.tree.structure(target)
        for got, want in zip(
            jax.tree.leaves(restored), jax.tree.leaves(state_of(value)), strict=True
        ):
            np.testing.assert_array_equal(got, want, strict=True)
    assert not (tmp_path / "checkpoints" / "1").exists()
    checkpoints.close()


def test_a_part_of_a_checkpoint_is_read_alone(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state_of(1.0))
    weights = state_of(1.0).weights
    target = jax.eval_shape(lambda: weights)
    checkpoints.close()
    stored = read_newest(tmp_path, "run")
    assert stored.step == 3
    restored = stored.part(target, ".weights")
    jax.tree.map(np.testing.assert_array_equal, restored, weights)
    with pytest.raises(OtherState, match=r"\.weights\['c'\] must be .* got absent"):
        stored.part(target | {"c": jnp.zeros(2)}, ".weights")


def test_who_reads_a_checkpoint_leaves_the_folder_as_it_is(tmp_path: Path):
    with pytest.raises(UserError, match="--run must hold a checkpoint, got"):
        read_newest(tmp_path, "run")
    assert not list(tmp_path.iterdir())
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state_of(1.0))
    checkpoints.close()
    unfinished = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp-1"
    unfinished.mkdir()
    assert read_newest(tmp_path, "run").step == 3
    assert unfinished.exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state_of(1.0))
    state = state_of(1.0)
    wider = state._replace(weights=state.weights | {"a": jnp.zeros((2, 4))})
    other = state._replace(number=jnp.float32(7))
    more = state._replace(weights=state.weights | {"c": jnp.zeros(2)})
    for wrong in (wider, other, more):
        with pytest.raises(
            UserError, match=re.escape(str(tmp_path / "checkpoints" / "3"))
        ) as e:
            checkpoints.restore(3, jax.eval_shape(lambda w=wrong: w))
        assert "\n" not in str(e.value)
    checkpoints.close()


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state_of(1.0))
    checkpoints.close()
    for path in (tmp_path / "checkpoints" / "3").rglob("*"):
        if path.is_file() and "metadata" not in path.name.lower():
            path.write_bytes(b"broken")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="remove it to continue from the one before"):
        checkpoints.restore(3, jax.eval_shape(lambda: state_of(0.0)))
    checkpoints.close()


def test_metrics_after_a_resume_have_no_step_twice(tmp_path: Path):
    writer = MetricWriter(tmp_path, 0)
    for step in (10, 20, 30):
        writer.write_scalars(step, {"loss": step / 10, "loss_seeds": [1.0, 2.0]})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 40, "lo')  # killed while writing
    writer = MetricWriter(tmp_path, 20)
    writer.write_scalars(30, {"loss": float("inf")})
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[0] == {"step": 10, "loss": 1.0, "loss_seeds": [1.0, 2.0]}
    assert lines[2] == {"step": 30, "loss": "inf"}  # strict JSON has no infinity
    MetricWriter(tmp_path, 0).close()
    assert path.read_text() == ""


def test_tensorboard_gets_the_scalars(tmp_path: Path):
    writer = MetricWriter(tmp_path, 0)
    writer.write_scalars(5, {"valid/bits": 2.5, "valid/bits_seeds": [2.0, 3.0]})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"valid/bits" in content
    assert np.float32(2.5).tobytes() in content
    assert b"valid/bits_seeds" not in content


def test_pictures_show_every_pixel(tmp_path: Path):
    generator = np.random.Generator(np.random.Philox(0))
    gray = generator.integers(0, 256, (5, 8, 6, 1), dtype=np.uint8)
    color = generator.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    writer = MetricWriter(tmp_path, 0)
    writer.write_images("samples", 70, {"real": gray, "sampled": color})
    writer.close()
    path = run_folder.sample_path(tmp_path, "samples", 70)
    assert path == tmp_path / "samples" / "samples_0000070.png"
    picture = np.asarray(Image.open(path))
    panels = read_panels(path)
    assert [panel.title for panel in panels] == ["real", "sampled"]
    shown = np.concatenate([np.asarray(panel.image) for panel in panels], axis=1)
    np.testing.assert_array_equal(shown, picture[-len(shown) :])
    # Pixels are enlarged six times: every sixth, from the right corner, is the image.
    result = [
        (y, x)
        for y in range(20, 30)
        for x in range(5, 15)
        if np.array_equal(
            picture[y : y + 48 : 6, x : x + 36 : 6], gray[0].repeat(3, axis=2)
        )
        and np.array_equal(
            picture[y + 5 : y + 48 : 6, x + 5 : x + 36 : 6, 0], gray[0, ..., 0]
        )
    ]
    assert len(result) == 1


def test_a_flag_of_a_newer_version_counts_with_its_default(tmp_path: Path):
    with claim(tmp_path, "p", FLAGS, {"num_steps"}):
        pass
    now = FLAGS | {"depth": 3}
    with claim(tmp_path, "p", now, {"num_steps"}, FLAGS | {"depth": 3}):
        assert run_folder.named_config(tmp_path, "run").flags == now
    with (
        pytest.raises(UserError, match=r"differs in --width \(there 5, now 6\)$"),
        claim(tmp_path, "p", now | {"width": 6}, {"num_steps"}, {"width": 5}),
    ):
        pass
