"""A run that starts from another's circuit, and the control without samples."""

from collections.abc import Iterator
import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

from experiments import data, ll, mmd
from experiments.console.errors import UserError
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.starting import started
from experiments.engine.system import System
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings
from experiments.measuring import trained
from tests.experiments.tiny import tiny_digits

SMALL: dict[str, Any] = {"num_sums": 2, "num_leaves": 3, "batch_size": 16}
SMALL |= {"structure": "random_binary_trees", "depth": 1, "num_repetitions": 1}


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[data.Dataset]:
    """A piece of the digits, 2x4 pixels, in their place: programs compile fast."""
    dataset = tiny_digits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *_: dataset)
        yield dataset


@pytest.fixture(scope="module")
def source(tiny: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of likelihood on the digits, seeds 4 and 5."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    words += ["--seed=4", "--num_seeds=2", "--num_steps=2", f"--workdir={workdir}"]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words])) == 0
    return workdir


def loop_of(system: System, settings: Settings) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    dataset = data.load("digits", None)
    seeds = settings.seed, settings.num_seeds
    return DeviceLoop(system, dataset, *seeds, 16, mesh, resident_bytes=2**30)


def test_the_circuit_is_that_of_the_run_seed_by_seed(source: Path):
    run = trained.load(source, "start_from")
    assert (run.program, run.step, run.seeds) == ("ll", 2, [4, 5])
    settings = Settings(seed=5, start_from=str(source), **SMALL)
    groups = settings, MixtureSettings(pretrain_steps=0), MmdSettings()
    system = mmd.make_system(*groups, CriticSettings(), dataset=run.dataset)
    loop = loop_of(system, settings)
    first = jax.device_get(loop.init())
    carry = started(first, [settings])
    theirs = run.state(1).params["circuit"]
    jax.tree.map(
        lambda own, other: np.testing.assert_array_equal(own[0], other),
        carry.state.params["circuit"],
        theirs,
    )
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), first.state.params["circuit"], theirs
    )
    assert max(jax.tree.leaves(moved)) > 0.01  # it was another one before
    again = started(jax.device_get(loop_of_ll(settings).init()), [settings])
    jax.tree.map(
        lambda own, other: np.testing.assert_array_equal(own[0], other),
        again.state.params["circuit"],
        theirs,
    )


def test_the_best_states_stand_for_a_run_that_kept_them(
    source: Path, carry: Any, tmp_path: Path
):
    """They are read for measures, and passed on."""
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    words += ["--seed=4", "--num_seeds=2", "--num_steps=6", f"--workdir={tmp_path}"]
    words += ["--keep_best", "--eval_every=1", "--learning_rate=0.3"]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words])) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert max(result["best_step"]) < 6
    assert "stopped_step" not in result
    run = trained.load(tmp_path, "run")
    assert run.step == result["step"] == 6
    bits = run.loop.evaluate(run.loop.put(run.states), run.loop.examples("test"))
    np.testing.assert_allclose(
        bits["bits_per_dim"], result["metrics"]["test/bits_per_dim_seeds"], rtol=1e-6
    )
    settings = Settings(seed=4, start_from=str(tmp_path), **SMALL)
    passed_on = started(carry, [settings]).state.params["circuit"]
    jax.tree.map(
        lambda own, other: np.testing.assert_array_equal(own[0], other),
        passed_on,
        run.state(0).params["circuit"],
    )


def loop_of_ll(settings: Settings) -> DeviceLoop:
    dataset = data.load("digits", None)
    return loop_of(ll.make_system(settings, dataset), settings)


@pytest.fixture(scope="module")
def carry() -> Any:
    """A circuit of the same flags, untrained."""
    return jax.device_get(loop_of_ll(Settings(seed=4, **SMALL)).init())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_sums": 4}, "--num_sums must be that of --start_from, 2, got 4"),
        ({"leaf": "binomial"}, "--leaf must be that of --start_from, 'normal'"),
        ({"seed": 6}, r"--start_from must hold the seeds \[6\], got \[4, 5\]"),
        ({"start_from": "/nowhere"}, "there is no config.json in '/nowhere'"),
    ],
)
def test_another_circuit_is_refused(
    source: Path, carry: Any, changed: dict[str, Any], words: str
):
    settings = Settings(seed=4, start_from=str(source), **SMALL)
    with pytest.raises(UserError, match=words):
        started(carry, [dataclasses.replace(settings, **changed)])


