"""Kernels and estimators of ``experiments.mmd`` and ``mmd_gan``, small."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.objectives import exact_mmd_loss
from experiments import mmd, mmd_gan
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.system import System
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, exact_term, square_tiles
from experiments.losses.penalized_critic import penalized_term
from experiments.losses.term import objective
from experiments.models import generators
from experiments.models.networks import NetworkSettings
from experiments.models.pixel_kernels import pixel_bandwidths
from tests import cases
from tests.experiments import runs
from tests.experiments.tiny import tiny_digits

SMALL: dict[str, Any] = {
    "num_sums": 4,
    "num_leaves": 4,
    "batch_size": 32,
    "learning_rate": 0.05,
    "structure": "random_binary_trees",
    "depth": 1,
    "num_repetitions": 1,
}
TINY: dict[str, Any] = {"mmd_filters": 4, "mmd_features": 3, "mmd_critic_steps": 2}
ALONE = MixtureSettings(pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=0.05)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


def mmd_system(
    dataset: Dataset,
    mixture: MixtureSettings = ALONE,
    changed: dict[str, Any] | None = None,
    critic: dict[str, Any] | None = None,
    **own: Any,
) -> System:
    return mmd.make_system(
        Settings(**{**SMALL, **(changed or {})}),
        mixture,
        MmdSettings(**own),
        CriticSettings(**{**TINY, **(critic or {})}),
        dataset,
    )


def loop_of(dataset: Dataset, system: System, **how: Any) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    how = {"seed": 0, "num_seeds": 1, "batch_size": 32, **how}
    return DeviceLoop(system, dataset, mesh=mesh, resident_bytes=2**30, **how)


def moved(before: Any, after: Any) -> list[float]:
    change = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), before, jax.device_get(after)
    )
    return jax.tree.leaves(change)


@pytest.mark.slow
def test_gradient_penalty_trains_both_sides(tiny: Dataset):
    """Pre-training leaves the critic alone."""
    system = mmd_system(
        tiny,
        MixtureSettings(pretrain_steps=2, ll_weight=0.0),
        mmd_kernel="gradient_penalty",
    )
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state)
    carry, failure = loop.run(loop.init(), 0, 2)
    assert failure is None
    assert max(moved(start.adversary[0], carry.state.adversary[0])) == 0
    before = jax.device_get(carry.state.params["circuit"])
    carry, _ = loop.drain(carry)
    carry, failure = loop.run(carry, 2, 3)
    assert failure is None
    # 15 steps of Adam with the rate 1e-4 at most, in every array.
    change = moved(start.adversary[0], carry.state.adversary[0])
    assert 1e-4 < min(change) <= max(change) < 3e-3
    assert max(moved(before, carry.state.params["circuit"])) > 1e-3
    _, means = loop.drain(carry)
    assert np.all(means["critic_gradient_penalty"] > 0)
    assert np.all(means["critic_activation_penalty"] > 0)


@pytest.mark.slow
def test_the_network_has_the_same_kernel(tiny: Dataset):
    settings = Settings(**{**SMALL, "learning_rate": 2e-4})
    system = mmd_gan.make_system(
        settings,
        NetworkSettings(gan_width=8),
        mmd_gan.KernelSettings(mmd_kernel="gradient_penalty"),
        CriticSettings(**TINY),
        tiny,
    )
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state)
    carry, failure = loop.run(loop.init(), 0, 2)
    assert failure is None
    assert max(moved(start.params, carry.state.params)) > 1e-5
    assert min(moved(start.adversary[0], carry.state.adversary[0])) > 1e-5


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"mmd_estimator": "exact"}, marks=pytest.mark.slow),
        pytest.param(
            {"mmd_estimator": "exact", "mmd_patch": 2}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"mmd_pixel_kernel": "rational_quadratic"}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"mmd_pixel_kernel": "rational_quadratic", "mmd_estimator": "biased"}
            | {"mmd_power": 1},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda own: ",".join(map(str, own.values())),
)
def test_mmd_falls_on_pixels(tiny: Dataset, own: dict[str, Any]):
    """By the program's own measure, from samples, whatever was minimized."""
    loop = loop_of(tiny, mmd_system(tiny, **own), batch_size=32)
    carry = loop.init()
    before = loop.evaluate(carry.state, tiny.valid)["mmd2"][0]
    for step in (0, 40):
        carry, failure = loop.run(carry, step, 40)
        assert failure is None
    assert loop.evaluate(carry.state, tiny.valid)["mmd2"][0] < 0.5 * before


@pytest.mark.slow
def test_a_circuit_that_begins_dark_comes_to_the_data_by_gradient_penalty(
    tiny: Dataset,
):
    """From leaves shifted by half the range, the distance to the data falls."""
    system = mmd_system(
        tiny,
        MixtureSettings(pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=0.02),
        critic={"mmd_critic_learning_rate": 2e-3, "mmd_filters": 8},
        mmd_kernel="gradient_penalty",
    )
    loop = loop_of(tiny, system)
    carry = loop.init()
    params = carry.state.params
    leaves = tuple(
        leaf._replace(mean=leaf.mean - 0.5) for leaf in params["circuit"].leaves
    )
    circuit = params["circuit"]._replace(leaves=leaves)
    state = carry.state._replace(params=params | {"circuit": circuit})
    carry = loop.put(carry._replace(state=state))
    before = loop.evaluate(carry.state, tiny.valid)["mmd2"][0]
    for first in range(0, 120, 40):
        carry, failure = loop.run(carry, first, 40)
        assert failure is None
    after = loop.evaluate(carry.state, tiny.valid)["mmd2"][0]
    assert after < 0.3 * before, (before, after)


