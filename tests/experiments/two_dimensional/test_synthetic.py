"""The two-dimensional study: sets, measures; it runs, continues and refuses."""

import dataclasses
import json
from pathlib import Path
import re

import jax
import numpy as np
import pytest

from experiments import synthetic
from experiments.console.errors import UserError
from experiments.two_dimensional import data as synthetic_data
from experiments.two_dimensional import report as synthetic_report
from experiments.two_dimensional import training
from experiments.two_dimensional.settings import TrainingSettings


@pytest.mark.parametrize("name", synthetic_data.RECIPES)
def test_sets_are_the_papers(name: str):
    points = synthetic_data.load(name, 2000, 1000)
    again = synthetic_data.load(name, 2000, 1000)
    np.testing.assert_array_equal(points.train, again.train)
    assert points.train.shape == (2000, 2, 1)
    assert points.test.shape == (1000, 2, 1)
    # Nothing is in both halves, and both have one distribution.
    assert not {x.tobytes() for x in points.train} & {x.tobytes() for x in points.test}
    np.testing.assert_allclose(points.train.mean(0), points.test.mean(0), atol=0.15)
    components = {"two_clusters": 2, "varied": 3, "anisotropic": 30, "nine_clusters": 9}
    assert points.num_components == components.get(name, 50)


def test_the_geometry_of_three_sets():
    nine = synthetic_data.load("nine_clusters").centers
    grid = [(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1)]
    assert sorted(map(tuple, nine.round(1).tolist())) == sorted(grid)
    radius = np.linalg.norm(synthetic_data.load("circles").train[..., 0], axis=1)
    assert np.abs(np.minimum(abs(radius - 1), abs(radius - 0.5))).mean() < 0.06
    sheared = synthetic_data.load("anisotropic").train[..., 0]
    assert np.corrcoef(sheared.T)[0, 1] < 0.5


def test_energy_distance():
    """0 in the mean for one distribution; 2 E|x-y| - ... by a double loop."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 1

    def mean(a, b, *, same=False):
        pairs = [
            np.linalg.norm(a[i] - b[j])
            for i in range(len(a))
            for j in range(len(b))
            if not same or i != j
        ]
        return np.mean(pairs)

    expected = 2 * mean(x, y) - mean(x, x, same=True) - mean(y, y, same=True)
    assert synthetic_report.energy_distance(x, y) == pytest.approx(expected)
    zero = [
        synthetic_report.energy_distance(*rng.normal(size=(2, 100, 2)))
        for _ in range(30)
    ]
    assert abs(np.mean(zero)) < 5 * np.std(zero) / np.sqrt(30)


def test_measures_see_a_lost_mode():
    points = synthetic_data.load("two_clusters")
    circuit = training.make_circuit(points)
    params = jax.jit(circuit.init)(jax.random.key(0), points.train)
    (leaf,) = params.leaves
    both = leaf._replace(
        mean=np.array([[[0, 0], [0.5, 0.5]]], np.float32)[..., None],
        scale_logit=np.full(leaf.mean.shape, np.log(0.05 / 0.4), np.float32),
    )
    one = both._replace(mean=np.zeros(leaf.mean.shape, np.float32))
    stacked = jax.tree.map(
        lambda a, b: np.stack([a, b]),
        params._replace(leaves=(both,), sums=jax.tree.map(np.zeros_like, params.sums)),
        params._replace(leaves=(one,)),
    )
    good, bad = zip(
        *synthetic_report.measure(circuit, stacked, points, 0), strict=False
    )
    assert good[0] == pytest.approx(1.08, abs=0.02)
    assert (good[2], bad[2]) == (1.0, 0.5)
    assert bad[0] < good[0] - 1
    assert abs(good[1]) < 0.01 < bad[1]
    image = synthetic_report.density(
        circuit, jax.tree.map(lambda p: p[0], stacked), points
    )
    left, right, bottom, top = synthetic_report.window(points)
    area = (right - left) * (top - bottom)
    assert image.mean() * area == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ll", "exact_mmd", "mmd", "adv"])
def test_objectives_learn(objective: str):
    points = synthetic_data.load("two_clusters")
    circuit = training.make_circuit(points)

    def test_ll(num_steps):
        settings = TrainingSettings(num_seeds=2, num_steps=num_steps, batch_size=128)
        outcome = training.train(settings, objective, points)
        assert all(np.isfinite(v).all() for v in outcome.metrics.values())
        return synthetic_report.measure(circuit, outcome.params, points, 0).test_ll

    steps = 400 if objective == "adv" else 150
    assert test_ll(steps).mean() > test_ll(2).mean() + 0.2


@pytest.mark.slow
def test_seeds_together_are_seeds_alone():
    points = synthetic_data.load("two_clusters")
    options = {"num_steps": 5, "batch_size": 128}
    both = training.train(TrainingSettings(num_seeds=2, **options), "ll", points).params
    alone = TrainingSettings(seed=1, num_seeds=1, **options)
    second = training.train(alone, "ll", points).params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-5),
        both,
        second,
    )


def run(workdir: Path, *words: str) -> int:
    evidence = ("--sets=two_clusters", "--objectives=ll", "--num_seeds=2")
    evidence += ("--batch_size=128", *words)
    return synthetic.main(
        synthetic.parse(["x", f"--workdir={workdir}", "--num_steps=3", *evidence])
    )


def test_the_program_writes_continues_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(tmp_path) == 0
    out, err = capsys.readouterr()
    assert "two_clusters | ll" in out
    started, ended = err.splitlines()
    assert started == "[1/1] two_clusters ll: started"
    assert re.fullmatch(r"\[1/1\] two_clusters ll: test log-l.* nats a point", ended)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("table.md", "densities.png", "two_clusters-ll.json", "two_clusters-ll.npy")
    }
    before = json.loads((tmp_path / "two_clusters-ll.json").read_text())
    assert len(before["test_ll"]) == 2
    assert run(tmp_path) == 0  # nothing is trained again
    assert capsys.readouterr().err == ""
    assert json.loads((tmp_path / "two_clusters-ll.json").read_text()) == before
    with pytest.raises(UserError, match="--workdir must be empty or of the same"):
        run(tmp_path, "--batch_size=7")


def test_a_flag_wins_over_the_preset():
    _, settings = synthetic.parse(["x", "--preset=paper", "--batch_size=7"])
    paper = TrainingSettings(**synthetic._PAPER)
    assert settings == dataclasses.replace(paper, batch_size=7)


def test_the_table_has_means_and_sample_deviations():
    one = {"set": "moons", "objective": "ll", "test_ll": [1.0, 3.0]}
    text = synthetic_report.table([one | {"energy": [0.5], "modes": [1.0, 0.5]}])
    assert "| 2.000 ± 1.414 |  | 0.5000 ± 0.0000 | 75 % |" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sets=moons,stars", "--sets must be some of .*'stars'"),
        ("--objectives=ll,vae", "--objectives must be some of .*'vae'"),
        ("--objectives=mmd --bandwidths=1,x", "--bandwidths must be positive numbers"),
        (
            "--preset=paper --objectives=adv --adv_hidden=0",
            "--adv_hidden must be positive numbers",
        ),
        ("--preset=best", "--preset must be one of"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, words: str, message: str):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *words.split())
