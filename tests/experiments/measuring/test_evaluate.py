"""A classifier of the digits, and what its features say of samples."""

import json
from pathlib import Path
import shlex

import numpy as np
import pytest

from dspc_jax.evaluation.inception.weights import expected_tensors, params_from_tensors
from experiments import classifier, data, evaluate, ll
from experiments.console.errors import UserError, exit_code
from experiments.engine.flags import Settings
from experiments.losses.mmd import MmdSettings
from experiments.measuring import class_samples, evaluation, measures, trained
from experiments.measuring.evaluation import check_judge
from experiments.models import features, weights
from experiments.models.classifier import ClassifierSettings, network
from experiments.report.pictures import open_panels
from tests.evaluation.inception.random_weights import random_tensors
from tests.experiments import runs
from tests.experiments.recording import unread
from tests.experiments.tiny import tiny_digits


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the digits after 100 steps."""
    workdir = tmp_path_factory.mktemp("judge") / "run"
    words = ["--num_steps=100", "--batch_size=64", f"--workdir={workdir}"]
    words += ["--classifier_filters=8", "--classifier_features=16"]
    assert classifier.main(classifier.parse(["classifier", *words])) == 0
    return workdir


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small circuit after a few steps of likelihood, two seeds."""
    workdir = tmp_path_factory.mktemp("circuit") / "run"
    words = ["--num_sums=4", "--num_leaves=4", "--num_steps=5", "--batch_size=32"]
    # Fewer levels than the quad tree has: evaluation compiles every query.
    words += ["--structure=random_binary_trees", "--depth=2", "--num_repetitions=2"]
    words += ["--num_seeds=2", f"--workdir={workdir}"]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words])) == 0
    return workdir


def test_labels_arrive_with_their_images(judge: Path):
    """Wrong pairs could not be learned: chance is 0.1."""
    result = json.loads((judge / "result.json").read_text())
    assert result["metrics"]["test/accuracy"] > 0.8
    assert result["metrics"]["test/cross_entropy"] < 1.0


def test_features_do_not_depend_on_the_batch(judge: Path):
    dataset = data.load("digits", None)
    extracted = features.of_classifier(str(judge), dataset, None)
    images = dataset.train[:601]  # more than one batch, the last not full
    whole, logits = extracted.extract(images)
    assert (whole.shape, logits.shape) == ((601, 16), (601, 10))
    alone, _ = extracted.extract(images[590:])
    np.testing.assert_allclose(whole[590:], alone, rtol=1e-5, atol=1e-6)
    assert dataset.train_labels is not None
    right = logits.argmax(1) == dataset.train_labels[:601]
    assert right.mean() > 0.8


def test_a_classifier_of_other_images_sees_these(judge: Path, tmp_path: Path):
    small = data.load("digits", None)
    sides = small.height, small.width
    doubled = small.test.reshape(-1, *sides, 1).repeat(2, 1).repeat(2, 2)
    larger = small._replace(
        name="larger", test=doubled.reshape(len(doubled), -1, 1), height=16, width=16
    )
    known = features.of_classifier(str(judge), small, None)
    subject = features.of_classifier(str(judge), larger, None)
    assert subject.source == known.source
    outcome = subject.extract(larger.test)[1].argmax(-1)
    expected = known.extract(small.test)[1].argmax(-1)
    assert np.mean(outcome == expected) > 0.8  # interpolated, not the very same pixels
    colored = small._replace(name="other", train=small.train.repeat(3, -1))
    with pytest.raises(UserError, match="must be trained on colored images"):
        features.of_classifier(str(judge), colored, None)


def test_a_run_is_measured(judge: Path, circuit: Path):
    words = [f"--run={circuit}", f"--classifier={judge}", "--num_samples=300"]
    words += ["--sharpness=0.5"]
    assert not unread(evaluate.main, evaluate.parse(["evaluate", *words]))
    result = json.loads((circuit / "evaluation.json").read_text())
    assert result["seeds"] == [0, 1]
    assert result["features"]["classifier"]["dataset"] == "digits"
    assert {"bits_per_dim", "inpainting_stripes_mean", "inpainting_random_mpe"} <= set(
        result["model"]
    )
    assert (circuit / "evaluation.png").exists()
    assert (result["num_real"], result["num_samples"]) == (176, 300)
    rows = result["rows"]
    assert set(rows) == {
        *("sampled", "sampled, leaf means"),
        *("sampled, sharpness 0.5", "sampled, leaf means, sharpness 0.5"),
        *("real, training set", "mean image", "independent pixels"),
    }
    for row in rows.values():
        assert {"fd_classifier", "kd_classifier"} <= set(row)
    assert len(rows["sampled"]["fd_classifier_seeds"]) == 2
    real = rows["real, training set"]["fd_classifier"]
    for other in ("sampled", "mean image", "independent pixels"):
        assert real < 0.5 * rows[other]["fd_classifier"]
    seeds = rows["sampled"]["fd_classifier_seeds"]
    assert seeds[0] != seeds[1]
    flatter = rows["sampled, sharpness 0.5"]["fd_classifier"]
    assert flatter > rows["sampled"]["fd_classifier"]
    panels, _ = open_panels(circuit / "evaluation.png")
    assert "sampled, sharpness 0.5" in [panel.title for panel in panels]


