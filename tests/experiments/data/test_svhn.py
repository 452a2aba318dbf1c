"""SVHN's MATLAB files: small ones made here, damage, and the real subset."""

from pathlib import Path
import re
from typing import Any

import numpy as np
import pytest
import scipy.io

from experiments import data
from experiments.console.errors import UserError
from tests.experiments.data.real import REAL, needs


def part(num: int, seed: int) -> dict[str, Any]:
    """Images and labels in the official layout: 10 stands for the digit 0."""
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.integers(0, 256, (32, 32, 3, num)).astype(np.uint8)
    return {"X": images, "y": (np.arange(num, dtype=np.uint8) % 10 + 1)[:, None]}


def write(path: Path, content: dict[str, Any]) -> None:
    scipy.io.savemat(path, content, do_compression=True)


@pytest.fixture
def svhn_dir(tmp_path: Path) -> Path:
    write(tmp_path / "train_32x32.mat", part(20, 0))
    write(tmp_path / "test_32x32.mat", part(3, 1))
    return tmp_path


def load(folder: Path) -> data.Dataset:
    return data.load("svhn", str(folder), data.Options(source="files"))


def test_files_become_images(svhn_dir: Path):
    images = load(svhn_dir)
    assert (len(images.train), len(images.valid), len(images.test)) == (18, 2, 3)
    stored = part(20, 0)["X"][:, :, :, 7]
    np.testing.assert_array_equal(images.train[7].reshape(32, 32, 3), stored)
    assert images.train_labels is not None
    assert images.train_labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert images.source is not None
    assert images.source["subset"] == "20 of 73257 train, 3 of 26032 test"


def test_labels_that_are_all_zero_are_not_known(svhn_dir: Path):
    unknown = part(20, 0) | {"y": np.zeros((20, 1), np.uint8)}
    write(svhn_dir / "train_32x32.mat", unknown)
    images = load(svhn_dir)
    assert images.train_labels is images.valid_labels is None
    assert images.test_labels is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, "must have X, uint8 of shape (32, 32, 3, n), got none"),
        ({"X": np.zeros((32, 32, 3, 3))}, "got float64 of shape (32, 32, 3, 3)"),
        ({"X": np.zeros((32, 32, 3), np.uint8)}, "got uint8 of shape (32, 32, 3)"),
        ({"X": np.zeros((3, 32, 32, 3), np.uint8)}, "of shape (3, 32, 32, 3)"),
        ({"X": "text"}, "X is no array of real numbers"),
        ({"X": {"field": 1}}, "X is no array of real numbers"),
        ({"X": np.full((32, 32, 3, 3), 1j)}, "X is no array of real numbers"),
        ({"y": None}, "must have y, 3 numbers, got none"),
        ({"y": np.ones((4, 1))}, "must have y, 3 numbers, got float64"),
        ({"y": "abc"}, "y is no array of real numbers"),
        ({"y": np.array([[0], [1], [2]])}, "must be 1 to 10, or all 0"),
        ({"y": np.array([[11], [1], [2]])}, "where they are not known, got 11"),
        ({"y": np.array([[1.5], [1], [2]])}, "where they are not known, got 1.5"),
    ],
)
def test_a_wrong_file_is_named(svhn_dir: Path, change: dict[str, Any], message: str):
    path = svhn_dir / "test_32x32.mat"
    content = {k: v for k, v in (part(3, 1) | change).items() if v is not None}
    write(path, content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load(svhn_dir)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_or_other_file_is_named(svhn_dir: Path):
    path = svhn_dir / "test_32x32.mat"
    for content in (
        b"",
        b"text" * 100,
        b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\0\2IM",
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(f"{path} is truncated, damaged")):
            load(svhn_dir)
    path.unlink()
    with pytest.raises(UserError, match=re.escape(f"cannot read {path}: No such file")):
        load(svhn_dir)


def test_as_many_images_as_the_official_are_the_official(
    svhn_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "experiments.data.svhn._OFFICIAL_SIZES", {"train": 20, "test": 26032}
    )
    with pytest.raises(UserError, match="train_32x32.mat must be the official file"):
        load(svhn_dir)


@needs("svhn")
def test_the_real_subset():
    images = load(REAL)
    assert images.source is not None
    assert images.source["subset"] == "881 of 73257 train, 202 of 26032 test"
    assert images.train_labels is images.test_labels is None
    assert 60 < images.train.mean() < 160  # photographs, not noise
    smooth = np.diff(images.train.reshape(-1, 32, 32, 3).astype(int), axis=2)
    assert np.abs(smooth).mean() < 10
