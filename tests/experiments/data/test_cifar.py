"""CIFAR-10's archive: small ones made here, malice, damage, and the real subset."""

import io
import os
from pathlib import Path
import pickle
import re
import tarfile
from typing import Any

import numpy as np
import pytest

from experiments import data
from experiments.console.errors import UserError
from experiments.data.cifar import _checked, _read_batch
from tests.experiments.data.real import REAL, needs
from tests.safe_files import python2 as python2_pickles

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def python2(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled the official ones, instruction by instruction."""
    string = python2_pickles.string
    numbers = b"]q\x03(" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    names = b"](" + b"".join(string(b"%d.png" % i) for i in range(len(rows))) + b"e"
    return (
        b"\x80\x02}q\x01("
        + (string(b"batch_label") + b"q\x02" + string(b"batch"))
        + (string(b"labels") + numbers + string(b"data") + python2_pickles.array(rows))
        + (string(b"filenames") + names + b"u.")
    )


def python3(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch that somebody pickled again."""
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=2)


def batch(num: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    generator = np.random.Generator(np.random.Philox(seed))
    rows = generator.integers(0, 256, (num, 3072)).astype(np.uint8)
    return rows, [i % 10 for i in range(num)]


def write_tar(path: Path, contents: dict[str, bytes], mode: Any = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def contents() -> dict[str, bytes]:
    """Six batches of four images."""
    return {name: python2(*batch(4, seed)) for seed, name in enumerate(NAMES)}


def load(folder: Path) -> data.Dataset:
    return data.load("cifar10", str(folder), data.Options(source="files"))


@pytest.mark.parametrize("write", [python2, python3])
@pytest.mark.parametrize("unpacked", [False, True])
def test_batches_become_images(tmp_path: Path, write, unpacked: bool):
    contents = {name: write(*batch(4, seed)) for seed, name in enumerate(NAMES)}
    if unpacked:
        inner = tmp_path / "cifar-10-batches-py"
        inner.mkdir()
        for name, content in contents.items():
            (inner / name).write_bytes(content)
    else:
        write_tar(tmp_path / "cifar-10-python.tar.gz", contents)
    images = load(tmp_path)
    assert (len(images.train), len(images.valid), len(images.test)) == (18, 2, 4)
    assert (images.height, images.width, images.num_channels) == (32, 32, 3)
    rows, labels = batch(4, 2)  # the third batch: images 8 to 11
    np.testing.assert_array_equal(
        images.train[8:12], rows.reshape(4, 3, 1024).transpose(0, 2, 1)
    )
    assert images.train_labels is not None
    assert images.train_labels[8:12].tolist() == labels
    assert images.train_labels.dtype == np.int32
    assert images.source is not None
    assert images.source["subset"] == "20 of 50000 train, 4 of 10000 test"
    assert len(images.source["files"]) == (6 if unpacked else 7)


def test_absent_batches_make_a_subset_but_not_all(tmp_path: Path, contents):
    del contents["data_batch_1"], contents["data_batch_4"]
    path = tmp_path / "cifar-10-python.tar.gz"
    write_tar(path, contents)
    assert len(load(tmp_path).train) == 11
    del contents["test_batch"]
    write_tar(path, contents)
    with pytest.raises(UserError, match=r"must hold .* test_batch, got \['data_batch_"):
        load(tmp_path)


class Command:
    """Runs a command when a pickle of it is read."""

    def __reduce__(self):
        return os.system, ("touch marker",)


def test_a_command_in_a_batch_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents
):
    monkeypatch.chdir(tmp_path)
    contents["data_batch_3"] = pickle.dumps({b"data": Command()}, protocol=2)
    write_tar(tmp_path / "cifar-10-python.tar.gz", contents)
    with pytest.raises(UserError, match=r"data_batch_3 must hold nothing but arrays"):
        load(tmp_path)
    assert not Path("marker").exists()
    pickle.loads(contents["data_batch_3"])  # the control: elsewhere it does run
    assert Path("marker").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2(batch(4)[0], [0, 1, 2]), "labels, a list of 4 numbers from 0 to 9"),
        (python2(batch(4)[0], [0, 1, 2, 10]), "labels, a list of 4 numbers"),
        (python3(batch(4)[0][:, :3071], [0] * 4), "3072 columns, got (4, 3071)"),
        (python3(batch(4)[0].reshape(4, 3, 32, 32), [0] * 4), "got (4, 3, 32, 32)"),
        (pickle.dumps({b"labels": [1]}, protocol=2), "got NoneType"),
        (pickle.dumps({b"data": b"x"}, protocol=2), "got bytes"),
        (pickle.dumps([], protocol=2), "the value must be a dict, got a list"),
        (b"", "truncated or damaged"),
        (b"no pickle", "truncated or damaged"),
    ],
)
def test_a_wrong_batch_is_named(tmp_path: Path, contents, content: bytes, message: str):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_tar(path, contents | {"data_batch_2": content})
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{path}: cifar-10-batches-py/data_batch_2")
    assert "\n" not in str(caught.value)


