"""Reading torch's files: what torch itself wrote, damaged files, and malicious ones.

``small_zip.pth`` and ``small_legacy.pth`` were written by torch 2.13.0 from the state
of a ``BatchNorm2d(2)`` with three views added (see `EXPECTED`).
"""

import collections
import io
import os
import pathlib
import pickle
import sys
import types
from typing import Any, NamedTuple
import zipfile

import numpy as np
import pytest

from dspc_jax.safe_files import read_tensors
from dspc_jax.safe_files.torch_files import MAGIC_NUMBER, PROTOCOL_VERSION

FOLDER = pathlib.Path(__file__).parent
FILES = {
    name: (FOLDER / f"small_{name}.pth").read_bytes() for name in ("zip", "legacy")
}
EXPECTED = {
    "weight": np.ones(2, np.float32),
    "bias": np.zeros(2, np.float32),
    "running_mean": np.zeros(2, np.float32),
    "running_var": np.ones(2, np.float32),
    "num_batches_tracked": np.zeros((), np.int64),
    # torch.arange(24.).reshape(2, 3, 4).permute(2, 0, 1)
    "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    # Both are views of one torch.arange(10.): [3:7] and [1::2]
    "part": np.arange(3, 7, dtype=np.float32),
    "every_second": np.arange(1, 10, 2, dtype=np.float32),
}


def _assert_expected(tensors):
    assert tensors.keys() == EXPECTED.keys()
    for name, value in EXPECTED.items():
        assert tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name], value)


