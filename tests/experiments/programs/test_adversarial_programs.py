"""Programs with a discriminator, small: circuits (adv) and networks (gan, mmd_gan)."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from experiments import adv, gan, mmd_gan
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.system import System
from experiments.losses.adversary import AdversarySettings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.models.networks import (
    NetworkSettings,
    matching_width,
    num_circuit_params,
)
from experiments.models.preprocessing import preprocessing
from tests.experiments import runs
from tests.experiments.tiny import tiny_digits

SMALL: dict[str, Any] = {"num_sums": 4, "num_leaves": 4, "batch_size": 32}
SMALL |= {"structure": "random_binary_trees", "depth": 1, "num_repetitions": 1}
TINY: dict[str, Any] = {"adv_filters": 4, "adv_units": 3}
TINY_CRITIC = CriticSettings(
    mmd_filters=4, mmd_features=5, mmd_critic_steps=1, mmd_critic_busy_steps=2
)
ALONE = MixtureSettings(pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=0.02)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


def loop_of(dataset: Dataset, system: System, **how: Any) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    how = {"seed": 0, "num_seeds": 1, "batch_size": 32, **how}
    return DeviceLoop(system, dataset, mesh=mesh, resident_bytes=2**30, **how)


def adv_system(
    dataset: Dataset,
    mixture: MixtureSettings = ALONE,
    changed: dict[str, Any] | None = None,
    **adversary: Any,
) -> System:
    settings = Settings(**{**SMALL, **(changed or {})})
    return adv.make_system(
        settings, mixture, AdversarySettings(**{**TINY, **adversary}), dataset
    )


def trained(loop: DeviceLoop, steps: int, stride: int = 20):
    """The carry after the steps, and the mean metrics of each stride."""
    carry, history = loop.init(), []
    for first in range(0, steps, stride):
        carry, failure = loop.run(carry, first, stride)
        assert failure is None
        carry, means = loop.drain(carry)
        history.append({name: float(v[0]) for name, v in means.items()})
    return carry, history


DISCRIMINATORS = {
    "mlp": {"adv_loss": "hinge", "adv_augment": "translation,cutout"},
    "conv": {"adv_loss": "minmax"},
    "circuit": {"adv_gradient_penalty": 0.1, "adv_steps": 2},
    "self": {"adv_loss": "hinge", "adv_learning_rate": 0.01},
}


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("conv", "circuit", "self")),
    ],
)
def test_each_discriminator_trains_both_sides(tiny: Dataset, name: str):
    system = adv_system(tiny, adv_discriminator=name, **DISCRIMINATORS[name])
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state)
    carry, history = trained(loop, 6, 3)
    for part in ("params", "adversary"):
        before, after = getattr(start, part), getattr(carry.state, part)
        if part == "adversary":
            before, after = before.params, after.params
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), before, jax.device_get(after)
        )
        assert max(jax.tree.leaves(moved)) > 1e-4, part
    for name_of_metric in ("real_accuracy", "fake_accuracy"):
        assert 0 <= history[-1][f"discriminator_{name_of_metric}"] <= 1
    assert history[-1]["adv_grad_norm"] > 0
    assert history[-1]["sample_spread"] > 0
    assert history[-1]["loss"] == pytest.approx(history[-1]["adv_term"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "conv", "circuit", "self"])
def test_a_circuit_that_begins_dark_comes_to_the_data(tiny: Dataset, name: str):
    """From leaves shifted by half the range, the distance to the data falls."""
    rate = {"mlp": 2e-3, "conv": 2e-3, "circuit": 0.01, "self": 0.01}[name]
    system = adv_system(
        tiny, adv_discriminator=name, adv_learning_rate=rate, adv_r1_weight=0.1
    )
    loop = loop_of(tiny, system)
    carry = loop.init()
    params = carry.state.params

    def shifted(leaf):
        return leaf._replace(mean=leaf.mean - 0.5)

    leaves = tuple(shifted(leaf) for leaf in params["circuit"].leaves)
    circuit = params["circuit"]._replace(leaves=leaves)
    state = carry.state._replace(params=params | {"circuit": circuit})
    carry = loop.put(carry._replace(state=state))
    before = loop.evaluate(carry.state, tiny.valid)["mmd2"][0]
    for first in range(0, 240, 60):
        carry, failure = loop.run(carry, first, 60)
        assert failure is None
    after = loop.evaluate(carry.state, tiny.valid)["mmd2"][0]
    # In 240 steps; normalized convolutions of 4 filters are the slowest (0.84).
    share = {"mlp": 0.3, "conv": 0.95, "circuit": 0.6, "self": 0.3}[name]
    assert after < share * before, (before, after)


@pytest.mark.slow
def test_the_own_density_starts_from_the_pretrained_circuit(tiny: Dataset):
    mixture = MixtureSettings(pretrain_steps=3, ll_weight=0.5)
    system = adv_system(tiny, mixture, adv_discriminator="self")
    loop = loop_of(tiny, system)
    carry, failure = loop.run(loop.init(), 0, 3)
    assert failure is None
    pretrained = jax.device_get(carry.state.params["circuit"])
    carry, _ = loop.drain(carry)
    carry, _ = loop.run(carry, 3, 1)
    adversary = jax.device_get(carry.state.adversary)
    jax.tree.map(np.testing.assert_array_equal, adversary.generator, pretrained)
    ahead = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), adversary.params, pretrained
    )
    # One step of Adam moves no number by more than its rate.
    assert 0 < max(jax.tree.leaves(ahead)) < 3.1e-3
    _, means = loop.drain(carry)
    # Before its first step the copy is the generator: all logits are 0.
    np.testing.assert_allclose(means["discriminator_loss"], 2 * np.log(2), rtol=1e-5)


@pytest.mark.slow
def test_vmapped_seeds_are_single_seeds(tiny: Dataset):
    """Two seeds as one program, and the second alone; pre-training included."""
    mixture = MixtureSettings(pretrain_steps=1, ll_weight=0.3)
    ends = {}
    for seed, num_seeds in ((0, 2), (1, 1)):
        system = adv_system(
            tiny,
            mixture,
            {"batch_size": 8},
            adv_discriminator="mlp",
            adv_augment="all",
            adv_r1_weight=0.5,
        )
        loop = loop_of(tiny, system, seed=seed, num_seeds=num_seeds, batch_size=8)
        carry, failure = loop.run(loop.init(), 0, 3)
        assert failure is None
        ends[num_seeds] = jax.device_get(carry.state)
    for one, two in zip(
        jax.tree.leaves(ends[1]), jax.tree.leaves(ends[2]), strict=True
    ):
        np.testing.assert_allclose(one[0], two[1], rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_the_discriminator_may_pause(tiny: Dataset):
    """With a period of 3 it moves before the steps 0, 3, ...; its metrics go on."""
    loop = loop_of(tiny, adv_system(tiny, adv_discriminator="mlp", adv_every=3))
    carry, moves = loop.init(), []
    before = jax.device_get(carry.state.adversary.params)
    for step in range(5):
        carry, _ = loop.run(carry, step, 1)
        carry, means = loop.drain(carry)
        assert means["discriminator_loss"][0] > 0.1
        after = jax.device_get(carry.state.adversary.params)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
        moves.append(bool(max(jax.tree.leaves(moved)) > 0))
        before = after
    assert moves == [True, False, False, True, False]


def gan_system(dataset: Dataset, network: NetworkSettings, **adversary: Any) -> System:
    settings = Settings(**{**SMALL, "learning_rate": 2e-3})
    return gan.make_system(
        settings, network, AdversarySettings(**{**TINY, **adversary}), dataset
    )


@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        ("mlp", "mlp"),
        ("conv", "mlp"),
    ],
)
@pytest.mark.slow
def test_a_network_comes_nearer_to_the_data(
    tiny: Dataset, generator: str, discriminator: str
):
    network = NetworkSettings(gan_generator=generator, gan_width=8)
    loop = loop_of(
        tiny,
        gan_system(
            tiny, network, adv_discriminator=discriminator, adv_learning_rate=2e-3
        ),
    )
    before = loop.evaluate(loop.init().state, tiny.valid)
    assert set(before) == {"mmd2", "sample_spread", "num_params"}
    carry, _ = trained(loop, 800, 100)
    after = loop.evaluate(carry.state, tiny.valid)
    assert after["mmd2"][0] < 0.5 * before["mmd2"][0]
    pictures = loop.sample(carry.state, 3)
    assert list(pictures) == ["sampled"]
    assert pictures["sampled"].dtype == np.uint8
    assert pictures["sampled"].shape == (3, 8, 1)
    assert pictures["sampled"].max() <= 16


@pytest.mark.slow
def test_a_network_with_as_many_parameters_as_the_circuit_trains(tiny: Dataset):
    settings = Settings(**{**SMALL, "num_sums": 16, "num_leaves": 16})
    network = NetworkSettings(match_params="circuit", gan_latents=3)
    system = gan.make_system(settings, network, AdversarySettings(**TINY), tiny)
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state)
    carry, failure = loop.run(loop.init(), 0, 2)
    assert failure is None
    for before, after in (
        (start.params, carry.state.params),
        (start.adversary.params, carry.state.adversary.params),
    ):
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), before, jax.device_get(after)
        )
        assert min(jax.tree.leaves(moved)) > 0
    metrics = loop.evaluate(carry.state, tiny.valid)
    assert metrics["num_circuit_params"][0] == num_circuit_params(settings, tiny)
    ratio = metrics["num_params"][0] / metrics["num_circuit_params"][0]
    assert 0.7 < ratio < 1.4
    count = sum(leaf.size for leaf in jax.tree.leaves(start.params))
    assert count == metrics["num_params"][0]


def test_the_matching_width_is_the_nearest():
    class Square:
        def __init__(self, width: int):
            self._width = width

        def num_params(self) -> int:
            return self._width**2

    result = [matching_width(Square, target) for target in (1, 2, 3, 90, 91, 10_000)]
    assert result == [1, 1, 2, 9, 10, 100]


def test_mmd_gan_trains_both_sides(tiny: Dataset):
    settings = Settings(**{**SMALL, "learning_rate": 2e-4})
    network = NetworkSettings(gan_width=8)
    system = mmd_gan.make_system(
        settings, network, mmd_gan.KernelSettings(), TINY_CRITIC, tiny
    )
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state)
    carry, failure = loop.run(loop.init(), 0, 2)
    assert failure is None
    for before, after in (
        (start.params, carry.state.params),
        (start.adversary[0]["decoder"], carry.state.adversary[0]["decoder"]),
    ):
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), before, jax.device_get(after)
        )
        assert max(jax.tree.leaves(moved)) > 0


def test_gray_values_come_back_to_the_leaves_units():
    rng = np.random.default_rng(0)
    levels = jnp.asarray(rng.integers(0, 17, (5, 8, 1)), jnp.uint8)
    for leaf in ("binomial", "bernoulli", "normal", "discretized_logistic"):
        codec = preprocessing(leaf, 17)
        x = codec.encode(jax.random.key(0), levels)
        np.testing.assert_array_equal(codec.from_unit(codec.to_unit(x)), x)
    codec = preprocessing("binomial", 17)
    gray = jnp.asarray([-0.2, 0.24, 0.26, 1.7])
    np.testing.assert_array_equal(codec.from_unit(gray), [0, 4, 4, 16])
    slopes = jax.vmap(jax.grad(codec.from_unit))(gray)
    np.testing.assert_allclose(slopes, 16)


def test_what_does_not_fit_is_refused_in_one_line(tiny: Dataset):
    with pytest.raises(UserError, match="--leaf must have a density .* 'categorical'"):
        adv_system(tiny, changed={"leaf": "categorical"}, adv_discriminator="self")
    with pytest.raises(UserError, match="--adv_discriminator must be mlp, conv, class"):
        gan_system(tiny, NetworkSettings(), adv_discriminator="self")
    for word, message in (
        ("--adv_augment=flip", "--adv_augment must be none, all, or some of"),
        ("--adv_dropout=1", "--adv_dropout must be at least 0 and less than 1"),
        ("--adv_loss=wgan", "--adv_loss must be one of vanilla, minmax, log_ratio"),
        ("--adv_steps=0", "--adv_steps must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            adv.parse(["adv", word])


def test_no_flag_that_may_be_raised_on_continuing_enters_a_system():
    assert not flags.free_flags([AdversarySettings, NetworkSettings])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "experiments.adv",
            ["--recipe=none", "--pretrain_steps=2", "--adv_discriminator=self"],
        ),
        ("experiments.gan", ["--match_params=circuit", "--adv_augment=all"]),
    ],
)
def test_a_continued_run_ends_with_the_same_bits(
    tmp_path: Path, program: str, words: list[str]
):
    evidence = [f"--{name}={value}" for name, value in SMALL.items()]
    evidence += [*words, "--eval_every=4", "--checkpoint_every=2"]
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    for workdir, steps in ((whole, 6), (twice, 4), (twice, 6)):
        code, out, err = runs.run(
            f"--workdir={workdir}", f"--num_steps={steps}", *evidence, program=program
        )
        assert (code, err) == (0, "")
        assert "test/mmd2" in out
    runs.assert_same_bits(whole, twice, 6)


@pytest.mark.parametrize("name", ["gan_stable", "gan_unstable", "gan_collapse"])
def test_presets_are_commands(name: str):
    path = Path(__file__).parents[1] / "presets" / f"{name}.flags"
    settings, _, adversary = gan.parse(["gan", f"--flagfile={path}"])
    assert (settings.batch_size < 8) == (name == "gan_collapse")
    assert (adversary.adv_every > 1) == (name == "gan_unstable")


@pytest.mark.parametrize("program", [adv, gan, mmd_gan])
def test_the_flags_of_the_programs_have_their_defaults(program):
    groups = program.parse(["program"])
    assert groups[0].learning_rate == (0.03 if program is adv else 2e-4)
