"""Fabricated runs, made once for the tests of the report."""

from pathlib import Path

import pytest

from experiments.measuring.collection import Collected, collect, folders
from tests.experiments.fabricated import make_all


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of every kind."""
    root = tmp_path_factory.mktemp("out")
    make_all(root)
    return root


@pytest.fixture(scope="package")
def collected(root: Path) -> Collected:
    """The content of all folders of ``root``, and of those one level below."""
    paths = folders(f"{root}/*,{root}/x/*", root / "report")
    return collect([path for path in paths if path.name != "x"])
