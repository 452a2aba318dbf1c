"""Hostile and damaged files of circuits are refused, at the cost of their own size."""

import io
import json
import pathlib
import re
import struct
import time
import tracemalloc
from typing import Any
import zipfile

import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import serialization
from tests import cases
from tests.test_serialization import CIRCUIT, assert_equal, file_of


def refusal(path: pathlib.Path) -> str:
    """The one line with which a file is refused, in little time and memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError, match="path must be a whole file of") as caught:
            pc.load(path)
        seconds = time.process_time() - start
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 20e6 + 100 * path.stat().st_size
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def rewritten(
    tmp_path: pathlib.Path, change: Any, compression: int = zipfile.ZIP_STORED
) -> pathlib.Path:
    """A file whose entries, a list of (name, bytes), went through ``change``."""
    with zipfile.ZipFile(file_of(tmp_path)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    path = tmp_path / "hostile.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in change(entries):
            archive.writestr(name, data)
    return path


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def with_config(change: Any) -> Any:
    """Entries whose configuration went through ``change``."""

    def changed(entries):
        config = serialization.registry.to_json(CIRCUIT.config)
        header = {"format": serialization.FORMAT, "version": 1, "config": config}
        header = change(header)
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return [("header.npy", array(np.frombuffer(text, np.uint8))), *entries[1:]]

    return changed


def config(**fields: Any) -> Any:
    def change(header):
        header["config"] |= fields
        return header

    return with_config(change)


def swap(name: str, values: Any) -> Any:
    data = values if isinstance(values, bytes) else array(values)
    return lambda entries: [
        (entry, data if name in entry else old) for entry, old in entries
    ]


TREES = {"type": "RandomBinaryTrees", "depth": 1, "num_repetitions": 2, "seed": 0}
BIG = 10**9
CHAIN = {
    "type": "RegionGraph",
    "num_variables": 1,
    "scopes": [[0]] * 5000,
    "partitions": [
        {"type": "Partition", "region": i, "children": [i + 1]} for i in range(4999)
    ],
}
LARGE = {
    "type": "RegionGraph",
    "num_variables": 10**4,
    "scopes": [list(range(10**4))] * 2,
    "partitions": [{"type": "Partition", "region": 0, "children": [1]}] * 5000,
}
PATCH = [["height", 2], ["width", 2], ["num_channels", 1], ["patch", 2]]


def transformed(maker="patch_flow", arguments=()):
    def change(header):
        flow = {"type": "FlowConfig", "maker": maker, "arguments": list(arguments)}
        inner = header["config"]
        header["config"] = {"type": "TransformedConfig", "circuit": inner, "flow": flow}
        return header

    return with_config(change)


HOSTILE = {
    "no header": lambda entries: entries[1:],
    "no parameters": lambda entries: entries[:1],
    "one more": lambda entries: [*entries, ("other.npy", array(np.zeros(3)))],
    "object array": lambda entries: [
        *entries[:-1],
        (entries[-1][0], array(np.array([{}, {}]))),
    ],
    "integers": swap("classes", np.zeros(1, int)),
    "half precision": swap("classes", np.zeros(1, np.float16)),
    "complex": swap("classes", np.zeros(1, np.complex64)),
    "another shape": swap("classes", np.zeros(2, np.float32)),
    "more values than bytes": swap(
        "classes",
        array(np.zeros(1, np.float32)).replace(b"(1,), }   ", b"(10000000,), }"[:11]),
    ),
    "header of floats": swap("header", np.zeros(8)),
    "not JSON": with_config(lambda _: b"{"),
    "not text": with_config(lambda _: b"\xff\xfe\x00"),
    "a list": with_config(lambda _: []),
    "another version": with_config(lambda h: h | {"version": 99}),
    "another format": with_config(lambda h: h | {"format": {"a": ["b"]}}),
    "deep JSON": with_config(lambda _: b"[" * 10**5),
    "deep tuples": with_config(
        lambda h: (
            json.dumps(h | {"config": 0}).encode()[:-2] + b"[" * 900 + b"]" * 900 + b"}"
        )
    ),
    "long number": with_config(lambda _: b"9" * 10**5),
    "no configuration": with_config(lambda h: h | {"config": None}),
    "a leaf": with_config(lambda h: h | {"config": {"type": "Bernoulli"}}),
    "an unknown type": config(leaf={"type": "os.system"}),
    "a list as a type": config(leaf={"type": ["Normal"]}),
    "an unknown field": config(num_cats=3),
    "a missing field": with_config(lambda h: h | {"config": {"type": "CircuitConfig"}}),
    "text for a number": config(num_sums="many"),
    "a fraction": config(num_sums=2.5),
    "none for a number": config(num_classes=None),
    "no structure": config(structure=[1, 2]),
    "variables": config(structure=TREES | {"num_variables": BIG}),
    "repetitions": config(
        structure=TREES | {"num_variables": 4, "num_repetitions": BIG}
    ),
    "repetitions of many leaves": config(
        structure=TREES | {"num_variables": 2, "num_repetitions": BIG},
        leaf=[{"type": "Bernoulli"}, {"type": "Fixed"}],
    ),
    "depth": config(structure=TREES | {"num_variables": 4, "depth": BIG}),
    "pixels": config(structure={"type": "QuadTree", "height": BIG, "width": BIG}),
    "pixels of a graph": config(
        structure={"type": "QuadGraph", "height": BIG, "width": BIG}
    ),
    "pixels of tied parameters": config(
        structure={"type": "QuadTree", "height": BIG, "width": BIG},
        tie_leaves="all",
        tie_sums="levels",
    ),
    "few groups of many pixels": config(
        structure={"type": "QuadTree", "height": BIG, "width": BIG},
        tie_leaves=[0],
        tie_sums=[0],
    ),
    "a fraction as a group": config(tie_sums=[0.5]),
    "cuts": config(
        structure={"type": "PoonDomingos", "height": 1, "width": BIG, "delta": 1}
    ),
    "leaves": config(num_leaves=BIG),
    "sums": config(num_sums=10**30),
    "channels": config(num_channels=BIG),
    "classes": config(num_classes=BIG),
    "classes beyond numbers": config(num_classes=10**30),
    "values": config(leaf={"type": "Categorical", "num_values": BIG}),
    "values of a user's leaf": config(
        structure=TREES | {"num_variables": BIG}, leaf={"type": "Fixed"}
    ),
    "a graph of many variables": config(
        structure=CHAIN | {"num_variables": BIG, "scopes": [[0], [0]], "partitions": []}
    ),
    "a deep graph": config(structure=CHAIN),
    "a large graph": config(structure=LARGE, leaf={"type": "Fixed"}),
    "a graph of numbers": config(
        structure={"type": "RegionGraph", "num_variables": 1} | {"scopes": 1}
    ),
    "a flow of many steps": transformed(arguments=[*PATCH, ["num_steps", BIG]]),
    "a wide flow": transformed(arguments=[*PATCH, ["num_filters", BIG]]),
    "a flow of many pixels": transformed(
        arguments=[["height", BIG], ["width", BIG], *PATCH[2:]]
    ),
    "a flow of many levels": transformed(
        "multi_scale_flow", [*PATCH[:3], ["num_levels", BIG]]
    ),
    "a flow without parameters": transformed(arguments=PATCH),
    "an unknown flow": transformed("exec"),
    "no flow": transformed(arguments=[1]),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_files_are_refused(name, tmp_path):
    pc.load(file_of(tmp_path))  # what is compiled or imported once
    refusal(rewritten(tmp_path, HOSTILE[name]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_come_once(tmp_path):
    path = rewritten(tmp_path, lambda entries: [*entries, entries[-1]])
    assert "got one twice" in refusal(path)


def test_nothing_is_unpacked(tmp_path):
    """Zeros of a gigabyte, in a megabyte."""
    bomb = array(np.zeros(10**7, np.uint8))
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bomb)
    assert "must be stored, got compressed" in refusal(tmp_path / "x")


def test_sizes_are_those_of_the_file(tmp_path):
    """A directory that promises more, by entries that overlap or by numbers."""
    data = bytearray(file_of(tmp_path).read_bytes())
    start = struct.unpack("<I", data[-6:-2])[0]
    for at in (start + 20, start + 24):  # sizes of the first entry
        data[at : at + 4] = struct.pack("<I", BIG)
    (tmp_path / "x").write_bytes(data)
    assert "must hold its entries, got larger" in refusal(tmp_path / "x")
    data = bytearray(file_of(tmp_path).read_bytes())
    data[-10:-6] = struct.pack("<I", 2**31)  # of the directory
    (tmp_path / "x").write_bytes(data)
    assert "table of entries" in refusal(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6" + bytes(18), b"\0" * 1000])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    refusal(tmp_path / "x")


def test_missing_files_are_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        pc.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        pc.save(tmp_path / "no" / "x", CIRCUIT.config, cases.random_params(CIRCUIT, 0))


def test_damaged_files_are_refused_or_the_same(tmp_path):
    """Truncated anywhere, or with one wrong byte anywhere, at random."""
    path = file_of(tmp_path)
    config, params = pc.load(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:end] for end in rng.integers(len(whole), size=60)]
    for at in rng.integers(len(whole), size=300):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    messages = []
    for data in damaged:
        path.write_bytes(data)
        try:
            stored = pc.load(path)
        except ValueError as error:
            messages.append(str(error))
        else:  # a byte that means nothing, such as a date
            assert stored[0] == config
            assert_equal(stored[1], params)
    assert len(messages) > 250
    style = re.compile("path must be a whole file of [^\n]*got [^\n]*")
    assert all(style.fullmatch(message) for message in messages)
