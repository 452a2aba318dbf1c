"""A classifier of the digits, and what its features say of samples."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import classifier, data, evaluate, features, ll
from experiments.errors import UserError, exit_code
from tests.experiments import runs


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
    words += ["--num_seeds=2", f"--workdir={workdir}"]
    assert ll.main(ll.parse(["ll", *words])) == 0
    return workdir


def test_labels_arrive_with_their_images(judge: Path):
    """Wrong pairs could not be learnt: chance is 0.1."""
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
    right = logits.argmax(1) == dataset.train_labels[:601]
    assert right.mean() > 0.8


def test_a_run_is_measured(judge: Path, circuit: Path):
    words = [f"--run={circuit}", f"--classifier={judge}", "--num_samples=300"]
    assert evaluate.main(evaluate.parse(["evaluate", *words])) == 0
    result = json.loads((circuit / "evaluation.json").read_text())
    assert result["seeds"] == [0, 1]
    assert (result["num_real"], result["num_samples"]) == (176, 300)
    rows = result["rows"]
    assert set(rows) == {
        *("sampled", "sampled, leaf means"),
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


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--run must be given"),
        (["--run={circuit}"], "--classifier must be given"),
        (["--run={judge}", "--classifier={judge}"], "--run must draw samples"),
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
    given = {"circuit": circuit, "judge": judge, "empty": tmp_path}
    groups = evaluate.parse(["evaluate", *(word.format(**given) for word in words)])
    assert exit_code(lambda: evaluate.main(groups)) == 2
    assert complaint in capsys.readouterr().err


def test_a_set_without_labels_is_refused():
    dataset = data.load("digits", None)._replace(train_labels=None)
    with pytest.raises(UserError, match="--dataset must have labels, got 'digits'"):
        classifier.network(classifier.ClassifierSettings(), dataset)


@pytest.mark.slow
def test_the_programs_as_a_user_starts_them(judge: Path, circuit: Path):
    code, out, err = runs.run(
        *(f"--run={circuit}", f"--classifier={judge}", "--num_samples=200"),
        program="experiments.evaluate",
    )
    assert (code, err) == (0, "")
    assert "fd_classifier" in out