@pytest.mark.parametrize("name", FILES)
def test_what_torch_wrote_is_read(name):
    _assert_expected(read_tensors(FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_every_truncated_file_is_refused(name):
    for size in range(len(FILES[name])):
        with pytest.raises(ValueError, match="^not a readable file of tensors: "):
            read_tensors(FILES[name][:size])


def _flipped(data, position, bit):
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def test_a_flipped_bit_in_an_archive_is_found_or_does_no_harm():
    """The format has check sums: what is read at all is what was written."""
    data, refused = FILES["zip"], 0
    bits = np.random.default_rng(0).integers(0, 8, len(data))
    for position in range(0, len(data), 3):
        try:
            tensors = read_tensors(_flipped(data, position, bits[position]))
        except ValueError:
            refused += 1
        else:
            _assert_expected(tensors)
    assert refused > 300  # the rest is padding and dates


def test_a_flipped_bit_in_the_older_format_is_refused_or_gives_tensors():
    """There are no check sums: that is what the sha256 is for."""
    data, refused = FILES["legacy"], 0
    for position in range(len(data)):
        for bit in (position % 8, (position + 3) % 8):
            try:
                tensors = read_tensors(_flipped(data, position, bit))
            except ValueError:
                refused += 1
            else:
                assert all(isinstance(value, np.ndarray) for value in tensors.values())
    assert refused > 1250


def test_random_bytes_are_refused():
    generator = np.random.default_rng(0)
    for start in (b"", b"\x80\x02", b"PK\x03\x04"):
        for _ in range(200):
            with pytest.raises(ValueError, match="not a readable file of tensors"):
                read_tensors(start + generator.bytes(int(generator.integers(300))))


# A writer of the older format, with the stand-ins for torch's names that it needs.


class Stored(NamedTuple):
    """A storage as the writer names it."""

    key: Any
    kind: Any = "FloatStorage"
    location: Any = "cpu"
    num_values: Any = 4


class View(NamedTuple):
    """A tensor as the writer describes it."""

    storage: Any = Stored("0")
    offset: Any = 0
    shape: Any = (4,)
    strides: Any = (1,)


def _stand_in(module, name):
    def function(*_):
        raise AssertionError(f"{module}.{name} was called")

    function.__module__, function.__name__, function.__qualname__ = module, name, name
    return function


@pytest.fixture
def write(monkeypatch):
    """``write(table, keys=, values=) -> bytes`` in the older format."""
    names = {
        "torch": ("FloatStorage", "HalfStorage", "LongStorage"),
        "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
    }
    for module, functions in names.items():
        stand_ins = types.ModuleType(module)
        for name in functions:
            setattr(stand_ins, name, _stand_in(module, name))
        monkeypatch.setitem(sys.modules, module, stand_ins)
    torch, utils = sys.modules["torch"], sys.modules["torch._utils"]

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Stored):
                kind = getattr(torch, obj.kind)
                return ("storage", kind, obj.key, obj.location, obj.num_values, None)
            return None

        def reducer_override(self, obj):
            if isinstance(obj, View):
                arguments = (*obj, False, collections.OrderedDict())
                return utils._rebuild_tensor_v2, arguments
            return NotImplemented

    def write(table, *, keys=("0",), values=4):
        stream = io.BytesIO()
        for value in (
            MAGIC_NUMBER,
            PROTOCOL_VERSION,
            {"little_endian": True},
            table,
            list(keys),
        ):
            if isinstance(value, bytes):
                stream.write(value)
            else:
                Writer(stream, protocol=2).dump(value)
        storage = np.arange(values, dtype="<f4").tobytes()
        return stream.getvalue() + np.int64(values).tobytes() + storage

    return write


def test_the_writer_of_these_tests_writes_what_torch_does(write):
    tensors = read_tensors(write({"a": View(), "b": View(shape=(2,), strides=(3,))}))
    np.testing.assert_array_equal(tensors["a"], [0, 1, 2, 3])
    np.testing.assert_array_equal(tensors["b"], [0, 3])


class Evil:
    """A pickle of this runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_in_a_pickle_is_not_run(write, tmp_path, protocol):
    mark = tmp_path / "ran"
    evil = Evil(f"touch {mark}")
    pickled = pickle.dumps({"a": evil}, protocol=protocol)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/data.pkl", pickled)
    for data in (
        pickled,
        archive.getvalue(),
        write(pickled),
        write({"a": View(storage=evil)}),
        write({"a": View(), "b": evil}),
        write({"a": View()}, keys=[evil]),
    ):
        with pytest.raises(ValueError, match="not a readable file of tensors"):
            read_tensors(data)
    assert not mark.exists()
    pickle.loads(pickled)  # the control: elsewhere it does run
    assert mark.exists()


def test_the_error_names_what_was_called(write):
    pickled = pickle.dumps(Evil("true"), protocol=2)
    with pytest.raises(ValueError, match=r"names must be .*, got '\w+\.system'"):
        read_tensors(write(pickled))


@pytest.mark.parametrize(
    "instructions",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao.",  # OBJ
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02}ccollections\nOrderedDict\n]\x85Rb.",  # with entries
        b"\x80\x02}X\x01\x00\x00\x00aX\x01\x00\x00\x00bs(K\x01Nb.",  # BUILD of a number
        b"\x80\x02}ccos\nsystem\nb.",  # a name as state
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a table that holds itself
        b"\x80\x02]K\x01a.",
        b"\x80\x02}U\x01aNs.",
    ],
)
def test_other_instructions_are_refused(write, instructions):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/data.pkl", instructions)
    for data in (instructions, write(instructions), archive.getvalue()):
        with pytest.raises(ValueError, match="^not a readable file of tensors: "):
            read_tensors(data)


@pytest.mark.parametrize(
    "view",
    [
        View(offset=1),
        View(offset=-1),
        View(strides=(2,)),
        View(strides=(-1,)),
        View(shape=(5,)),
        View(shape=(1000,), strides=(0,)),  # one value, many times
        View(shape=(2**35, 2**35), strides=(0, 0)),
        View(shape=(2**63,)),
        View(shape=(4, 1)),
        View(shape=(4.0,)),
        View(shape=None),
        View(shape=(1,) * 100, strides=(1,) * 100),
        View(storage=None),
        View(storage=Stored("0", kind="HalfStorage")),
        View(storage=Stored("0", location="cuda:0")),
        View(storage=Stored("1")),
        View(storage=Stored(0)),
        View(storage=Stored("0", num_values=2**50)),
        View(storage=Stored("0", num_values=5)),
        View(storage=Stored("0", num_values=3)),
        View(storage=Stored("0", num_values="4")),
        View(storage=Stored("0" * 100)),
    ],
)
def test_views_beyond_their_storage_are_refused(write, view):
    with pytest.raises(ValueError, match="^not a readable file of tensors: "):
        read_tensors(write({"a": view}))


@pytest.mark.parametrize(
    "storages",
    [
        [Stored("0"), Stored("0", num_values=1000)],
        [Stored("0", num_values=1000), Stored("0")],
        # As many bytes: a view of the one would reach beyond the other.
        [Stored("0"), Stored("0", kind="LongStorage", num_values=2)],
    ],
)
def test_a_storage_of_two_descriptions_is_refused(write, storages):
    views = {
        str(i): View(storage, shape=(storage.num_values,))
        for i, storage in enumerate(storages)
    }
    with pytest.raises(ValueError, match="'0' must have one form"):
        read_tensors(write(views))


def test_tables_of_anything_else_are_refused(write):
    for table in ({}, {"a": 1}, {1: View()}, [View()], View(), None, {"a": [View()]}):
        with pytest.raises(ValueError, match="^not a readable file of tensors: "):
            read_tensors(write(table))


def test_files_with_more_or_fewer_storages_are_refused(write):
    table = {"a": View()}
    for keys in (["0", "1"], [], ["0", "0"], ["1"], [0], [["0"]]):
        with pytest.raises(ValueError, match="list of storages"):
            read_tensors(write(table, keys=keys))
    with pytest.raises(ValueError, match="must end after its storages, got more"):
        read_tensors(write(table) + b"\0")


def _rewritten(change):
    """The archive of torch with its entries passed through ``change``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FILES["zip"])) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    compression = change(entries) or zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", compression) as new:
        for name, value in entries.items():
            new.writestr(name, value)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: zipfile.ZIP_DEFLATED, "compressed"),
        (lambda e: e.pop("small_zip/data/0"), "'small_zip/data/0' must exist"),
        (lambda e: e.pop("small_zip/data.pkl"), "data.pkl, got 0"),
        (lambda e: e.update({"b/data.pkl": b""}), "data.pkl, got 2"),
        (lambda e: e.update({"small_zip/byteorder": b"big"}), "little-endian"),
        (
            lambda e: e.update({"small_zip/data/0": b"1234567"}),
            "8 bytes must follow, got 7",
        ),
    ],
)
def test_archives_that_are_not_torch_s_are_refused(change, message):
    def wrapped(entries):
        result = change(entries)
        return result if isinstance(result, int) else None

    with pytest.raises(ValueError, match=message):
        read_tensors(_rewritten(wrapped))
    _assert_expected(read_tensors(_rewritten(lambda entries: None)))
