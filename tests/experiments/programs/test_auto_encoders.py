"""The programs pae and vae, small."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.structure.latents import with_latents
from experiments import pae, vae
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.system import System
from experiments.losses.mixture import MixtureSettings
from experiments.models import code_usage, joint_circuit, reconstruction
from experiments.models.auto_encoder import AutoEncoder, PaeSettings
from experiments.models.variational import VaeSettings, chosen_network
from tests import cases
from tests.experiments import runs
from tests.experiments.tiny import tiny_digits

METRICS = {
    *("reconstruction_bce", "reconstruction_mse", "half_missing_bce"),
    *("hidden_half_bce", "mmd2", "sample_spread", "num_params"),
    *("kl", "code_spread", "active_latents"),
}
CIRCUIT_METRICS = {"bits_per_dim", "code_nats", "hidden_half_direct_bce"}
# The program's own step size. With 0.05 training is unstable: after 200 steps, seeds
# are between 0.07 and 0.69 of what there is to learn, with 0.01 between 0.08 and 0.15.
NO_LL = MixtureSettings(pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=0.01)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


@pytest.fixture(scope="module")
def one_batch(tiny: Dataset) -> Dataset:
    """Sixteen images for everything: what can be learned by heart."""
    images = tiny.train[:16]
    return tiny._replace(train=images, valid=images, test=images)


def settings(**changed: Any) -> Settings:
    values: dict[str, Any] = {"num_sums": 4, "num_leaves": 12, "batch_size": 16}
    return Settings(**(values | changed))


def pae_system(
    dataset: Dataset,
    mixture: MixtureSettings = NO_LL,
    shared: dict[str, Any] | None = None,
    **changed: Any,
) -> System:
    own = PaeSettings(**dict[str, Any](pae_latents=4, pae_patch=2) | changed)
    return pae.make_system(settings(**(shared or {})), mixture, own, dataset)


def vae_system(dataset: Dataset, **changed: Any) -> System:
    own = VaeSettings(**dict[str, Any](vae_width=12, vae_latents=3) | changed)
    return vae.make_system(settings(learning_rate=0.02), own, PaeSettings(), dataset)


def loop_of(dataset: Dataset, system: System, **how: Any) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    values: dict[str, Any] = {"seed": 0, "num_seeds": 1, "batch_size": 16, **how}
    return DeviceLoop(system, dataset, mesh=mesh, resident_bytes=2**30, **values)


def train(loop: DeviceLoop, num_steps: int, first: int = 0, carry: Any = None):
    carry = loop.init() if carry is None else carry
    for step in range(first, first + num_steps, 100):
        num = min(100, first + num_steps - step)
        carry, failure = loop.run(carry, step, num)
        assert failure is None
    return carry


def joint_of(dataset: Dataset) -> joint_circuit.JointModel:
    """The circuit of `pae_system`."""
    own = PaeSettings(pae_latents=4, pae_patch=2)
    return AutoEncoder(settings(), own, dataset).joint


def flat_bce(dataset: Dataset) -> float:
    """What the best image without knowledge costs: each pixel's mean."""
    x = dataset.valid / (dataset.num_values - 1)
    m = np.clip(x.mean(axis=0), 1e-3, 1 - 1e-3)
    return float(-(x * np.log(m) + (1 - x) * np.log(1 - m)).sum(axis=(1, 2)).mean())


def floor_bce(dataset: Dataset) -> float:
    """What perfect reconstruction costs: the entropy of gray values."""
    x = dataset.valid / (dataset.num_values - 1)
    m = np.clip(x, 1e-3, 1 - 1e-3)
    return float(-(x * np.log(m) + (1 - x) * np.log(1 - m)).sum(axis=(1, 2)).mean())


def check_overfit(dataset: Dataset, system: System, num_steps: int, share: float):
    """One batch is learned by heart, up to a share of what there is to learn."""
    loop = loop_of(dataset, system)
    carry = train(loop, num_steps)
    metrics = loop.evaluate(carry.state, dataset.valid)
    flat, floor = flat_bce(dataset), floor_bce(dataset)
    gap = (metrics["reconstruction_bce"][0] - floor) / (flat - floor)
    assert gap < share, metrics
    return loop, carry, metrics


@pytest.mark.slow
def test_pae_learns_one_batch_by_heart(one_batch: Dataset):
    _, _, metrics = check_overfit(one_batch, pae_system(one_batch), 200, 0.3)
    assert set(metrics) == METRICS | CIRCUIT_METRICS
    assert metrics["active_latents"] == 4
    assert metrics["code_nats"] > 1
    assert metrics["half_missing_bce"] > metrics["reconstruction_bce"]


