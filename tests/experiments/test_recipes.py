"""Recipes: the defaults of `experiments.ll` on their data sets."""

import json
from pathlib import Path

import pytest

from experiments import ll
from experiments.engine.flags import Settings

RECIPES = Path(ll.__file__).parent / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.flags"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_one_of_the_program(name):
    settings, recipe = ll.parse(["ll", f"--dataset={name}", "--seed=3"])
    assert recipe.recipe == "auto"
    assert (settings.dataset, settings.start, settings.seed) == (name, "distill", 3)
    by_file = ["ll", f"--flagfile={RECIPES / name}.flags", "--seed=3"]
    assert ll.parse(by_file)[0] == settings


def test_a_flag_wins_over_the_recipe():
    (settings, _) = ll.parse(["ll", "--num_sums=7", "--optimizer=adam"])
    assert (settings.num_sums, settings.optimizer) == (7, "adam")
    assert settings.em_pseudocount == 2.0  # of the recipe, without use, no mistake
    assert ll.parse(["ll", "--start_from=run"])[0].start == "examples"
    (plain, _) = ll.parse(["ll", "--recipe=none"])
    assert plain == Settings()


@pytest.mark.slow
def test_the_digits(tmp_path):
    """Far below the 2.12 bits of the defaults, and samples as spread as images."""
    assert ll.main(ll.parse(["ll", f"--workdir={tmp_path}"])) == 0
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["test/bits_per_dim"] < 2.0
    assert abs(metrics["test/mmd2"]) < 0.01
    assert 0.9 < metrics["test/sample_spread"] < 1.1
