"""Where compiled programs are kept, and where not."""

from collections.abc import Iterator
import os
from pathlib import Path

import jax
import pytest

from experiments.console.errors import UserError
from experiments.engine import compilation

NAMES = (
    *("jax_enable_compilation_cache", "jax_compilation_cache_dir"),
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Those of the session come back."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    for name in NAMES:  # so that they are restored
        monkeypatch.setenv(name.upper(), os.environ.get(name.upper(), ""))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def folder() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore


def test_the_users_cache_unless_jax_was_told_of_another(tmp_path: Path):
    before = folder()
    assert before  # of the tests
    compilation.keep(None)
    assert folder() == before
    assert not (tmp_path / "cache").exists()
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.keep(None)
    assert folder() == str(compilation.default_folder())
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == folder()  # for jobs of studies
    (machine,) = (tmp_path / "cache" / "dspc_jax" / "compilation").iterdir()
    assert str(machine) == folder()
    assert len(machine.name) == 12


def test_a_folder_and_none(tmp_path: Path):
    compilation.keep(str(tmp_path / "mine"))
    assert folder() == str(tmp_path / "mine")
    compilation.keep("")
    assert not jax.config.jax_enable_compilation_cache  # pyright: ignore
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "False"


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--compilation_cache must be a folder that ca"):
        compilation.keep(str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.keep(None)  # nothing is kept, and nothing fails
    assert folder() is None


def test_the_oldest_are_removed(tmp_path: Path):
    for age, name in enumerate("abc"):
        path = tmp_path / name
        path.write_bytes(b"x" * 10)
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "folder").mkdir()
    compilation.prune(tmp_path, most_bytes=30)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "folder"}
    compilation.prune(tmp_path, most_bytes=19)
    assert {path.name for path in tmp_path.iterdir()} == {"c", "folder"}
