"""Every program, small: it runs, learns, continues, and its flags do what they say."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

import dspc_jax as pc
from experiments import ll, mmd
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags, training
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.system import System
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings
from experiments.models import circuit as model
from tests import cases
from tests.experiments import runs
from tests.experiments.tiny import tiny_digits

SMALL: dict[str, Any] = {
    "num_sums": 4,
    "num_leaves": 4,
    "batch_size": 16,
    "learning_rate": 0.05,
}
SHALLOW: dict[str, Any] = {
    "structure": "random_binary_trees",
    "depth": 1,
    "num_repetitions": 1,
}
DISTILLED: dict[str, Any] = {
    "structure": "quad_graph",
    "sum_layer": "cp",
    "leaf": "categorical",
    "start": "distill",
}
TINY_CRITIC = CriticSettings(
    mmd_filters=4, mmd_features=5, mmd_critic_steps=1, mmd_critic_busy_steps=2
)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


def small(**changed: Any) -> Settings:
    values: dict[str, Any] = {**SMALL, **changed}
    return Settings(**values)


def loop_of(dataset: Dataset, system: System, **how: Any) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    settings: dict[str, Any] = {"seed": 0, "num_seeds": 1, "batch_size": 16, **how}
    return DeviceLoop(system, dataset, mesh=mesh, resident_bytes=2**30, **settings)


def mmd_system(
    dataset: Dataset,
    mixture: MixtureSettings,
    mmd_settings: MmdSettings | None = None,
    **changed: Any,
) -> System:
    settings = small(**SHALLOW, **changed)
    mmd_settings = mmd_settings or MmdSettings()
    return mmd.make_system(settings, mixture, mmd_settings, TINY_CRITIC, dataset)


def test_a_start_by_distillation_is_better(tiny: Dataset):
    """Before any step; and EM with falling steps goes on from there."""
    settings = small(
        **DISTILLED,
        optimizer="em",
        em_decay_steps=20,
        em_pseudocount=1.0,
        em_leaf_pseudocount=2.0,
        batch_size=64,
    )
    loop = loop_of(tiny, ll.make_system(settings, tiny), batch_size=64)
    carry = loop.init()
    before = loop.evaluate(carry.state, tiny.valid)["bits_per_dim"]
    carry = loop.started(carry)
    start = loop.evaluate(carry.state, tiny.valid)["bits_per_dim"]
    assert start < before - 0.3
    again = loop.started(loop.init())
    jax.tree.map(np.testing.assert_array_equal, carry.state, again.state)
    carry, failure = loop.run(carry, 0, 40)
    assert failure is None
    assert loop.evaluate(carry.state, tiny.valid)["bits_per_dim"] < start - 0.01


def test_classes_are_read_off(tiny: Dataset):
    """Without a step of training the circuit tells classes apart: 0.1 by chance."""
    settings = small(**DISTILLED, labels="roots", num_classes=10)
    loop = loop_of(tiny, ll.make_system(settings, tiny))
    carry, valid = loop.init(), loop.examples("valid")
    before = loop.evaluate(carry.state, valid)["accuracy"]
    start = loop.evaluate(loop.started(carry).state, valid)["accuracy"]
    assert start > 0.3 > before


def test_a_start_that_does_not_fit_is_refused(tiny: Dataset, tmp_path: Path):
    workdir = str(tmp_path)
    settings = small(start="distill", workdir=workdir)
    system = ll.make_system(settings, tiny)
    with pytest.raises(UserError, match="--start must be examples with this program"):
        training.run("x", system._replace(start=None), tiny, [settings])
    settings = small(start="distill", workdir=workdir, start_from="other")
    with pytest.raises(UserError, match="--start must be examples with --start_from"):
        training.run("x", system, tiny, [settings])
    assert not list(tmp_path.iterdir())


def test_a_last_step_size_without_decay_is_refused(tiny: Dataset):
    settings = small(optimizer="em", leaf="binomial", em_last_step_size=0.02)
    with pytest.raises(UserError, match="must go with --em_decay_steps of at least 1"):
        ll.make_system(settings, tiny)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        pytest.param(
            {"leaf": "discretized_logistic", "sum_layer": "tucker", "num_classes": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"optimizer": "em", "leaf": "binomial", "structure": "random_binary_trees"}
            | {"depth": 2, "em_step_size": 0.2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_maximum_likelihood_lowers_the_bits(tiny: Dataset, changed: dict[str, Any]):
    settings = small(num_repetitions=2, **changed)
    loop = loop_of(tiny, ll.make_system(settings, tiny))
    carry = loop.init()
    before = loop.evaluate(carry.state, tiny.valid)
    carry, failure = loop.run(carry, 0, 60)
    assert failure is None
    after = loop.evaluate(carry.state, tiny.valid)
    assert after["bits_per_dim"] < before["bits_per_dim"] - 0.05
    pictures = loop.sample(carry.state, 3)
    assert set(pictures) == {"sampled", "sampled, leaf means"}
    for levels in pictures.values():
        assert levels.shape == (3, 8, 1)
        assert levels.dtype == np.uint8


@pytest.mark.slow
def test_pictures_of_sharper_circuits_stand_beside_the_others(tiny: Dataset):
    """The flag changes nothing else: the same images, and metrics of these alone."""

    def drawn(sharpness):
        system = ll.make_system(small(**SHALLOW, sharpness=sharpness), tiny)
        state = system.init(jax.random.key(0))
        spread = cases.randomize(state.params["circuit"], seed=0, scale=3.0)
        own = spread._replace(leaves=state.params["circuit"].leaves)

        @cases.jit
        def shown(params, key):
            now = state._replace(params=params)
            metrics = system.evaluate(now, jax.random.clone(key), tiny.valid[:8])
            return system.sample(now, key, 40), metrics

        return shown, own

    (plain, own), (both, _) = drawn(1.0), drawn(50.0)
    circuit = model.make_model(small(**SHALLOW), tiny).circuit
    key = jax.random.key(1)
    pictures, metrics = both({"circuit": own}, jax.random.clone(key))
    expected, same = plain({"circuit": own}, jax.random.clone(key))
    jax.tree.map(np.testing.assert_array_equal, metrics, same)
    sharp, _ = plain({"circuit": pc.sharpened(circuit, own, 50.0)}, key)
    for title in ("sampled", "sampled, leaf means"):
        np.testing.assert_array_equal(pictures[title], expected[title])
        sharper = pictures.pop(f"{title}, sharpness 50")
        np.testing.assert_array_equal(sharper, sharp[title])
        assert (sharper != expected[title]).any()
    assert pictures.keys() == expected.keys()


def test_the_reported_loss_is_that_of_the_library(tiny: Dataset):
    """Evaluated bits against a plain computation outside the programs."""
    settings = small(leaf="binomial")
    circuit = model.make_model(settings, tiny)
    params = cases.jit(functools.partial(model.init, circuit))(jax.random.key(1))
    loop = loop_of(tiny, ll.make_system(settings, tiny))
    carry = loop.init()
    carry = carry._replace(
        state=carry.state._replace(params=jax.tree.map(lambda p: p[None], params))
    )
    bits = loop.evaluate(loop.put(carry.state), tiny.valid)["bits_per_dim"]
    log_prob = cases.jit(jax.vmap(circuit.circuit.log_prob, (None, 0)))
    log_p = log_prob(params["circuit"], tiny.valid.astype(np.float32))
    expected, of_some = (
        -np.mean(subject) / (8 * np.log(2)) for subject in (log_p, log_p[:20])
    )
    np.testing.assert_allclose(bits[0], expected, rtol=1e-5)
    assert abs(of_some - expected) > 1e-4  # the rest of the images counts


@pytest.mark.parametrize(
    ("relaxation", "schedule"),
    [
        ("straight_through", "learned"),
        pytest.param("gumbel_softmax", "annealed", marks=pytest.mark.slow),
        pytest.param("simple", "constant", marks=pytest.mark.slow),
        pytest.param("dense", "learned", marks=pytest.mark.slow),
        pytest.param("gumbel_rao", "learned", marks=pytest.mark.slow),
        pytest.param("reinmax", "constant", marks=pytest.mark.slow),
        pytest.param("implicit", "constant", marks=pytest.mark.slow),
        pytest.param("score_function", "constant", marks=pytest.mark.slow),
        pytest.param("score_pathwise", "constant", marks=pytest.mark.slow),
        pytest.param("rebar", "annealed", marks=pytest.mark.slow),
    ],
)
def test_mmd_falls_on_pixels(tiny: Dataset, relaxation: str, schedule: str):
    system = mmd_system(
        tiny,
        MixtureSettings(pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=0.05),
        relaxation=relaxation,
        temperature_schedule=schedule,
        temperature=0.5,
        batch_size=64,
    )
    loop = loop_of(tiny, system, batch_size=64)
    carry, losses = loop.init(), []
    for step in (0, 20, 40, 60, 80):
        carry, failure = loop.run(carry, step, 20)
        assert failure is None
        carry, means = loop.drain(carry)
        losses.append(means["loss"][0])
        np.testing.assert_array_equal(means["loss"], means["mmd_term"])
    assert losses[-1] < 0.75 * losses[0]
    if schedule == "learned":
        learned = carry.state.params["temperature"]
        assert abs(float(learned["logit"][0])) > 1e-3  # 0 is the temperature 0.5


@pytest.mark.slow
def test_pre_training_is_maximum_likelihood(tiny: Dataset):
    """The circuit of the pre-training steps has the bits of the program ll's."""
    settings = small()
    by_ll = loop_of(tiny, ll.make_system(settings, tiny))
    expected, _ = by_ll.run(by_ll.init(), 0, 1)
    system = mmd_system(tiny, MixtureSettings(pretrain_steps=4, ll_weight=0.0))
    loop = loop_of(tiny, system)
    carry, _ = loop.run(loop.init(), 0, 4)
    carry, means = loop.drain(carry)
    np.testing.assert_array_equal(means["mmd_term"], [0.0])
    np.testing.assert_array_equal(means["ll_term"], means["loss"])
    assert jax.tree.structure(carry.state.params) == jax.tree.structure(
        expected.state.params
    )
    carry, _ = loop.run(carry, 4, 3)
    _, means = loop.drain(carry)
    np.testing.assert_array_equal(means["ll_term"], [0.0])
    assert means["mmd_term"][0] != 0


