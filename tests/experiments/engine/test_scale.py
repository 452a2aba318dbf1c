"""Programs with circuits at another scale: seeds together, devices, real MNIST."""

import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

from experiments import ll, mmd
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings
from experiments.measuring.programs import PROGRAMS
from tests.experiments import runs
from tests.experiments.data.real import REAL, needs
from tests.experiments.tiny import tiny_digits

# The step size is small because Adam divides a gradient by its size: one that is only
# rounding moves a weight by a whole step, and then a sampled choice may fall otherwise.
# The moments of Adam, compared too, hold the gradients themselves.
SMALL: dict[str, Any] = {
    "num_sums": 4,
    "num_leaves": 4,
    "batch_size": 16,
    "learning_rate": 1e-5,
}
FLAGS = tuple(f"--{name}={value}" for name, value in SMALL.items())


def assert_same(array: Any, other: Any) -> None:
    """Float32 sums in another order: the same, measured by the array's largest."""
    array, other = np.asarray(array), np.asarray(other)
    scale = np.abs(array).max(initial=0.1)
    np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-3 * scale)


def trained(program: str, seed: int, num_seeds: int) -> tuple[Any, dict]:
    """State and training means after four steps of a small circuit."""
    settings = Settings(seed=seed, num_seeds=num_seeds, **SMALL)
    tiny = tiny_digits()
    if program == "ll":
        system = ll.make_system(settings, tiny)
    else:
        half = MixtureSettings(pretrain_steps=2)
        system = mmd.make_system(settings, half, MmdSettings(), CriticSettings(), tiny)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    loop = DeviceLoop(
        system, tiny, seed, num_seeds, settings.batch_size, mesh, resident_bytes=2**30
    )
    carry, failure = loop.run(loop.init(), 0, 4)
    assert failure is None
    carry, means = loop.drain(carry)
    return jax.device_get(carry.state), means


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ll", "mmd"])
def test_two_seeds_together_are_each_alone(program: str):
    together = trained(program, seed=3, num_seeds=2)
    alone = [trained(program, seed=seed, num_seeds=1) for seed in (3, 4)]
    jax.tree.map(
        lambda both, one, other: assert_same(both, np.concatenate([one, other])),
        together,
        *alone,
    )
    losses = together[1]["loss"]
    assert abs(losses[0] - losses[1]) > 1e-4  # and the seeds are not the same


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ["ll", "--optimizer=em", "--leaf=binomial"], id="em", marks=pytest.mark.slow
        ),
        pytest.param(
            ["mmd", "--recipe=none", "--pretrain_steps=2"],
            id="mmd",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_eight_devices_train_the_circuit_of_one(words: list[str], tmp_path: Path):
    name, *words = words
    for devices in (1, 8):
        code, out, err = runs.run(
            *(f"--workdir={tmp_path / str(devices)}", "--num_steps=4", "--log_every=4"),
            *(*FLAGS, *words),
            program=f"experiments.{name}",
            devices=devices,
        )
        assert (code, err) == (0, "")
        assert f"{devices} x cpu" in out
    one, eight = (runs.checkpoint(tmp_path / n, 4) for n in ("1", "8"))
    assert one.keys() == eight.keys()
    different = 0
    for array, other in ((one[key], eight[key]) for key in one):
        assert_same(array, other)
        different += array.tobytes() != other.tobytes()
    assert different  # or the batch was not split
    left, right = (runs.lines(tmp_path / n)[-1] for n in ("1", "8"))
    assert left == pytest.approx(right, rel=1e-3, abs=1e-4)


SMALL_FLAGS = {
    "ll": ["--recipe=none"],
    "mmd": ["--recipe=none", "--pretrain_steps=1"],
    "adv": ["--recipe=none", "--pretrain_steps=1", "--adv_filters=2"],
    "pae": [],
    "gan": ["--adv_filters=2", "--match_params=circuit"],
    "mmd_gan": ["--mmd_filters=2", "--mmd_critic_busy_steps=1", "--mmd_critic_steps=1"],
    "vae": ["--match_params=circuit"],
    "classifier": ["--classifier_filters=2"],
    "ade": ["--pretrain_steps=1", "--adv_filters=2", "--flow=colour"],
}


def test_every_program_is_among_them():
    assert set(SMALL_FLAGS) == set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_FLAGS)
def test_every_program_continues_bit_for_bit(name: str, tmp_path: Path):
    program = PROGRAMS[name]
    words = [*FLAGS, "--eval_every=4", *SMALL_FLAGS[name]]
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    for workdir, steps in ((whole, 4), (twice, 2), (twice, 4)):
        evidence = [name, f"--workdir={workdir}", f"--num_steps={steps}", *words]
        assert program.main(program.parse(evidence)) == 0
    runs.assert_same_bits(whole, twice, 4)


@pytest.mark.slow
@needs("mnist")
@pytest.mark.parametrize("name", SMALL_FLAGS)
def test_every_program_runs_on_mnist(name: str, tmp_path: Path):
    program = PROGRAMS[name]
    words = [f"--workdir={tmp_path}", "--dataset=mnist", f"--data_dir={REAL}"]
    words += ["--num_steps=2", *FLAGS, *SMALL_FLAGS[name]]
    assert program.main(program.parse([name, *words])) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["step"], result["dataset"]) == (2, "mnist")
    assert all(np.isfinite(v) for v in result["metrics"].values())


@pytest.mark.slow
@needs("mnist")
def test_mnist_trains_at_full_size(tmp_path: Path):
    code, out, err = runs.run(
        *("--dataset=mnist", f"--data_dir={REAL}", f"--workdir={tmp_path}"),
        *("--num_steps=6", "--log_every=3", *FLAGS, "--recipe=none"),
        program="experiments.ll",
    )
    assert (code, err) == (0, "")
    assert "ll on mnist: 6 steps" in out
    first, last = (line["train/loss"] for line in runs.lines(tmp_path))
    assert last < first
    result = json.loads((tmp_path / "result.json").read_text())
    # A uniform code takes 8 bits, and the first leaves know the gray values' scale.
    assert 0 < result["metrics"]["test/bits_per_dim"] < 16
