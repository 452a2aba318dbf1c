"""Presets: commands that fail on purpose, and for each program one that does not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from experiments.measuring.programs import PROGRAMS

ROOT = Path(__file__).parents[3]
FILES = {
    path.stem: path
    for path in (ROOT / "tests" / "experiments" / "presets").glob("*.flags")
}
# The cause of a failure: the flags in which a preset differs from PROGRAM_stable.
CAUSES = {
    "gan_unstable": {"adv_every"},
    "gan_collapse": {"batch_size"},
    "adv_many_discriminator_steps": {"adv_steps", "adv_r1_weight"},
    "adv_small_batch": {"batch_size"},
    "pae_kl_too_high": {"pae_kl_weight"},
    "pae_reconstruction_alone": {"ll_weight", "pae_kl_weight"},
}


def parsed(name: str) -> dict[str, Any]:
    """All flags of a preset by name, as its program reads them."""
    program = PROGRAMS[name.split("_")[0]]
    groups = program.parse([name, f"--flagfile={FILES[name]}"])
    return {k: v for group in groups for k, v in dataclasses.asdict(group).items()}


def test_every_preset_is_known_and_explained():
    stable = {f"{name.split('_')[0]}_stable" for name in CAUSES}
    assert set(FILES) == set(CAUSES) | stable
    text = (ROOT / "docs" / "failures.md").read_text()
    assert [name for name in FILES if f"`{name}" not in text] == []


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_a_failure_differs_from_the_stable_run_in_its_cause(name: str):
    failing, stable = parsed(name), parsed(f"{name.split('_')[0]}_stable")
    different = {flag for flag in failing if failing[flag] != stable[flag]}
    assert different == CAUSES[name] | {"workdir"}
    assert failing["workdir"] == f"out/{name}"
    assert failing["dataset"] == "digits"
