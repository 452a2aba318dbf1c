"""Where a circuit is saved, and with which mode."""

import os
from pathlib import Path
import stat

import jax
import pytest

import dspc_jax as pc

CONFIG = pc.CircuitConfig(pc.QuadTree(1, 2), pc.Normal(), 1, 2, 2)


def test_a_file_has_the_mode_of_any_other(tmp_path: Path):
    params = pc.build(CONFIG).init(jax.random.key(0))
    mask = os.umask(0o027)
    try:
        pc.save(tmp_path / "model.npz", CONFIG, params)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "model.npz").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    params = pc.build(CONFIG).init(jax.random.key(0))
    pc.save("~/model.npz", CONFIG, params)
    assert (tmp_path / "model.npz").exists()
    assert pc.load("~/model.npz")[0] == CONFIG


def test_a_remote_path_is_refused():
    params = pc.build(CONFIG).init(jax.random.key(0))
    with pytest.raises(ValueError, match="path must be one of this machine, got 'gs:"):
        pc.save("gs://bucket/model.npz", CONFIG, params)
    with pytest.raises(ValueError, match="path must be one of this machine, got 's3:"):
        pc.load("s3://bucket/model.npz")