def test_only_circuits_are_sharpened(
    judge: Path, circuit: Path, monkeypatch: pytest.MonkeyPatch
):
    network = {"sampled": np.zeros((20, 64, 1), np.uint8)}
    monkeypatch.setattr(measures, "samples", lambda *_: network)
    words = [f"--run={circuit}", f"--classifier={judge}", "--num_samples=20"]
    groups = evaluate.parse(["evaluate", *words, "--sharpness=2"])
    with pytest.raises(UserError, match="--sharpness must be 1 for a run without"):
        evaluate.main(groups)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--run must be given"),
        (["--run={circuit}"], "--classifier or --inception must be given"),
        (
            ["--run={circuit}", "--classifier={judge}", "--data_dir={empty}"],
            "--data_dir must go with a --run on a data set that has files, got",
        ),
        (["--run={judge}", "--classifier={judge}"], "--run must draw samples"),
        (
            ["--run={judge}", "--classifier={judge}", "--num_completions=3"],
            "--num_completions must go with a --run whose model fills in missing",
        ),
        (
            ["--run={judge}", "--classifier={judge}", "--cas_steps=3"],
            "--cas_steps must go with a --run whose model draws samples of a class",
        ),
        (["--run={circuit}", "--classifier={circuit}"], "--classifier must be a run"),
        (["--run={empty}", "--classifier={judge}"], "there is no config.json"),
    ],
)
def test_wrong_folders_are_named(
    words: list[str],
    complaint: str,
    judge: Path,
    circuit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    evidence = {"circuit": circuit, "judge": judge, "empty": tmp_path}
    groups = evaluate.parse(["evaluate", *(word.format(**evidence) for word in words)])
    assert exit_code(lambda: evaluate.main(groups)) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_that_makes_a_judge_is_said():
    settings = Settings(dataset="folder", data_dir="my images", image_size=8)
    words = evaluation.how_to_judge(settings, tiny_digits(), None)
    command, flag = words.split(" makes one, then ")
    argv = shlex.split(command)[2:]
    (made, *_) = classifier.parse(argv)
    assert (made.dataset, made.data_dir, made.image_size) == ("folder", "my images", 8)
    assert flag == f"--classifier={made.workdir}"
    unlabelled = tiny_digits()._replace(train_labels=None, test_labels=None)
    words = evaluation.how_to_judge(settings, unlabelled, None)
    assert "--efficientnet=lite0" in words


def test_a_judge_whose_features_a_loss_has_seen_is_refused(tmp_path: Path):
    critics = MmdSettings(mmd_kernel="classifier", mmd_classifier=f"{tmp_path}/a")
    check_judge(f"{tmp_path}/b", [Settings(), critics])
    check_judge(None, [Settings(), critics])
    with pytest.raises(UserError, match="--classifier must not be the --mmd_classif"):
        check_judge(f"{tmp_path}/b/../a", [Settings(), critics])


def test_a_set_without_labels_is_refused():
    dataset = data.load("digits", None)._replace(train_labels=None)
    with pytest.raises(UserError, match="--dataset must have labels, got 'digits'"):
        network(ClassifierSettings(), dataset)


def test_a_missing_pixel_is_guessed_better_by_the_mean(circuit: Path):
    """The conditional mean has the least squared error; nothing seen is the worst."""
    run = trained.load(circuit, "run")
    images = run.dataset.test[:60]
    errors, pictures = measures.completions(run, 0, images, 0)
    for mask in ("stripes", "random"):
        mean, mpe = (errors[f"inpainting_{mask}_{how}"] for how in ("mean", "mpe"))
        assert 0 < mean < mpe
    evidence, mean = pictures["random: given"], pictures["random: mean"]
    assert evidence.shape == images.shape
    assert 0.45 < (mean == images).mean() < 1  # half of the pixels are given


@pytest.mark.slow
def test_classes_are_roots(tmp_path: Path, judge: Path):
    workdir = tmp_path / "run"
    words = ["--labels=roots", "--num_sums=8", "--num_leaves=8", "--num_steps=200"]
    words += ["--batch_size=64", f"--workdir={workdir}"]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words])) == 0
    result = json.loads((workdir / "result.json").read_text())
    assert result["metrics"]["test/accuracy"] > 0.5
    run = trained.load(workdir, "run")
    levels, labels = class_samples.draw(run, 0, 1000, seed=0)
    assert (levels.shape, np.bincount(labels).tolist()) == ((1000, 64, 1), [100] * 10)
    judge_of = features.of_classifier(str(judge), run.dataset, None)
    scores = class_samples.accuracy_scores(run, 0, judge_of, 1000, 60, 0)
    assert 0.25 < scores["cas_reverse"] <= 1  # 0.1 by chance
    assert 0.25 < scores["cas"] <= 1


