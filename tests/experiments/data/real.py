"""Where the real files are, if they are: they are no part of the repository."""

import os
from pathlib import Path

import pytest

from tests.experiments import runs

# Beside the clone, or where the variable says (a clone that lies elsewhere).
REAL = Path(os.environ.get("DSPC_TEST_DATA") or runs.ROOT.parent / "shared" / "data")


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where the files of a set are not there."""
    return pytest.mark.skipif(
        not (REAL / name).is_dir(), reason=f"{REAL / name} is not there"
    )
