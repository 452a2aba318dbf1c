"""Recipes: defaults of programs on their data sets."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import adv, ll, mmd
from experiments.engine.flags import Settings
from experiments.engine.recipes import LIKELIHOOD, ON_SAMPLES


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.flags"))


@pytest.mark.parametrize("name", names(LIKELIHOOD))
def test_a_recipe_is_one_of_the_program(name):
    settings, recipe = ll.parse(["ll", f"--dataset={name}", "--seed=3"])
    assert recipe.recipe == "auto"
    assert (settings.dataset, settings.start, settings.seed) == (name, "distill", 3)
    by_file = ["ll", f"--flagfile={LIKELIHOOD / name}.flags", "--seed=3"]
    assert ll.parse(by_file)[0] == settings


@pytest.mark.parametrize("program", [mmd, adv])
@pytest.mark.parametrize("name", names(ON_SAMPLES))
def test_losses_on_samples_begin_with_the_recipe_of_the_likelihood(program, name):
    """The same circuit and steps; they are followed by others."""
    words = [program.__name__, f"--dataset={name}"]
    settings, mixture, *_ = program.parse(words)
    (likelihood, _) = ll.parse(["ll", *words[1:]])
    assert mixture.pretrain_steps == likelihood.num_steps < settings.num_steps
    assert dataclasses.replace(settings, num_steps=likelihood.num_steps) == likelihood
    plain, *_ = program.parse([*words, "--recipe=none"])
    assert plain == dataclasses.replace(Settings(), dataset=name)


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