@pytest.mark.slow
def test_the_terms_of_the_loss_carry_their_weights(tiny: Dataset):
    terms = {}
    for weight in (1.0, 3.0):
        loop = loop_of(
            tiny, mmd_system(tiny, MixtureSettings(pretrain_steps=0, ll_weight=weight))
        )
        carry, _ = loop.run(loop.init(), 0, 1)
        _, terms[weight] = loop.drain(carry)
        np.testing.assert_allclose(
            terms[weight]["loss"],
            terms[weight]["mmd_term"] + terms[weight]["ll_term"],
            rtol=1e-6,
        )
    np.testing.assert_allclose(
        terms[3.0]["ll_term"], 3 * terms[1.0]["ll_term"], rtol=1e-5
    )
    np.testing.assert_allclose(
        terms[3.0]["mmd_term"], terms[1.0]["mmd_term"], rtol=1e-5
    )


@pytest.mark.slow
def test_the_auto_encoder_kernel_trains_both_sides(tiny: Dataset):
    system = mmd_system(
        tiny,
        MixtureSettings(pretrain_steps=2, ll_weight=0.0),
        MmdSettings(mmd_kernel="autoencoder"),
        num_seeds=2,
    )
    loop = loop_of(tiny, system, num_seeds=2)
    start = jax.device_get(loop.init().state.adversary[0])
    carry, failure = loop.run(loop.init(), 0, 2)
    assert failure is None
    # Pre-training leaves the critic alone.
    jax.tree.map(np.testing.assert_array_equal, carry.state.adversary[0], start)
    before = jax.device_get(carry.state.params["circuit"])
    carry, failure = loop.run(carry, 2, 3)
    assert failure is None
    critic = jax.device_get(carry.state.adversary[0])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), critic, start)
    assert min(jax.tree.leaves(moved["decoder"])) > 0
    assert max(np.abs(w).max() for w in jax.tree.leaves(critic["encoder"])) <= 0.01
    after = jax.device_get(carry.state.params["circuit"])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
