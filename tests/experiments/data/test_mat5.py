"""MATLAB 5 files against SciPy's, and against damage that SciPy does not survive."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from experiments.data import mat5
from tests.experiments import runs

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")

# SciPy reads a file with one bit changed, in a process of its own.
SCIPY = """
import sys, numpy as np, scipy.io
content = bytearray(open(sys.argv[1], "rb").read())
generator = np.random.Generator(np.random.Philox(0))
for place in range(124, 240):
    flipped = bytearray(content)
    flipped[place] ^= 1 << int(generator.integers(8))
    open(sys.argv[1], "wb").write(flipped)
    try:
        scipy.io.loadmat(sys.argv[1])
    except Exception:
        pass
"""


def saved(content: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content, **options)
    return file.getvalue()


def example() -> dict[str, Any]:
    generator = np.random.Generator(np.random.Philox(0))
    images = generator.integers(0, 256, (4, 4, 3, 5)).astype(np.uint8)
    return {"X": images, "y": np.arange(5, dtype=np.uint8)[:, None]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_what_scipy_wrote(kind: str, compressed: bool):
    arrays = {
        "X": np.arange(-3, 117).reshape(2, 3, 4, 5).astype(kind),
        "y": np.array([[7]], kind),
        "empty": np.zeros((0, 3), kind),
    }
    content = saved(arrays | {"other": "text"}, do_compression=compressed)
    loaded = mat5.loads(content, ("X", "y", "empty", "absent"))
    assert loaded.keys() == {"X", "y", "empty"}
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_doubles_may_be_stored_as_bytes_and_in_the_other_order():
    """MATLAB stores whole numbers of any class in the smallest type."""

    def element(kind: int, content: bytes) -> bytes:
        padding = b"\0" * (-len(content) % 8)
        tag = np.array([kind, len(content)], ">u4").tobytes()
        return tag + content + padding

    flags = np.array([6, 0], ">u4").tobytes()  # the class of doubles
    sizes = np.array([2, 3], ">i4").tobytes()
    body = element(6, flags) + element(5, sizes) + element(1, b"y")
    body += element(2, bytes([1, 2, 3, 4, 5, 6]))
    content = b"text".ljust(124) + b"\x01\x00MI" + element(14, body)
    y = mat5.loads(content, ("y",))["y"]
    np.testing.assert_array_equal(y, [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]], strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"MATLAB 5.0".ljust(126) + b"xx", "no header"),
        (b"MATLAB 7.3".ljust(124) + b"\x00\x02IM", "another version"),
        (saved({"X": 1j}), "X is no array of real numbers"),
        (saved({"X": "text"}), "X is no array of real numbers"),
        (saved({"X": {"a": 1}}), "X is no array of real numbers"),
        (saved({"X": 1}) + saved({"X": 1})[128:], "X twice"),
        (saved({"X": 1}) + b"\0\0\0", "ends within a tag"),
        (saved({"X": 1}) + b"\5\0\0\0\0\0\0\0", "type 5, not an array"),
        (saved({"X": 1}) + b"\5\0\7\0\0\0\0\0", "small element has 7 bytes"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        mat5.loads(content, ("X",))


def test_sizes_are_not_believed(monkeypatch: pytest.MonkeyPatch):
    content = saved(example())
    sizes = np.array([4, 4, 3, 5], "<i4").tobytes()
    assert content.count(sizes) == 1
    for large in ([2**31 - 1] * 4, [-4, -4, 3, 5], [4, 4, 3, 6]):
        changed = content.replace(sizes, np.array(large, "<i4").tobytes())
        with pytest.raises(ValueError, match="has 240 bytes"):
            mat5.loads(changed, ("X",))
    monkeypatch.setattr(mat5, "_MAX_UNPACKED", 200)
    with pytest.raises(ValueError, match="does not end, or is too large"):
        mat5.loads(saved(example(), do_compression=True), ("X",))


@pytest.mark.parametrize("compressed", [False, True])
def test_any_cut_or_flipped_bit(compressed: bool):
    """Compressed arrays have a check sum: they are refused or the same."""
    whole = example()
    content = saved(whole, do_compression=compressed)
    boundaries = {128}  # a file that ends after the first array is a file
    for cut in range(len(content)):
        try:
            loaded = mat5.loads(content[:cut], ("X", "y"))
        except ValueError:
            continue
        assert len(loaded) < 2
        boundaries.add(cut)
    assert len(boundaries) == 2
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                loaded = mat5.loads(bytes(flipped), ("X", "y"))
            except ValueError:
                continue
            for name, array in loaded.items():
                assert array.size == whole[name].size
                if compressed:
                    np.testing.assert_array_equal(array, whole[name], strict=True)


@pytest.mark.slow
def test_why_not_scipy(tmp_path: Path):
    """When this fails, SciPy has become fit for damaged files: use its reader again."""
    path = tmp_path / "x.mat"
    path.write_bytes(saved({"X": np.zeros((32, 32, 3, 2), np.uint8)}))
    code, _, _ = runs.run(SCIPY, str(path), program="-c")
    assert code < 0  # ended by a signal
