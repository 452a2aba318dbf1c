"""Files of flags: each is a run of `experiments.ll`."""

import json
from pathlib import Path

import pytest

from experiments import ll

RECIPES = Path(ll.__file__).parent / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.flags"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_one_of_the_program(name):
    words = ["ll", f"--flagfile={RECIPES / name}.flags", "--seed=3"]
    (settings,) = ll.parse(words)
    assert settings.dataset == name
    assert settings.start == "distill"
    assert settings.seed == 3


@pytest.mark.slow
def test_the_digits(tmp_path):
    """Far below the 2.12 bits of the defaults, and samples as spread as images."""
    words = ["ll", f"--flagfile={RECIPES}/digits.flags", f"--workdir={tmp_path}"]
    assert ll.main(ll.parse(words)) == 0
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["test/bits_per_dim"] < 2.0
    assert abs(metrics["test/mmd2"]) < 0.01
    assert 0.9 < metrics["test/sample_spread"] < 1.1