def test_labels_that_do_not_fit_are_refused():
    words = ["--recipe=none", "--labels=roots", "--num_classes=3"]
    (settings, _) = ll.parse(["ll", *words])
    complaint = "--num_classes must be 10, the classes of digits"
    with pytest.raises(UserError, match=complaint):
        ll.make_system(settings, data.load("digits", None))


def test_weights_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "source"
    with pytest.raises(UserError, match="--inception=download: cannot fetch"):
        weights.read("download", source.as_uri())
    assert not list((tmp_path / "cache" / "dspc_jax").iterdir())
    source.write_bytes(b"weights")
    assert weights.read("download", source.as_uri()) == b"weights"
    source.unlink()
    assert weights.read("download", source.as_uri()) == b"weights"


def test_other_weights_are_refused(tmp_path: Path):
    dataset = data.load("digits", None)
    with pytest.raises(UserError, match="--inception must be the file pt_inception"):
        features.of_inception(str(tmp_path / "none"), dataset, "clean")
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(UserError, match="--inception: the sha256 .* must begin with"):
        features.of_inception(str(tmp_path / "other"), dataset, "clean")


@pytest.mark.slow
def test_the_programs_as_a_user_starts_them(judge: Path, circuit: Path):
    code, out, err = runs.run(
        *(f"--run={circuit}", f"--classifier={judge}", "--num_samples=200"),
        program="experiments.evaluate",
    )
    assert (code, err) == (0, "")
    assert "fd_classifier" in out


def test_features_of_real_images_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def extract(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(levels))
        points = levels.reshape(len(levels), -1).astype(np.float32)
        return points, points

    def of(resized: str) -> features.Features:
        return features.Features("a", "b", "c", {"resized": resized}, extract)

    images = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    for _ in range(2):
        outcome = features.remembered(of("x"), extract, images)
        np.testing.assert_array_equal(outcome, images.reshape(4, 6))
    assert calls == [4]
    features.remembered(of("y"), extract, images)  # another resizing
    features.remembered(of("x"), extract, images + 1)  # other images
    assert calls == [4, 4, 4]


@pytest.mark.slow
def test_the_inception_network_measures_a_run(
    circuit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With random weights: the published ones are not ours to ship."""
    params = params_from_tensors(random_tensors(expected_tensors()))
    monkeypatch.setattr(features, "read_inception_params", lambda content: params)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "weights").write_bytes(b"")
    for protocol, titles in (
        ("clean", {"sampled", "sampled, leaf means"}),
        ("paper", {"sampled, leaf means"}),
    ):
        words = [f"--run={circuit}", f"--inception={tmp_path / 'weights'}"]
        words += ["--num_samples=20", "--num_completions=0", f"--protocol={protocol}"]
        assert evaluate.main(evaluate.parse(["evaluate", *words])) == 0
        result = json.loads((circuit / "evaluation.json").read_text())
        floors = {"real, training set", "mean image", "independent pixels"}
        assert set(result["rows"]) == titles | floors
        for row in result["rows"].values():
            assert {"fid", "kid", "precision_inception", "score_inception"} <= set(row)
            assert "fd_classifier" not in row
        assert result["features"]["inception"]["resized"] == (
            "bicubic" if protocol == "clean" else "bilinear"
        )
    kept = list((tmp_path / "dspc_jax").glob("**/features.npy"))
    assert len(kept) == 2  # one a protocol
