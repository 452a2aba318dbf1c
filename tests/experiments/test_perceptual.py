"""The MMD between features of trained classifiers."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.objectives import mmd2_unbiased
from experiments import classifier, data, mmd, perceptual
from experiments.critic import CriticSettings
from experiments.device_loop import DeviceLoop
from experiments.errors import UserError
from experiments.flags import Settings
from experiments.mixture import MixtureSettings
from experiments.mmd import MmdSettings

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
    see = perceptual.classifier_features(judges, dataset, None)
    x, y = (jnp.asarray(dataset.train[i : i + 12]) / 16.0 for i in (0, 100))
    assert see(x).shape == (12, 10)  # of two networks side by side
    kernel = perceptual.feature_kernel(see, dataset)
    term = perceptual.through(see, mmd.pixel_term(kernel, MmdSettings()))
    drawn = jnp.float32(y)
    key = jax.random.key(0)
    loss, _ = term.loss(None, key, x, (), lambda keys, params: drawn[: len(keys)])
    expected = mmd2_unbiased(see(x), see(drawn), kernel)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    on_pixels = mmd2_unbiased(x, drawn, kernel)
    assert abs(on_pixels - expected) > 1e-3
    assert term.advantages is not None
    advantages = term.advantages(x, drawn, ())
    assert advantages.shape == (12,)


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
        (None, "--mmd_classifier must be given with --mmd_kernel=classifier"),
        ("/nowhere", "--mmd_classifier must be the folder of a run"),
    ],
)
def test_a_classifier_must_be_there(given: str | None, complaint: str):
    settings = MmdSettings(mmd_kernel="classifier", mmd_classifier=given)
    groups = Settings(**SMALL), MixtureSettings(), settings, CriticSettings()
    with pytest.raises(UserError, match=complaint):
        mmd.make_system(*groups, dataset=data.load("digits", None))