def test_the_command_of_the_readme_in_small(tmp_path: Path):
    """The program as a user starts it, then continued, against an unbroken run."""
    words = [f"--{name}={SMALL[name]}" for name in ("num_sums", "num_leaves")]
    words += ["--pretrain_steps=2", "--eval_every=4", "--checkpoint_every=2"]
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    program = "experiments.mmd"
    for workdir, steps in ((whole, 6), (twice, 4), (twice, 6)):
        code, out, err = runs.run(
            f"--workdir={workdir}", f"--num_steps={steps}", *words, program=program
        )
        assert (code, err) == (0, "")
        assert "test/bits_per_dim" in out
    runs.assert_same_bits(whole, twice, 6)
    result = json.loads((whole / "result.json").read_text())
    assert result == json.loads((twice / "result.json").read_text()) | {
        "steps_per_second": result["steps_per_second"],
        "seconds": result["seconds"],
        "first_step": 0,
    }
    assert set(result["metrics"]) == {
        f"{split}/{name}"
        for split in ("valid", "test")
        for name in ("bits_per_dim", "mmd2", "num_params", "sample_spread")
    }
    assert len(list((whole / "samples").iterdir())) == 2


def test_parameters_do_not_depend_on_the_length_of_the_run():
    """No flag that may be raised on continuing enters a system, but in its pictures."""
    free = flags.free_flags([Settings, MixtureSettings, MmdSettings, CriticSettings])
    assert free == {
        *("data_dir", "cache_dir", "workdir", "num_steps"),
        *("checkpoint_every", "checkpoint_minutes", "eval_every", "log_every"),
        "sharpness",  # of pictures alone
    }
