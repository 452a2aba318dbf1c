"""MNIST's format: small files made here, every damage, and the real files."""

import gzip
from pathlib import Path
import re

import numpy as np
import pytest

from experiments import data
from experiments.console.errors import UserError
from experiments.data.idx import read_idx
from tests.experiments.data.real import REAL, needs

FILES_ONLY = data.Options(source="files")
NAMES = {
    ("train", 3): "train-images-idx3-ubyte.gz",
    ("train", 1): "train-labels-idx1-ubyte.gz",
    ("test", 3): "t10k-images-idx3-ubyte.gz",
    ("test", 1): "t10k-labels-idx1-ubyte.gz",
}


def idx(array: np.ndarray) -> bytes:
    """The official format: magic number, sizes, bytes."""
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    """Small files in the official format."""
    generator = np.random.Generator(np.random.Philox(0))
    for (split, rank), name in NAMES.items():
        num = {"train": 52, "test": 6}[split]
        array = (
            generator.integers(0, 256, (num, 28, 28))
            if rank == 3
            else np.arange(num) % 10
        )
        (tmp_path / name).write_bytes(gzip.compress(idx(array), mtime=0))
    return tmp_path


def test_a_subset_is_read_and_called_a_subset(mnist_dir: Path):
    images = data.load("mnist", str(mnist_dir), FILES_ONLY)
    assert images.train.shape == (47, 784, 1)
    assert images.valid.shape == (5, 784, 1)
    assert images.test.shape == (6, 784, 1)
    raw = gzip.decompress((mnist_dir / NAMES["train", 3]).read_bytes())
    everything = np.concatenate([images.train, images.valid])
    assert raw[16:] == everything.tobytes()
    assert images.train_labels is not None
    assert images.valid_labels is not None
    assert images.train_labels.dtype == np.int32
    labels = [*images.train_labels.tolist(), *images.valid_labels.tolist()]
    assert labels == [i % 10 for i in range(52)]
    assert images.source is not None
    assert images.source["subset"] == "52 of 60000 train, 6 of 10000 test"
    assert not images.source["complete"]
    assert [entry["name"] for entry in images.source["files"]] == list(NAMES.values())
    assert not any(entry["official"] for entry in images.source["files"])
    assert "SUBSET (52 of 60000 train, 6 of 10000 test)" in data.describe(images)


def test_files_may_be_unpacked_below_and_without_labels(mnist_dir: Path):
    gzipped = data.load("mnist", str(mnist_dir), FILES_ONLY)
    inner = mnist_dir / "below" / "mnist"
    inner.mkdir(parents=True)
    for (_, rank), name in NAMES.items():
        if rank == 3:
            content = gzip.decompress((mnist_dir / name).read_bytes())
            (inner / name.removesuffix(".gz")).write_bytes(content)
    unpacked = data.load("mnist", str(mnist_dir / "below"), FILES_ONLY)
    np.testing.assert_array_equal(unpacked.train, gzipped.train)
    np.testing.assert_array_equal(unpacked.test, gzipped.test)
    labels = (unpacked.train_labels, unpacked.valid_labels, unpacked.test_labels)
    assert labels == (None, None, None)


def damage_file(path: Path, damage: str) -> None:
    content = path.read_bytes()
    raw = gzip.decompress(content)
    if damage == "absent":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:100])
    elif damage == "not gzip":
        path.write_bytes(raw)
    else:
        path.write_bytes(
            gzip.compress(
                {
                    "short": raw[:-1],
                    "long": raw + b"x",
                    "labels": idx(np.arange(6)),
                    "floats": raw[:2] + b"\x0d" + raw[3:],
                    "huge": raw[:4] + b"\xff" * 12 + raw[16:],
                    "empty": b"",
                    "header only": raw[:10],
                    "no images": idx(np.zeros((0, 28, 28))),
                    "another size": idx(np.zeros((6, 32, 32))),
                    "another number": idx(np.zeros((7, 28, 28))),
                    "as many as the official": idx(np.zeros((10000, 1, 1))),
                }[damage]
            )
        )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("absent", "cannot read"),
        ("truncated", "truncated or damaged"),
        ("not gzip", "truncated or damaged"),
        ("short", "ask for 4704 bytes, got 4703"),
        ("long", "ask for 4704 bytes, got more"),
        ("labels", "must be 00000803, got 00000801"),
        ("floats", "must be 00000803, got 00000d03"),
        ("huge", "do not fit a file of"),
        ("empty", "must be 00000803, got none"),
        ("header only", "ends within its header"),
        ("no images", "for each of the 0 images, got 6"),
        ("another size", "(28, 28, 1) and (32, 32, 1)"),
        ("another number", "must have a label for each of the 7 images, got 6"),
        ("as many as the official", "must be the official file"),
    ],
)
def test_a_damaged_file_is_named(mnist_dir: Path, damage: str, message: str):
    path = mnist_dir / NAMES["test", 3]
    damage_file(path, damage)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        data.load("mnist", str(mnist_dir), FILES_ONLY)
    assert "\n" not in str(caught.value)
    if not message.startswith(("must have a label", "for each", "(28")):
        assert str(path) in str(caught.value)


def test_too_few_images_to_validate_on(mnist_dir: Path):
    for rank, array in ((3, np.zeros((9, 28, 28))), (1, np.zeros(9))):
        (mnist_dir / NAMES["train", rank]).write_bytes(gzip.compress(idx(array)))
    with pytest.raises(UserError, match="at least 10 training images"):
        data.load("mnist", str(mnist_dir), FILES_ONLY)


@pytest.mark.parametrize("packed", [True, False])
def test_any_cut_or_flipped_bit_is_an_error_or_the_same_shape(
    tmp_path: Path, packed: bool
):
    """Gzip's check sum finds every flipped bit; a plain file has none."""
    generator = np.random.Generator(np.random.Philox(1))
    content = idx(generator.integers(0, 256, (3, 4, 5)))
    content = gzip.compress(content, mtime=0) if packed else content
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(content)
    whole, whole_hash = read_idx(path, 3)
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_idx(path, 3)
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                array, flipped_hash = read_idx(path, 3)
            except UserError:
                continue
            assert array.shape == (3, 4, 5)
            if packed:  # a bit of gzip's own that says nothing of the content
                np.testing.assert_array_equal(array, whole)
            else:
                assert place >= 16
                assert flipped_hash != whole_hash


@needs("mnist")
def test_the_official_files_are_known(tmp_path: Path):
    images = data.load("mnist", str(REAL), FILES_ONLY)
    assert images.source is not None
    assert images.source["complete"]
    assert all(entry["official"] for entry in images.source["files"])
    assert [len(images.train), len(images.valid), len(images.test)] == [
        55000,
        5000,
        10000,
    ]
    assert images.train_labels is not None
    # The first ten labels of the set, and their number, as its description has them.
    assert images.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert images.test_labels is not None
    assert np.bincount(images.test_labels)[:3].tolist() == [980, 1135, 1032]
    # One pixel of the same number of images is another set.
    raw = bytearray(
        gzip.decompress((REAL / "mnist" / NAMES["test", 3]).read_bytes()),
    )
    raw[-1] ^= 1
    for name in NAMES.values():
        (tmp_path / name).symlink_to(REAL / "mnist" / name)
    (tmp_path / NAMES["test", 3]).unlink()
    path = tmp_path / NAMES["test", 3]
    path.write_bytes(gzip.compress(raw, 1))
    with pytest.raises(UserError, match=re.escape(f"{path} must be the official file")):
        data.load("mnist", str(tmp_path), FILES_ONLY)
