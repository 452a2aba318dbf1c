"""Mixtures of hidden Chow-Liu trees on binary tables."""

import csv

import jax
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from experiments import binary_tables, data
from experiments.console.errors import UserError
from experiments.models import tree_mixture
from tests import cases
from tests.experiments.data import test_debd as tables


def chains(num_rows: int) -> np.ndarray:
    """Rows of two kinds: in one neighbors are alike, in the other distant variables."""
    rng = np.random.default_rng(0)
    x = rng.integers(2, size=(num_rows, 6))
    for row, kind in enumerate(np.arange(num_rows) % 2):
        order = [0, 1, 2, 3, 4, 5] if kind else [0, 3, 1, 4, 2, 5]
        x[row, order[1:]] = np.where(rng.random(5) < 0.9, x[row, order[:1]], kind)
    return x.astype(np.float32)[..., None]


@pytest.mark.slow
def test_a_mixture_is_that_of_its_trees():
    x = chains(400)
    circuit, params = tree_mixture.started(jax.random.key(0), x, 2, 2)
    graph = circuit.config.structure.region_graph()
    assert len(graph.partitions_of[graph.root]) == 2
    values = cases.masks(6).astype(np.float32)[..., None]
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    whole = log_prob(params, values)
    np.testing.assert_allclose(np.exp(whole).sum(), 1, rtol=1e-5)
    trees = [
        log_prob(tree_mixture._of_tree(circuit, params, tree), values)
        for tree in range(2)
    ]
    assert np.abs(trees[0] - trees[1]).max() > 0.5
    rows = pc.parameter_rows(circuit).mixtures
    places = [rows[n] for n in graph.partitions_of[graph.root]]
    logits = np.asarray(params.mixtures[-1])[0, 0]
    shares = special.softmax([logits[place[2]] for place in places if place])
    np.testing.assert_allclose(shares @ np.exp(trees), np.exp(whole), rtol=1e-4)
    alone, _ = tree_mixture.started(jax.random.key(0), x, 1, 2)
    assert alone.config.structure == tree_mixture.joined([pc.hidden_chow_liu_tree(x)])


def test_weights_of_a_mixture_fit_the_rows():
    """The best of two weights, by a search."""
    rng = np.random.default_rng(0)
    log_p = rng.normal(size=(2, 500)) * 2 - 800  # far below what exp can hold
    weights = binary_tables.mixture_weights(log_p)
    shares = np.linspace(0.001, 0.999, 999)
    scores = [binary_tables.mixed(np.array([a, 1 - a]), log_p).mean() for a in shares]
    assert weights[0] == pytest.approx(shares[np.argmax(scores)], abs=2e-3)
    assert binary_tables.mixed(weights, log_p).mean() >= max(scores) - 1e-9
    np.testing.assert_allclose(
        binary_tables.mixed(np.array([1.0, 0.0]), log_p), log_p[0]
    )


def words(*more: str) -> list[str]:
    return ["binary_tables", "--num_epochs=2", "--batch_size=8", *more]


@pytest.mark.slow
def test_the_program(tmp_path, capsys):
    tables.write_folder(tmp_path / "data", "one", "two")
    argv = words(
        *(f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'out'}"),
        *("--tables=one,two", "--models=1x2,1x3", "--pseudocounts=1"),
    )
    assert binary_tables.main(binary_tables.parse(argv)) == 0
    with (tmp_path / "out/results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["table"], line["model"]) for line in lines] == [
        *(("one", "1x2"), ("one", "1x3"), ("one", "mixture")),
        *(("two", "1x2"), ("two", "1x3"), ("two", "mixture")),
    ]
    for name in ("one", "two"):
        *trees, both = (float(line["valid"]) for line in lines if line["table"] == name)
        assert -5 * np.log(2) - 0.5 < max(trees) <= both < 0
    out = capsys.readouterr().out
    assert "| one | " in out
    assert (
        binary_tables.main(binary_tables.parse(argv)) == 0
    )  # nothing is trained again
    assert capsys.readouterr().out.count("1x2") == 0
    with pytest.raises(UserError, match="belongs to a run that differs in --num_ep"):
        binary_tables.main(binary_tables.parse([*argv, "--num_epochs=3"]))


def test_a_chow_liu_tree_is_counted(tmp_path):
    """A row of a table that no training row has counts half an example."""
    tables.write_folder(tmp_path / "data", "one")
    argv = words(
        *(f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'out'}"),
        *("--tables=one", "--models=chow_liu", "--pseudocounts=1"),
    )
    assert binary_tables.main(binary_tables.parse(argv)) == 0
    with (tmp_path / "out/results.csv").open(newline="") as file:
        tree, both = csv.DictReader(file)
    table = data.load("debd", str(tmp_path / "data"), data.Options(debd_name="one"))
    config, params = pc.chow_liu_tree(table.train, num_values=2, pseudocount=0.5)
    log_p = jax.vmap(pc.build(config).log_prob, (None, 0))
    test = float(np.mean(log_p(params, table.test.astype(np.float32))))
    assert float(tree["test"]) == pytest.approx(test, abs=1e-4)
    assert both["test"] == tree["test"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--models=32", "--models must be like 1x32,8x16, .* got '32'"),
        ("--models=0x2", "--models must be like .* got '0x2'"),
        ("--pseudocounts=1,few", "--pseudocounts must be numbers .* got '1,few'"),
        ("--pseudocounts=-1", "--pseudocounts must be numbers .* got '-1'"),
        (
            ("--models=1x2,chow_liu", "--pseudocounts=1,0"),
            "--pseudocounts must be greater than 0 with --models=chow_liu .*got '1,0'",
        ),
        ("--tables=three", "--debd_name must be a table in .* got 'three'"),
    ],
)
def test_wrong_flags_are_named(word, message, tmp_path):
    tables.write_folder(tmp_path / "data", "one")
    argv = words(
        *(f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'out'}"),
        *("--tables=one", *([word] if isinstance(word, str) else word)),
    )
    with pytest.raises(UserError, match=message):
        binary_tables.main(binary_tables.parse(argv))
