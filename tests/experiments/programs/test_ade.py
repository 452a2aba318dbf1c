"""Joint training behind flows: every density learns, measures itself, and refuses."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax import networks
from experiments import ade, data
from experiments.console.errors import UserError
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.starting import started
from experiments.measuring import trained
from experiments.models import densities
from experiments.models.preprocessing import preprocessing
from tests import cases
from tests.experiments.tiny import tiny_digits

SIZES = {
    "--density=circuit": ("--num_sums=3", "--num_leaves=3", "--depth=1")
    + ("--structure=random_binary_trees", "--num_repetitions=1"),
    "--density=vae": ("--density_width=8", "--density_latents=3"),
    "--density=kernel": ("--density_centres=50",),
    "--flow=patch": ("--flow_steps=2", "--flow_filters=8", "--flow_patch=2"),
    "--flow=multi_scale": ("--flow_steps=2", "--flow_filters=8"),
}
FLOWS = ("identity", "colour", "patch", "multi_scale")


def small(*words: str) -> list[str]:
    """The words after small sizes of what they have a use for."""
    sizes = ["--batch_size=16"]
    if not any(word.startswith("--density=") for word in words):
        words = ("--density=circuit", *words)
    sizes += [size for word in words for size in SIZES.get(word, ())]
    other = ("--sample_loss=mmd", "--adv_discriminator=")
    if not any(word.startswith(other) for word in words):
        sizes += ["--adv_filters=4"]
    return ["ade", *sizes, *words]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    """A piece of the digits, 2x4 pixels, in their place: programs compile fast."""
    dataset = tiny_digits()
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    return dataset


def density_of(*words: str) -> densities.Density:
    settings, _, density_settings, *_ = ade.parse(small(*words))
    dataset = data.load("digits", None)
    codec = preprocessing("normal", dataset.num_values)
    return densities.make_density(settings, density_settings, dataset, codec, 0)


def images(num: int) -> jax.Array:
    dataset = data.load("digits", None)
    codec = preprocessing("normal", dataset.num_values)
    return codec.encode(jax.random.key(5), jnp.asarray(dataset.train[:num]))


# A circuit behind patches is trained by its program below.
QUICK = ("gaussian-colour",)
PAIRS = [(k, f) for k in ("circuit", "vae", "gaussian") for f in FLOWS]


@pytest.mark.parametrize(
    ("kind", "flow"),
    [
        pytest.param(*pair, marks=() if "-".join(pair) in QUICK else pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_likelihood_and_samples_have_gradients_everywhere(kind, flow, key):
    density = density_of(f"--density={kind}", f"--flow={flow}")
    x = images(12)
    init_key, bound_key, sample_key = jax.random.split(key, 3)
    params = cases.jit(density.init)(init_key, x)
    keys = jax.random.split(sample_key, 4)

    def likelihood(params):
        return jnp.mean(density.log_prob(params, bound_key, x))

    def through_samples(params):
        sample = density.sampler(params, jnp.zeros((), jnp.int32))
        return jnp.mean(sample(keys, params) ** 2)

    value, grads = cases.jit(jax.value_and_grad(likelihood))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    value, grads = cases.jit(jax.value_and_grad(through_samples))(params)
    assert np.isfinite(value)
    norms = {
        name: sum(float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(subject))
        for name, subject in grads.items()
        if jax.tree.leaves(subject)
    }
    assert all(np.isfinite(norm) for norm in norms.values())
    of_noise = ("temperature", "log_scale")  # no part of what a loss on samples sees
    assert all(norm > 0 for name, norm in norms.items() if name not in of_noise)


def test_the_bound_is_below_the_likelihood():
    """One latent and a linear decoder that ignores it: the marginal is known."""
    density = density_of("--density=vae", "--density_network=mlp")
    x = images(20)
    params = cases.jit(density.init)(jax.random.key(0), x)
    log_prob = cases.jit(density.log_prob)
    last = params["vae"]["decoder"]
    zero = jax.tree.map(jnp.zeros_like, last)
    params = params | {"vae": params["vae"] | {"decoder": zero}}
    shift, log_scale = (jnp.linspace(*ends, 8)[:, None] for ends in ((0, 1), (-2, -1)))
    params = params | {"shift": shift, "log_scale": log_scale}
    exact = jax.scipy.stats.norm.logpdf(x, shift[None], jnp.exp(log_scale)[None])
    exact = exact.sum((1, 2))
    bound = log_prob(params, jax.random.key(1), x)
    assert (bound <= exact + 1e-3).all()
    encoder = jax.tree.map(jnp.zeros_like, params["vae"]["encoder"])  # q = N(0, I)
    params = params | {"vae": params["vae"] | {"encoder": encoder}}
    np.testing.assert_allclose(log_prob(params, jax.random.key(1), x), exact, rtol=1e-5)


def test_a_centre_does_not_explain_itself():
    """A mixture of Gaussians at the centres, by the definition."""
    bin_width = 1 / 17
    centres = np.asarray(images(8))
    density = densities.kernel_density(centres, bin_width)
    params = {"log_scale": jnp.log(0.2)}
    others = images(30)[20:]
    square = ((np.asarray(others)[:, None] - centres[None]) ** 2).sum((2, 3))
    each = np.exp(-square / (2 * 0.2**2)) / np.sqrt(2 * np.pi * 0.2**2) ** 8
    log_prob = cases.jit(density.log_prob)
    result = log_prob(params, jax.random.key(1), others)
    np.testing.assert_allclose(result, np.log(each.mean(1)), rtol=1e-4)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, centres.shape)
    again = centres + bin_width * noise
    without = ((again[:, None] - centres[None]) ** 2).sum((2, 3))
    np.fill_diagonal(without, np.inf)
    each = np.exp(-without / (2 * 0.2**2)) / np.sqrt(2 * np.pi * 0.2**2) ** 8
    result = log_prob(params, jax.random.key(2), jnp.asarray(again, jnp.float32))
    np.testing.assert_allclose(result, np.log(each.mean(1)), rtol=1e-4)


def test_uniform_noise_has_the_bits_of_the_uniform_code(key, tmp_path):
    """A gaussian density behind the identity, measured by its program."""
    words = ["--density=gaussian", "--num_steps=1"]
    words += ["--sample_weight=0", "--pretrain_steps=0", "--sample_loss=mmd"]
    words += [f"--workdir={tmp_path / 'run'}"]
    assert ade.main(ade.parse(small(*words))) == 0
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    dataset = data.load("digits", None)
    codec = preprocessing("normal", dataset.num_values)
    x = codec.encode(key, jnp.asarray(dataset.test))
    nats = 0.5 * np.mean(np.asarray(x) ** 2) + 0.5 * np.log(2 * np.pi) + np.log(17)
    assert metrics["test/bits_per_dim"] == pytest.approx(nats / np.log(2), rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        # The default discriminator, convolutions, takes long to compile.
        ("--density=circuit", "--flow=patch", "--preprocess=logit")
        + ("--flow_steps=1", "--adv_discriminator=mlp", "--sharpness=2"),
        pytest.param(
            ("--density=vae", "--flow=multi_scale", "--sample_loss=mmd"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--density=kernel", "--sample_weight=0", "--pretrain_steps=0"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["circuit", "vae", "kernel"],
)
def test_the_program_trains_and_is_read_back(words, tmp_path: Path):
    run = tmp_path / "run"
    words = ["--num_steps=4", "--pretrain_steps=2", *words, f"--workdir={run}"]
    assert ade.main(ade.parse(small(*words))) == 0
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    bits = "bits_per_dim_bound" if "--density=vae" in words else "bits_per_dim"
    assert np.isfinite(metrics[f"test/{bits}"])
    result = trained.load(run, "run")
    assert (result.program, result.step) == ("ade", 4)
    drawn = result.system.sample(result.state(0), jax.random.key(0), 3)
    assert drawn["sampled"].shape == (3, 8, 1)
    assert ("sampled, sharpness 2" in drawn) == ("--density=circuit" in words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--leaf=binomial"], "Unknown command line flag 'leaf'"),
        (["--flow=patch", "--flow_patch=3"], "--flow=patch does not fit"),
        (["--flow=multi_scale", "--flow_levels=5"], "--flow=multi_scale does not fit"),
        (["--density=kernel", "--flow=colour"], "--flow must be identity"),
        (["--optimizer=em"], "Unknown command line flag 'optimizer'"),
        (["--relaxation=score_function"], "--relaxation must be a path"),
        (["--labels=roots"], "Unknown command line flag 'labels'"),
        (["--adv_discriminator=self"], "--adv_discriminator must be"),
    ],
)
def test_what_does_not_fit_is_named(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ade.main(ade.parse(small(f"--workdir={tmp_path / 'run'}", *words)))
    assert not (tmp_path / "run" / "result.json").exists()


# Without an adversary, which takes long to compile.
GAUSSIAN = ("--density=gaussian", "--flow=colour", "--num_steps=1")
GAUSSIAN += ("--sample_weight=0", "--pretrain_steps=0", "--sample_loss=mmd")


def test_a_density_starts_from_another_with_its_flow(tmp_path: Path):
    source = tmp_path / "source"
    words = small(*GAUSSIAN)
    assert ade.main(ade.parse([*words, f"--workdir={source}"])) == 0
    theirs = trained.load(source, "start_from")
    groups = ade.parse([*words, f"--start_from={source}"])
    carry = jax.device_get(loop_of(groups, theirs.dataset).init())
    evidence = started(carry, groups).state.params
    jax.tree.map(np.testing.assert_array_equal, evidence, theirs.states.params)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), carry.state.params, evidence)
    assert max(jax.tree.leaves(moved)) > 1e-4
    groups = ade.parse([*words, f"--start_from={source}", "--preprocess=logit"])
    with pytest.raises(UserError, match="--preprocess must be that of --start_from"):
        started(carry, groups)


def loop_of(groups: list[Any], dataset: data.Dataset) -> DeviceLoop:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    system = ade.make_system(*groups, dataset=dataset)
    return DeviceLoop(system, dataset, 0, 1, 16, mesh, resident_bytes=2**30)


def test_long_gradients_are_shortened():
    dataset = data.load("digits", None)
    for clip in (1e-3, 1e3):
        words = small(*GAUSSIAN, f"--clip_norm={clip}")
        loop = loop_of(ade.parse(words), dataset)
        carry, _ = loop.run(loop.init(), 0, 1)
        adam = jax.device_get(carry.state.opt_state[1])
        norm = float(np.sqrt(sum((m**2).sum() for m in jax.tree.leaves(adam.mu))))
        if clip < 1:
            assert norm == pytest.approx(0.1 * clip, rel=1e-4)  # Adam's 1 - b1
        else:
            assert 0.1 * 1e-3 < norm < 0.1 * clip


def test_a_loss_sees_the_noise_of_a_vae_if_asked_to(key: jax.Array):
    words = ("--density=vae", "--density_network=mlp")
    density = density_of(*words)
    noisy = density_of(*words, "--density_output=sample")
    init_key, sample_key = jax.random.split(key)
    params = cases.jit(density.init)(init_key, images(12))
    # A tenth of what the decoder draws: else its variance drowns that of the noise.
    decoder = jax.tree.map(lambda leaf: 0.1 * leaf, params["vae"]["decoder"])
    params = params | {"vae": params["vae"] | {"decoder": decoder}}
    keys, step = jax.random.split(sample_key, 20_000), jnp.zeros((), jnp.int32)

    def spread(density):
        def of(params):
            samples = density.sampler(params, step)(jax.random.clone(keys), params)
            return jnp.mean(jnp.var(samples, 0))

        return cases.jit(jax.value_and_grad(of))(params)

    mean, grads = spread(density)
    assert mean > 0
    assert float(jnp.abs(grads["log_scale"]).max()) == 0
    sampled, grads = spread(noisy)
    variance = float(jnp.exp(2 * params["log_scale"]).mean())
    assert float(sampled - mean) == pytest.approx(variance, rel=0.1)
    # d/d(log scale) of the mean variance is twice the noise's share of it.
    assert float(grads["log_scale"].sum()) == pytest.approx(2 * variance, rel=0.1)


def test_the_vae_has_as_many_parameters_as_the_circuit():
    dataset = data.load("digits", None)
    codec = preprocessing("normal", dataset.num_values)
    counts = []
    for kind in ("circuit", "vae"):
        words = ["ade", "--num_sums=16", "--num_leaves=16", f"--density={kind}"]
        settings, _, of_density, *_ = ade.parse(words)
        density = densities.make_density(settings, of_density, dataset, codec, 0)
        counts.append(networks.count_params(lambda k, d=density: d.init(k, images(4))))
    assert abs(counts[1] / counts[0] - 1) < 0.1


def test_missing_pixels_are_filled_in_where_features_are_pixels():
    def complete_of(*words):
        return density_of(*words).complete

    assert complete_of("--flow=patch") is None
    assert complete_of("--flow=colour", "--preprocess=logit") is None
    assert complete_of("--density=gaussian") is None
    density = density_of("--flow=colour")
    x = images(3)
    params = cases.jit(density.init)(jax.random.key(0), x)
    observed = np.arange(8) < 4
    assert density.complete is not None
    result = cases.jit(density.complete)(params, x, np.broadcast_to(observed, (3, 8)))
    for values in result.values():
        np.testing.assert_array_equal(values[:, :4], x[:, :4])
        assert np.abs(values[:, 4:] - x[:, 4:]).max() > 0.01


def test_defaults_are_those_of_the_help():
    settings: Settings = ade.parse(["ade"])[0]
    assert (settings.leaf, settings.leaf_max_scale) == ("normal", 3.0)
