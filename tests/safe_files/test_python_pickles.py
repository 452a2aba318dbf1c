"""Dictionaries of arrays: those of Python 2 and 3, hostile ones, damage."""

import contextlib
import os
from pathlib import Path
import pickle
import struct
import time
from typing import Any

import numpy as np
import pytest

from dspc_jax.safe_files import UnsafePickle, read_dict
from tests.safe_files import python2

VALUES = np.arange(6, dtype=np.uint8).reshape(2, 3)
PYTHON_2 = b"\x80\x02}(" + python2.string(b"data") + python2.array(VALUES)
PYTHON_2 += python2.string(b"names") + b"](" + python2.string(b"a\xff") + b"K\x07eu."


def python3(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def entry(value: bytes) -> bytes:
    """A dictionary of one entry, with the instructions of its value."""
    return b"\x80\x02}U\x01x" + value + b"s."


def test_a_dictionary_of_python_2():
    table = read_dict(PYTHON_2 + b"rest")
    assert table.keys() == {b"data", b"names"}
    assert table[b"names"] == [b"a\xff", 7]
    assert table[b"data"].dtype == np.uint8
    np.testing.assert_array_equal(table[b"data"], VALUES)


@pytest.mark.parametrize(
    "array",
    [
        VALUES,
        np.asfortranarray(VALUES),
        VALUES[:, ::2],
        VALUES[0, ..., 0],
        np.arange(256, dtype=np.uint8),
    ],
)
def test_arrays_of_python_3(array):
    table = read_dict(
        python3({"a": array, b"b": [b"\x80", "c", 2**40], "again": array})
    )
    np.testing.assert_array_equal(table[b"a"], array, strict=True)
    assert table[b"again"] is table[b"a"]
    assert table[b"b"] == [b"\x80", "c", 2**40]


class Command:
    """Runs a command when a pickle of it is read."""

    def __reduce__(self):
        return os.system, ("touch marker",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": Command()}, protocol)
    with pytest.raises(ValueError, match="must"):
        read_dict(content)
    assert not Path("marker").exists()
    pickle.loads(content)  # the control: elsewhere it does run
    assert Path("marker").exists()


def test_a_state_changes_nothing_for_the_next():
    state = b"N}U\x0c__defaults__K\x07s\x86b"  # attributes that BUILD would set
    for name in (b"numpy\nndarray", b"numpy.core.multiarray\n_reconstruct"):
        with pytest.raises(UnsafePickle):
            read_dict(entry(b"c" + name + b"\n" + state))
    np.testing.assert_array_equal(read_dict(PYTHON_2)[b"data"], VALUES)


DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def state(
    shape: bytes = b"K\x02\x85", dtype: bytes = DTYPE, items: bytes = b"U\x02ab"
) -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + b"\x89" + items + b"tb"


def test_the_control_of_the_states_is_read():
    assert read_dict(entry(b"K\x07")) == {b"x": 7}
    assert read_dict(entry(state()))[b"x"].tolist() == [97, 98]
    with pytest.raises(ValueError, match="read-only"):
        read_dict(entry(state()))[b"x"][0] = 1


@pytest.mark.parametrize(
    "value",
    [
        *(b"N", b")", b"}", b"\x88", b"]]a", b"]Na", b"](K\x01)e"),
        b"cnumpy\nndarray\n",  # a name
        b"cnumpy\nndarray\n)R",  # a call of what is only named
        b"cnumpy\ndtype\n)R",
        DTYPE,
        b"]" + DTYPE + b"a",
        ARRAY,  # without a state
        b"]" + state() + b"a",
        b"cnumpy.core.multiarray\n_reconstruct\n)R",
        b"cnumpy.core.multiarray\nscalar\n",
        ARRAY + b"Nb",
        ARRAY + b"(K\x01" + b"K\x02\x85" + DTYPE + b"\x89tb",
        state(dtype=b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"),  # objects
        state(dtype=b"cnumpy\ndtype\nU\x02i1K\x00K\x01\x87R"),
        state(dtype=b"cnumpy\ndtype\nNK\x00K\x01\x87R"),
        state(dtype=b"U\x02u1"),
        state(dtype=b"cnumpy\ndtype\n"),
        state(items=b"X\x02\x00\x00\x00ab"),
        state(items=b"](K\x01K\x02e"),
        state(items=b"U\x03abc"),
        state(items=b"U\x01a"),
        *(
            state(shape=shape)
            for shape in (b"N", b"K\x02", b"]K\x02a", b"}", b"U\x012")
        ),
        *(
            state(shape=shape)
            for shape in (b")", b"K\x03\x85", b"N\x85", b"\x88K\x02\x86")
        ),
        state(shape=b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"),  # -1 and -2
        state(shape=b"J\xff\xff\xff\xff\x85"),
        state(shape=b"(" + b"K\x01" * 40 + b"K\x02t"),
        state(
            shape=b"K\x00\x8a\x09" + b"\1" * 9 + b"\x86", items=b"U\x00"
        ),  # beyond int64
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R",
        b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R",
        b"c_codecs\nencode\nU\x01aX\x06\x00\x00\x00latin1\x86R",
        b"c_codecs\nencode\nX\x01\x00\x00\x00a\x85R",
    ],
)
def test_other_values_are_refused(value: bytes):
    with pytest.raises(ValueError, match=".") as caught:
        read_dict(entry(value))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [[], None, "a", (1,), 1])
def test_what_is_no_dictionary_is_refused(value):
    with pytest.raises(UnsafePickle, match="the value must be a dict, got "):
        read_dict(python3(value))


@pytest.mark.parametrize("content", [PYTHON_2, python3({"a": VALUES, b"b": [1, "c"]})])
def test_any_cut_or_flipped_bit_is_an_error_or_gives_plain_values(content: bytes):
    for size in range(len(content)):
        with pytest.raises(ValueError, match="."):
            read_dict(content[:size])
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with contextlib.suppress(ValueError):
            for key, value in read_dict(bytes(flipped)).items():
                assert type(key) is bytes
                assert type(value) in (int, bytes, str, list, np.ndarray)


NUM = 10**5
TEXT = b"X" + struct.pack("<I", NUM) + b"a" * NUM
KEYS = b"".join(b"U\x05%05d" % i + b"h\x00" for i in range(NUM))


@pytest.mark.parametrize(
    "content",
    [
        # One text, encoded many times: gigabytes.
        entry(
            b"c_codecs\nencode\nq\x00]q\x01(h\x00"
            + TEXT
            + b"X\x06\x00\x00\x00latin1\x86q\x02R"
            + b"h\x00h\x02R" * NUM
            + b"e"
        ),
        # One list of many, under many keys.
        b"\x80\x02}U\x01x](" + b"K\x01" * NUM + b"eq\x00s(" + KEYS + b"u.",
        # The product of many sizes.
        entry(state(shape=b"(" + b"K\xff" * 4 * NUM + b"t")),
    ],
    ids=["text", "list", "shape"],
)
def test_time_and_memory_are_linear(content: bytes):
    start = time.process_time()
    with contextlib.suppress(ValueError):
        read_dict(content)
    assert time.process_time() - start < 20