def copy_of(source: Path, folder: Path, **changed: Any) -> Settings:
    """Flags that start from a copy of a run with other flags in its configuration."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["flags"] |= changed
    (folder / "config.json").write_text(json.dumps(config))
    return Settings(seed=4, start_from=str(folder), **SMALL)


def behind_a_flow(carry: Any) -> Any:
    """The same circuit behind a flow that has no parameters."""
    params = carry.state.params | {"flow": {}}
    return carry._replace(state=carry.state._replace(params=params))


def test_a_circuit_behind_a_flow_is_another(source: Path, carry: Any, tmp_path: Path):
    message = "must be a run whose circuit is that of this program, got a run of 'll'"
    settings = Settings(seed=4, start_from=str(source), **SMALL)
    with pytest.raises(UserError, match=message):
        started(behind_a_flow(carry), [settings])
    settings = copy_of(source, tmp_path / "run", flow="identity")
    with pytest.raises(UserError, match=message):
        started(carry, [settings])
    params = started(behind_a_flow(carry), [settings]).state.params
    theirs = started(carry, [Settings(seed=4, start_from=str(source), **SMALL)])
    expected = theirs.state.params["circuit"]
    jax.tree.map(np.testing.assert_array_equal, params["circuit"], expected)


def test_another_shape_behind_the_same_flags_is_refused(source: Path, carry: Any):
    params = jax.tree.map(lambda leaf: np.repeat(leaf, 2, -1), carry.state.params)
    other = carry._replace(state=carry.state._replace(params=params))
    settings = Settings(seed=4, start_from=str(source), **SMALL)
    with pytest.raises(UserError, match="must be a run whose circuit is that of"):
        started(other, [settings])


def test_a_program_without_a_circuit_is_refused(source: Path, carry: Any):
    other = carry._replace(state=carry.state._replace(params={"decoder": np.ones(3)}))
    settings = Settings(seed=4, start_from=str(source), **SMALL)
    with pytest.raises(UserError, match="must be a run whose circuit is that of"):
        started(other, [settings])


def test_a_checkpoint_must_be_there_and_whole(source: Path, carry: Any, tmp_path: Path):
    settings = copy_of(source, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "2").rglob("*"):
        if path.is_file() and "metadata" not in path.name.lower():
            path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"the checkpoint .*/2 cannot be read"):
        started(carry, [settings])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(UserError, match="--start_from must hold a checkpoint, got"):
        started(carry, [settings])


def test_a_run_of_an_unknown_program_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"program": "os", "flags": {}}')
    with pytest.raises(UserError, match="must be a run of ll, .* got one of 'os'"):
        trained.load(tmp_path, "run")


@pytest.mark.slow
def test_without_weight_the_samples_change_nothing(tiny: data.Dataset):
    """The control: steps of likelihood, whatever the loss on samples is."""
    settings = Settings(**SMALL)

    def after(mmd_settings: MmdSettings, weight: float) -> tuple[Any, dict]:
        mixture = MixtureSettings(0, ll_weight=1.0, sample_weight=weight)
        groups = settings, mixture, mmd_settings, CriticSettings()
        system = mmd.make_system(*groups, dataset=tiny)
        mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
        loop = DeviceLoop(system, tiny, 0, 1, 16, mesh, resident_bytes=2**30)
        carry, failure = loop.run(loop.init(), 0, 2)
        assert failure is None
        carry, means = loop.drain(carry)
        return jax.device_get(carry.state.params["circuit"]), means

    biased = MmdSettings(mmd_estimator="biased")
    one, means = after(MmdSettings(), 0.0)
    other, _ = after(biased, 0.0)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert "mmd_term" not in means
    np.testing.assert_array_equal(means["loss"], means["ll_term"])
    with_samples, _ = after(MmdSettings(), 1.0)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, with_samples)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_no_weight_at_all_is_refused(tiny: data.Dataset):
    groups = Settings(**SMALL), MixtureSettings(0, 0.0, 0.0), MmdSettings()
    with pytest.raises(UserError, match="--ll_weight must be greater than 0"):
        mmd.make_system(*groups, CriticSettings(), dataset=tiny)
