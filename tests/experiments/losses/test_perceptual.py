"""Losses on the features of trained classifiers."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.objectives import mmd2_unbiased
from experiments import adv, classifier, data, mmd
from experiments.console.errors import UserError
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.losses import perceptual
from experiments.losses.adversary import AdversarySettings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, pixel_term
from experiments.models import circuit as model
from experiments.models.classifier import to_unit

FLAGS = ("mmd_classifier", "mmd_kernel")
SMALL: dict[str, Any] = {"num_sums": 2, "num_leaves": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classifiers of the digits, hardly trained."""
    workdir = tmp_path_factory.mktemp("judges") / "run"
    words = ["--num_steps=3", "--batch_size=16", "--num_seeds=2"]
    words += ["--classifier_filters=2", "--classifier_features=5"]
    words += [f"--workdir={workdir}"]
    assert classifier.main(classifier.parse(["classifier", *words])) == 0
    return str(workdir)


def test_the_loss_is_that_of_the_features(judges: str):
    dataset = data.load("digits", None)
    features = perceptual.classifier_features(judges, FLAGS, dataset, None)
    see = jax.jit(features)
    x, y = (jnp.asarray(dataset.train[i : i + 12]) / 16.0 for i in (0, 100))
    assert see(x).shape == (12, 10)  # of two networks side by side
    kernel = perceptual.feature_kernel(features, dataset)
    term = perceptual.through(features, pixel_term(kernel, MmdSettings()))
    drawn = jnp.float32(y)
    key = jax.random.key(0)

    @jax.jit
    def both(x, drawn):
        def sample(keys, params):
            return drawn[: len(keys)]

        loss, _ = term.loss(None, key, x, (), sample)
        expected = mmd2_unbiased(features(x), features(drawn), kernel)
        assert term.advantages is not None
        return loss, expected, term.advantages(x, drawn, ())

    loss, expected, advantages = both(x, drawn)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    on_pixels = mmd2_unbiased(x, drawn, kernel)
    assert abs(on_pixels - expected) > 1e-3
    assert advantages.shape == (12,)


def test_a_discriminator_of_features_sees_nothing_else(judges: str):
    dataset = data.load("digits", None)
    features = perceptual.classifier_features(judges, FLAGS, dataset, None)
    see = jax.jit(features)
    discriminator = perceptual.feature_discriminator(features, dataset)
    x = jnp.asarray(dataset.train[:40]) / 16.0
    params = jax.jit(discriminator.init)(jax.random.key(0))
    logits = np.asarray(jax.jit(discriminator.logits)(params, x))
    assert logits.shape == (40,)
    assert float(np.std(logits)) > 0
    # With spectral norms of 1 no logit moves more than the scaled features do.
    levels = jnp.asarray(model.references(dataset))
    of_references = np.asarray(see(to_unit(dataset, levels)))
    scaled = np.asarray(see(x)) / np.maximum(of_references.std(0), 0.01)
    moved = np.abs(np.diff(logits))
    assert (moved <= 1.01 * np.linalg.norm(np.diff(scaled, axis=0), axis=1)).all()
    slope = jax.grad(lambda x: discriminator.logits(params, x).sum())
    slopes = np.asarray(jax.jit(slope)(x))
    assert np.isfinite(slopes).all()
    assert float(np.abs(slopes).max()) > 0


def test_adversarial_training_on_features_moves_both_sides(judges: str):
    dataset = data.load("digits", None)
    settings = AdversarySettings(adv_discriminator="classifier", adv_classifier=judges)
    shallow = {"structure": "random_binary_trees", "depth": 2, "num_repetitions": 2}
    shared = Settings(**SMALL, **shallow)
    groups = shared, MixtureSettings(0, ll_weight=0.0), settings
    system = adv.make_system(*groups, dataset=dataset)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    loop = DeviceLoop(system, dataset, 0, 1, 16, mesh, resident_bytes=2**30)
    carry = loop.init()
    before = jax.device_get(carry.state)
    carry, failure = loop.run(carry, 0, 4)
    assert failure is None
    after = jax.device_get(carry.state)
    for part in (lambda s: s.params["circuit"], lambda s: s.adversary.params):
        pairs = zip(*(jax.tree.leaves(part(s)) for s in (before, after)), strict=True)
        assert max(np.abs(a - b).max() for a, b in pairs) > 1e-4


@pytest.mark.slow
def test_a_circuit_learns_through_it(judges: str):
    dataset = data.load("digits", None)
    settings = MmdSettings(mmd_kernel="classifier", mmd_classifier=judges)
    mixture = MixtureSettings(0, ll_weight=0.0, sampler_learning_rate=0.03)
    groups = Settings(**SMALL), mixture, settings, CriticSettings()
    system = mmd.make_system(*groups, dataset=dataset)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    loop = DeviceLoop(system, dataset, 0, 1, 64, mesh, resident_bytes=2**30)
    carry, losses = loop.init(), []
    for step in (0, 30, 60):
        carry, failure = loop.run(carry, step, 30)
        assert failure is None
        carry, means = loop.drain(carry)
        losses.append(means["mmd_term"][0])
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "--{}_classifier must be given with --{}=classifier"),
        ("/nowhere", "--{}_classifier must be the folder of a run"),
    ],
)
def test_a_classifier_must_be_there(given: str | None, complaint: str):
    dataset = data.load("digits", None)
    settings = MmdSettings(mmd_kernel="classifier", mmd_classifier=given)
    groups = Settings(**SMALL), MixtureSettings(), settings, CriticSettings()
    with pytest.raises(UserError, match=complaint.format("mmd", "mmd_kernel")):
        mmd.make_system(*groups, dataset=dataset)
    settings = AdversarySettings(adv_discriminator="classifier", adv_classifier=given)
    groups = Settings(**SMALL), MixtureSettings(), settings
    with pytest.raises(UserError, match=complaint.format("adv", "adv_discriminator")):
        adv.make_system(*groups, dataset=dataset)