@pytest.mark.slow
def test_pictures(one_batch: Dataset):
    """What they are called, and that reconstructions are those of the real images."""
    system = pae_system(one_batch, shared={"sharpness": 3.0})
    loop, carry, _ = check_overfit(one_batch, system, 200, 0.3)
    pictures = loop.sample(carry.state, 5)
    assert set(pictures) == {
        "reconstructed",
        "lower half hidden",
        "reconstructed from the rest",
        "mean given the rest",
        "decoded, z of the circuit",
        "decoded, z of the circuit, sharpness 3",
        "decoded, z from N(0, 1)",
    }
    for levels in pictures.values():
        assert levels.shape == (5, 8, 1)
        assert levels.dtype == np.uint8
    real = one_batch.valid[:5].astype(int)
    error = np.abs(pictures["reconstructed"].astype(int) - real).mean()
    assert error < np.abs(real - real.mean(axis=0)).mean() / 2
    np.testing.assert_array_equal(pictures["lower half hidden"][:, 4:], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "shared"),
    [
        ({"pae_encode": "sample", "pae_decode": "leaf_mean"}, {}),
        ({"pae_encode": "sample", "pae_decode": "sample"}, {"leaf_max_scale": 0.1}),
        ({"pae_encode": "mpe", "pae_loss": "mse"}, {}),
        ({"pae_decode": "network", "pae_network_width": 8}, {}),
        ({"pae_decode": "network", "pae_network": "conv", "pae_network_width": 4}, {}),
        ({"pae_missing": 0.5}, {}),
        ({"pae_kl_weight": 0.01, "pae_joint_weight": 0.003}, {}),
        ({}, {"leaf": "binomial"}),
        ({"pae_latents": 8}, {"structure": "random_binary_trees", "depth": 2}),
    ],
)
def test_every_way_learns_one_batch(
    one_batch: Dataset, changed: dict[str, Any], shared: dict[str, Any]
):
    shared = {"num_repetitions": 2, "temperature": 0.5} | shared
    check_overfit(one_batch, pae_system(one_batch, NO_LL, shared, **changed), 400, 0.6)


@pytest.mark.parametrize(
    "network", ["mlp", pytest.param("conv", marks=pytest.mark.slow)]
)
def test_vae_learns_one_batch_by_heart(one_batch: Dataset, network: str):
    system = vae_system(one_batch, vae_network=network, vae_kl_weight=0.05)
    _, _, metrics = check_overfit(one_batch, system, 400, 0.5)
    assert set(metrics) == METRICS | {"negative_elbo"}


@pytest.mark.slow
def test_pre_training_by_em_leaves_the_latents_alone(tiny: Dataset):
    mixture = MixtureSettings(pretrain_steps=3, ll_weight=0.1)
    system = pae_system(tiny, mixture, {"optimizer": "em"})
    loop = loop_of(tiny, system)
    start = jax.device_get(loop.init().state.params["circuit"])
    carry = train(loop, 3)
    after = jax.device_get(carry.state.params["circuit"])
    image, latents = (
        max(np.abs(a - b).max() for a, b in zip(old, new, strict=True))
        for old, new in zip(start.leaves, after.leaves, strict=True)
    )
    assert image > 1e-4
    assert latents == 0
    carry = train(loop, 1, 3, carry)
    moved = jax.device_get(carry.state.params["circuit"]).leaves[1].mean
    assert np.abs(moved - after.leaves[1].mean).max() > 1e-4


@pytest.mark.slow
def test_seeds_trained_together_are_seeds_trained_alone(tiny: Dataset):
    for system in (pae_system(tiny), vae_system(tiny)):
        together = train(loop_of(tiny, system, num_seeds=2), 3).state.params
        alone = train(loop_of(tiny, system, seed=1), 3).state.params
        jax.tree.map(
            lambda both, one: np.testing.assert_allclose(
                both[1], one[0], rtol=2e-3, atol=2e-4
            ),
            jax.device_get(together),
            jax.device_get(alone),
        )


def test_codes_are_the_principal_components_of_their_patches(tiny: Dataset):
    graph = with_latents(pc.QuadTree(2, 4, leaf_size=2), 2)
    x = tiny.train[:200].astype(np.float32) / 16
    codes = joint_circuit.patch_codes(graph, 8, x)
    assert codes.shape == (200, 2, 1)
    np.testing.assert_allclose(codes.std(axis=0), 1, rtol=1e-3)
    left = x[:, [0, 1, 4, 5], 0].astype(np.float64)
    _, vectors = np.linalg.eigh(np.cov(left.T))
    component = (left - left.mean(axis=0)) @ vectors[:, -1]
    correlation = np.corrcoef(component, codes[:, 0, 0])[0, 1]
    assert abs(correlation) > 0.999