def test_as_many_images_as_the_official_are_the_official():
    content = python2(np.zeros((10000, 3072), np.uint8), [0] * 10000)
    assert len(_read_batch("x", content)[0]) == 10000  # in order, but another's
    with pytest.raises(UserError, match="must be the official file .* 10000: its md5"):
        _checked("data_batch_1", "x", content)


@pytest.mark.parametrize("damage", ["plain tar", "not a tar", "link", "twice", "large"])
def test_a_wrong_archive_is_named(tmp_path: Path, contents, damage: str):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_tar(path, contents, "w" if damage == "plain tar" else "w:gz")
    if damage == "not a tar":
        path.write_bytes(b"\x1f\x8b no gzip")
    elif damage in ("link", "twice", "large"):
        with tarfile.open(path, "w:gz") as archive:
            for _ in range(2):
                member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
                if damage == "link":
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                member.size = 2**40 if damage == "large" else 0
                assert archive.fileobj is not None
                archive.fileobj.write(member.tobuf())  # Python 3.13 refuses to: large
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, contents, monkeypatch: pytest.MonkeyPatch
):
    write_tar(tmp_path / "cifar-10-python.tar.gz", contents)
    monkeypatch.setattr("experiments.data.cifar._MAX_UNPACKED", 30000)
    with pytest.raises(UserError, match="more than any such archive has"):
        load(tmp_path)


def test_any_cut_or_flipped_bit_of_the_archive(tmp_path: Path, contents):
    """Gzip's check sum finds each one that changes anything."""
    path = tmp_path / "cifar-10-python.tar.gz"
    write_tar(path, contents)
    whole, content = load(tmp_path), path.read_bytes()
    for cut in [*range(0, 60, 7), *range(60, len(content), len(content) // 40)]:
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=re.escape(str(path))):
            load(tmp_path)
    generator = np.random.Generator(np.random.Philox(0))
    for place in [*range(12), *generator.integers(0, len(content), 60)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        try:
            images = load(tmp_path)
        except UserError:
            continue
        np.testing.assert_array_equal(images.train, whole.train)


@pytest.mark.parametrize("write", [python2, python3])
def test_any_cut_or_flipped_bit_of_a_pickle(write):
    """A pickle has no check sum; arrays of it have the right shape and range."""
    content = write(*batch(2))
    pixels = content.index(batch(2)[0].tobytes()[:9]) if write is python2 else 0
    for cut in range(0, len(content) - 1, 13):
        with pytest.raises(UserError):
            _read_batch("x", content[:cut])
    places = [*range(0, 400), *range(len(content) - 60, len(content)), pixels]
    for place in places:
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                images, labels = _read_batch("x", bytes(flipped))
            except UserError:
                continue
            assert images.shape[1:] == (32, 32, 3)
            assert images.dtype == np.uint8
            assert len(labels) == len(images)
            assert set(labels.tolist()) <= set(range(10))


@needs("cifar10")
def test_the_real_subset():
    images = load(REAL)
    assert images.source is not None
    assert images.source["subset"] == "8068 of 50000 train, 1017 of 10000 test"
    assert images.train_labels is not None
    # The first labels of the set, in the official order.
    assert images.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert images.train[0, 0].tolist() == [59, 62, 63]
