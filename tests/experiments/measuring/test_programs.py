"""The table of programs: all of them, each under its own name."""

from pathlib import Path
import sys

import pytest

from experiments.measuring.programs import PROGRAMS
from tests.experiments.runs import ROOT


def test_every_program_that_trains_is_in_the_table():
    files = (ROOT / "experiments").glob("*.py")
    trains = {path.stem for path in files if "training_program(" in path.read_text()}
    assert set(PROGRAMS) == trains


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_there_under_its_own_name(name: str):
    """All are imported here, and no flag is defined twice."""
    assert sys.modules[f"experiments.{name}"].PROGRAM is PROGRAMS[name]
    groups = PROGRAMS[name].parse([name, "--num_steps=7", "--workdir=x"])
    assert (groups[0].num_steps, Path(groups[0].workdir)) == (7, Path("x"))
    assert tuple(map(type, groups)) == PROGRAMS[name].groups