def test_the_exact_term_is_the_loss_of_the_library(tiny: Dataset):
    settings = Settings(**SMALL)
    circuit = generators.circuit_generator(settings, tiny).circuit
    assert circuit is not None
    params = {"circuit": cases.jit(circuit.circuit.init)(jax.random.key(0))}
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    bandwidths = np.asarray(pixel_bandwidths(circuit.codec, circuit.references))
    halves = jnp.asarray([[1, 1, 0, 0] * 2, [0, 0, 1, 1] * 2], bool)

    evidence = MmdSettings(mmd_estimator="exact", mmd_patch=2)
    term = exact_term(circuit, evidence, tiny)

    def sample(keys, params):
        raise AssertionError("the exact MMD needs no samples")

    @cases.jit
    def both(params):
        expected = exact_mmd_loss(
            params["circuit"],
            None,
            x,
            circuit=circuit.circuit,
            bandwidths=bandwidths / np.sqrt(2),
            patches=halves,
        )[0]
        return term.loss(params, jax.random.key(1), x, (), sample)[0], expected

    np.testing.assert_allclose(*both(params), rtol=1e-5)


def test_tiles_cut_an_image_into_squares():
    tiles = square_tiles(3, 5, 2).reshape(-1, 3, 5)
    np.testing.assert_array_equal(tiles.sum(0), 1)
    assert sorted(tile.sum() for tile in tiles) == [1, 2, 2, 2, 4, 4]
    numbers = np.argmax(tiles, axis=0)
    np.testing.assert_array_equal(numbers[:2], numbers[:1] * np.ones((2, 1), int))
    assert len(np.unique(numbers)) == 6


@pytest.mark.slow
def test_advantages_on_learned_features_are_those_of_the_set(tiny: Dataset):
    """The closed form against leaving out one sample after the other."""
    settings = Settings(**SMALL)
    generator = generators.circuit_generator(settings, tiny)
    circuit = generator.circuit
    assert circuit is not None
    term = penalized_term(CriticSettings(**TINY), tiny)
    params, adversary = generator.init(jax.random.key(0)), term.init(jax.random.key(2))
    x = jnp.asarray(tiny.train[:5], jnp.float32) / 16

    def gradient(advantages):
        def loss(params):
            scored = objective(
                term._replace(advantages=advantages),
                adversary,
                generator.sampler(params, jnp.int32(0)),
                "score_pathwise",
                circuit.circuit,
                circuit.codec.to_unit,
            )
            return scored(params, jax.random.key(1), x)[0]

        return jax.jit(jax.grad(loss))(params)

    result, expected = gradient(term.advantages), gradient(None)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-3
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-2, atol=1e-5),
        result,
        expected,
    )


@pytest.mark.parametrize(
    ("changed", "own", "message"),
    [
        (
            {"leaf": "binomial"},
            {},
            "exact here: circuit must have Normal leaves .* got Bi",
        ),
        (
            {"structure": "random_binary_trees", "depth": 1, "num_repetitions": 2},
            {},
            "exact here: circuit must have one partition of every region",
        ),
        ({}, {"mmd_kernel": "autoencoder"}, "--mmd_kernel must be pixel .* 'autoenc"),
        (
            {},
            {"mmd_pixel_kernel": "rational_quadratic"},
            "--mmd_pixel_kernel must be gaussian with --mmd_estimator=exact",
        ),
        ({}, {"mmd_power": 1}, "--mmd_estimator must be biased with --mmd_power=1"),
        (
            {},
            {"mmd_estimator": "biased", "mmd_patch": 2},
            "--mmd_estimator must be exact with --mmd_patch, got 'biased'",
        ),
    ],
)
def test_what_has_no_closed_form_is_refused_in_one_line(
    tiny: Dataset, changed: dict[str, Any], own: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message) as error:
        mmd_system(tiny, changed=changed, **{"mmd_estimator": "exact", **own})
    assert "\n" not in str(error.value)


def test_one_repetition_has_a_closed_form(tiny: Dataset):
    changed = {"structure": "random_binary_trees", "depth": 1, "num_repetitions": 1}
    mmd_system(tiny, changed=changed, mmd_estimator="exact")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "experiments.mmd",
            ["--recipe=none", "--mmd_kernel=gradient_penalty", "--pretrain_steps=2"],
        ),
        (
            "experiments.mmd",
            ["--recipe=none", "--mmd_estimator=exact", "--mmd_patch=4"],
        ),
        (
            "experiments.mmd_gan",
            ["--mmd_kernel=gradient_penalty", "--match_params=circuit"],
        ),
    ],
)
def test_a_continued_run_ends_with_the_same_bits(
    tmp_path: Path, program: str, words: list[str]
):
    sizes = {**SMALL, **(TINY if program == "experiments.mmd_gan" else {})}
    evidence = [f"--{name}={value}" for name, value in sizes.items()]
    evidence += [*words, "--eval_every=4", "--checkpoint_every=2"]
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    for workdir, steps in ((whole, 6), (twice, 4), (twice, 6)):
        code, out, err = runs.run(
            f"--workdir={workdir}", f"--num_steps={steps}", *evidence, program=program
        )
        assert (code, err) == (0, "")
        assert "test/mmd2" in out
    runs.assert_same_bits(whole, twice, 6)
