"""Losses on the features of trained classifiers."""

from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.objectives import feature_kernel, mmd2_unbiased
from experiments import adv, classifier, data, mmd
from experiments.console.errors import UserError
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.losses import perceptual
from experiments.losses.adversary import AdversarySettings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings, sample_term
from experiments.models.preprocessing import preprocessing

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
    """Of two networks side by side; the kernel is scaled to them."""
    dataset = data.load("digits", None)
    features = perceptual.classifier_features(judges, FLAGS, dataset, None)
    x, y = (dataset.train[i : i + 12].astype(np.float32) / 16 for i in (0, 100))
    assert jax.eval_shape(features, x).shape == (12, 10)
    kernel = feature_kernel(features, perceptual.references(dataset))
    own = MmdSettings(mmd_kernel="classifier", mmd_classifier=judges)
    codec = preprocessing("normal", dataset.num_values)
    term = sample_term(Settings(), own, CriticSettings(), dataset, codec)

    @jax.jit
    def both(x, y):
        assert term.advantages is not None
        loss, _ = term.loss(None, jax.random.key(0), x, (), lambda keys, params: y)
        expected = mmd2_unbiased(features(x), features(y), kernel)
        on_pixels = mmd2_unbiased(x, y, kernel)
        return loss, expected, on_pixels, term.advantages(x, y, ())

    loss, expected, on_pixels, advantages = both(x, y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert abs(on_pixels - expected) > 1e-3
    assert advantages.shape == (12,)


@pytest.mark.slow
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