def test_the_patch_is_the_least_that_has_latents_enough():
    for size, latents, patch, count in (
        (28, 64, 4, 64),
        (28, 20, 7, 16),
        (8, 16, 2, 16),
    ):
        assert joint_circuit.smallest_patch(size, size, latents) == patch
        graph = pc.QuadTree(size, size, leaf_size=patch).region_graph()
        assert sum(not parts for parts in graph.partitions_of) == count


@pytest.mark.slow
def test_collapsed_codes_show(tiny: Dataset):
    """All leaves of the latents alike, or an encoder of zeros: nothing is carried."""
    joint = joint_of(tiny)
    params = joint_circuit.init(joint, jax.random.key(2))
    levels = jnp.asarray(tiny.valid[:32])

    evaluate = cases.jit(functools.partial(code_usage.evaluate, joint))

    def measure(params):
        values = evaluate(params, jax.random.key(1), levels)
        return {name: float(np.mean(value)) for name, value in values.items()}

    healthy = measure(params)
    assert healthy["active_latents"] == 4
    assert healthy["code_spread"] > 0.3
    assert healthy["code_nats"] > 1
    own = params["circuit"]
    mean = own.leaves[-1].mean
    latents = joint.circuit.layout.blocks[-1].leaf.from_moments(
        jnp.zeros_like(mean), jnp.ones_like(mean)
    )
    own = own._replace(leaves=(*own.leaves[:-1], latents))
    collapsed = measure({"circuit": own})
    assert collapsed["active_latents"] == 0
    for name in ("code_spread", "code_nats", "kl"):
        assert abs(collapsed[name]) < 1e-4, name

    system = vae_system(tiny)
    state = system.init(jax.random.key(0))
    zeros = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    evaluate_vae = cases.jit(system.evaluate)
    for evidence, active in ((state, True), (zeros, False)):
        metrics = evaluate_vae(evidence, jax.random.key(1), levels)
        for name in ("active_latents", "code_spread", "kl"):
            assert (np.mean(metrics[name]) > 0) == active, name


def test_errors_of_reconstructions_against_numpy(tiny: Dataset):
    """A reconstruction that is 0.7 everywhere, and the half that was seen."""
    levels = tiny.valid[:7]
    evidence = []

    def reconstruct(params, key, levels, observed):
        evidence.append(observed)
        return jnp.full(levels.shape, 0.7)

    metrics = reconstruction.evaluate(
        reconstruct, tiny, {}, jax.random.key(0), jnp.asarray(levels)
    )
    x = levels.astype(np.float64) / 16
    bce = -(x * np.log(0.7) + (1 - x) * np.log(0.3)).sum(axis=(1, 2))
    np.testing.assert_allclose(metrics["reconstruction_bce"], bce, rtol=1e-5)
    np.testing.assert_allclose(metrics["half_missing_bce"], bce, rtol=1e-5)
    lower = -(x * np.log(0.7) + (1 - x) * np.log(0.3))[:, 4:].sum(axis=(1, 2))
    np.testing.assert_allclose(metrics["hidden_half_bce"], lower, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["reconstruction_mse"], ((x - 0.7) ** 2).sum(axis=(1, 2)), rtol=1e-5
    )
    assert evidence[0] is None
    np.testing.assert_array_equal(evidence[1][0], [True] * 4 + [False] * 4)


def test_the_network_gets_as_many_parameters_as_the_circuit(tiny: Dataset):
    for network in ("mlp", "conv"):
        own = VaeSettings(match_params="circuit", vae_network=network, vae_latents=3)
        chosen, target = chosen_network(
            settings(num_leaves=20), own, PaeSettings(pae_latents=4), tiny
        )
        assert target is not None
        without = chosen_network(
            settings(),
            dataclasses.replace(own, match_params="none"),
            PaeSettings(),
            tiny,
        )
        assert without[1] is None
        assert abs(chosen.num_params() / target - 1) < 0.25


def test_flags_that_describe_nothing(tiny: Dataset):
    with pytest.raises(UserError, match="pae_latent_min_scale"):
        pae_system(tiny, pae_latent_min_scale=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["pae", "vae"])
def test_a_run_continues_bit_for_bit(tmp_path: Path, program: str):
    words = ["--batch_size=16", "--eval_every=4", "--checkpoint_every=2"]
    if program == "pae":
        words += ["--num_leaves=4", "--num_sums=4", "--pae_latents=16"]
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    for workdir, steps in ((whole, 6), (twice, 4), (twice, 6)):
        code, out, err = runs.run(
            f"--workdir={workdir}",
            f"--num_steps={steps}",
            *words,
            program=f"experiments.{program}",
        )
        assert (code, err) == (0, "")
        assert "test/reconstruction_bce" in out
    runs.assert_same_bits(whole, twice, 6)
