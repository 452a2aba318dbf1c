"""Fabricated runs, made once for the tests of the report."""

from pathlib import Path

import pytest

from experiments import report
from experiments.report import runs
from tests.experiments.fabricated import make_all


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of every kind."""
    root = tmp_path_factory.mktemp("out")
    make_all(root)
    return root


@pytest.fixture(scope="package")
def collected(root: Path) -> runs.Collected:
    """The content of all folders of ``root``, and of those one level below."""
    folders = report.folders(f"{root}/*,{root}/x/*", root / "report")
    return runs.collect([f for f in folders if f.name != "x"])
