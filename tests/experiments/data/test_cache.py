"""Prepared arrays: whole or absent, whoever dies, waits, or fills the disk."""

import json
import os
from pathlib import Path
import re
import resource
import signal
import time
from typing import Any

import numpy as np
import pytest

from experiments.console.errors import UserError
from experiments.data import cache
from tests.experiments import runs

# A process that prepares; its arguments: the root, and the event half way.
PREPARE = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from experiments.data import cache

root, event = Path(sys.argv[1]), sys.argv[2]

def prepare(folder):
    def chunks():
        yield np.zeros((5, 4), np.uint8)
        (root / "half").touch()
        if event == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while event == "wait" and not (root / "go").exists():
            time.sleep(0.01)
        yield np.ones((5, 4), np.uint8)
    cache.write_array(folder / "x.npy", 10, chunks())
    return {"by": os.getpid()}

print(cache.prepared(root, "set", {"k": 1}, prepare)[1]["by"])
"""


def ten(folder: Path) -> dict[str, Any]:
    cache.write_array(folder / "x.npy", 10, [np.full((10, 4), 7, np.uint8)])
    return {"said": "ten"}


def fail(folder: Path) -> dict[str, Any]:
    raise AssertionError("prepared again")


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_arrays_are_prepared_once_for_every_key(tmp_path: Path):
    root = tmp_path / "new" / "root"
    folder, description = cache.prepared(root, "set", {"size": 1}, ten)
    assert description == {"said": "ten"}
    assert cache.prepared(root, "set", {"size": 1}, fail) == (folder, description)
    second, _ = cache.prepared(root, "set", {"size": 2}, ten)
    assert second != folder
    assert folders(root) == sorted([folder.name, second.name])
    array = cache.read_array(folder / "x.npy")
    assert array.tolist() == [[7] * 4] * 10
    assert not array.flags.writeable
    assert isinstance(array.base, np.memmap)


def test_an_array_is_written_piece_by_piece(tmp_path: Path):
    whole = np.arange(60, dtype=np.int32).reshape(10, 3, 2)
    path = tmp_path / "x.npy"
    shape = cache.write_array(path, 10, [whole[:4], whole[4:5], whole[5:]], np.int32)
    assert shape == (10, 3, 2)
    np.testing.assert_array_equal(np.load(path), whole, strict=True)
    with pytest.raises(ValueError, match="must have 10 rows together, got 9"):
        cache.write_array(path, 10, [whole[:4], whole[5:]])
    with pytest.raises(ValueError, match=r"rows of shape \(3, 2\), got \(2, 2\)"):
        cache.write_array(path, 10, [whole[:4], whole[4:, :2]])


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, RuntimeError])
def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, error):
    def interrupted(folder: Path) -> dict[str, Any]:
        ten(folder)
        raise error

    with pytest.raises(error):
        cache.prepared(tmp_path, "set", {}, interrupted)
    assert folders(tmp_path) == []
    cache.prepared(tmp_path, "set", {}, ten)


def test_a_killed_preparation_is_not_taken_for_finished(tmp_path: Path):
    code, _, _ = runs.run(PREPARE, str(tmp_path), "kill", program="-c")
    assert code == -signal.SIGKILL
    assert (tmp_path / "half").exists()
    (remains,) = folders(tmp_path)
    assert remains.startswith(".set-")
    assert remains.endswith(".tmp")
    folder, description = cache.prepared(tmp_path, "set", {"k": 1}, ten)
    assert description == {"said": "ten"}
    assert folders(tmp_path) == [folder.name]


def test_two_processes_prepare_once(tmp_path: Path):
    first = runs.start(PREPARE, str(tmp_path), "wait", program="-c")
    while not (tmp_path / "half").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = runs.start(PREPARE, str(tmp_path), "no", program="-c")
    assert second.stdout is not None
    assert "another process prepares set; waiting" in second.stdout.readline()
    (tmp_path / "go").touch()
    first_out, err = first.communicate(timeout=60)
    assert err == ""
    assert "preparing set in" in first_out
    second_out, err = second.communicate(timeout=60)
    assert err == ""
    assert second_out.split() == [first_out.split()[-1]] == [str(first.pid)]


def test_a_full_disk_leaves_nothing(tmp_path: Path):
    """The kernel refuses to let the file grow, as on a full disk."""

    def large(folder: Path) -> dict[str, Any]:
        cache.write_array(folder / "x.npy", 2, [np.zeros((1, 2**16), np.uint8)] * 2)
        return {}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(UserError, match="--cache_dir must .*File too large") as e:
            cache.prepared(tmp_path, "set", {}, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(e.value)
    assert folders(tmp_path) == []
    cache.prepared(tmp_path, "set", {}, large)


@pytest.mark.parametrize(
    "damage",
    ["shorter", "absent", "meta absent", "meta cut", "meta other", "meta list"],
)
def test_what_is_damaged_is_prepared_again(tmp_path: Path, damage: str):
    folder, _ = cache.prepared(tmp_path, "set", {"k": 1}, ten)
    array, meta = folder / "x.npy", folder / "meta.json"
    if damage == "shorter":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "absent":
        array.unlink()
    elif damage == "meta absent":
        meta.unlink()
    elif damage == "meta cut":
        meta.write_text(meta.read_text()[:30])
    elif damage == "meta other":
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"key": {"k": 2}}))
    else:
        meta.write_text("[]")
    with pytest.raises(AssertionError, match="prepared again"):
        cache.prepared(tmp_path, "set", {"k": 1}, fail)
    cache.prepared(tmp_path, "set", {"k": 1}, ten)
    assert cache.read_array(array).sum() == 280


def test_places_that_cannot_be_written_are_named(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=re.escape(f"got {str(file)!r}")):
        cache.prepared(file, "set", {}, ten)
    with pytest.raises(UserError, match="--cache_dir must be a folder that can be"):
        cache.prepared(Path("/proc/nowhere"), "set", {}, ten)


def test_a_damaged_array_is_named(tmp_path: Path):
    path = tmp_path / "x.npy"
    content = b"\x93NUMPY\x01\x00"
    for damaged in (b"", content, content + b"\xff\xff{", b"PK\x03\x04"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=re.escape(f"cannot read {path}")):
            cache.read_array(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=re.escape(f"cannot read {path}")):
        cache.read_array(path)


def test_a_file_is_known_by_name_size_and_time(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    os.utime(path, ns=(5, 5))
    assert cache.stamp(path) == ["x", 1, 5]
    with pytest.raises(UserError, match="No such file"):
        cache.stamp(tmp_path / "y")
