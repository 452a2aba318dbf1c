"""The reader of pickles: Python's own is the oracle; hostile ones; linear time."""

import contextlib
import io
import os
from pathlib import Path
import pickle
import re
import struct
import time
from typing import Any

import numpy as np
import pytest

from dspc_jax.safe_files import UnsafePickle
from dspc_jax.safe_files.pickle_reader import Name, describe, read_pickle


def read(instructions: bytes, **options: Any) -> Any:
    return read_pickle(io.BytesIO(b"\x80\x02" + instructions), **options)


class Oracle(pickle.Unpickler):
    """Python's reader without names, and with Python 2's strings as bytes."""

    def find_class(self, module: str, name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


PLAIN = [
    *(None, True, False, 0, 255, 256, 65535, 65536, -1, 2**31, -(2**63), 2**2000),
    *("", "a", "\N{SNOWMAN}\ud800\0\\x41\n", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    *([], [1], [1, [2], (3, [])], {}, {"a": 1}, {"a": {"b": ()}, "c": [None]}),
    [[i, str(i)] for i in range(300)],  # more than 255 in the memo
    {str(i): i for i in range(3000)},  # in groups of 1000
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{value!r:.20}")
def test_plain_values_are_read(value):
    stream = io.BytesIO(pickle.dumps(value, protocol=2) + b"rest")
    assert read_pickle(stream) == value
    assert stream.read() == b"rest"


def test_strings_of_python_2_are_bytes():
    assert read(b"U\x04a\\n\xff.") == b"a\\n\xff"
    assert read(b"T\x04\x00\x00\x00'\n\\0.") == b"'\n\\0"
    assert read(b"}(U\x01aK\x01X\x01\x00\x00\x00aK\x02u.") == {b"a": 1, "a": 2}


def test_what_is_shared_stays_shared():
    inner: list = []
    first, second = read_pickle(io.BytesIO(pickle.dumps([inner, inner], protocol=2)))
    assert first is second
    cycle = read(b"]q\x00h\x00a.")
    assert cycle[0] is cycle


def test_whatever_is_read_of_a_changed_pickle_is_what_python_reads():
    """Changed bits, lost bytes and random instructions; some change no structure."""
    generator = np.random.Generator(np.random.Philox(0))
    value = [{"a": (1, "b")}, [2**40, None, True], ((),), "ab"]
    content = pickle.dumps([value, value, (1, 2, 3, 4)], protocol=2)
    content = content[:-2] + b"U\x02abT\x01\x00\x00\x00c" + content[-2:]
    codes = np.frombuffer(b"N\x88\x89)]}K(t\x85\x86\x87aesuqh.", np.uint8)
    num_read = 0
    for trial in range(4000):
        changed = bytearray(content)
        place = int(generator.integers(2, len(content)))
        if trial % 3 == 0:
            changed[place] ^= 1 << int(generator.integers(8))
        elif trial % 3 == 1:
            del changed[place]
        else:
            changed[2:] = generator.choice(
                codes, int(generator.integers(1, 9))
            ).tobytes()
        try:
            result = read_pickle(io.BytesIO(changed))
        except ValueError:
            continue
        num_read += 1
        oracle = Oracle(io.BytesIO(changed), encoding="bytes").load()
        assert repr(result) == repr(oracle)
    assert num_read > 100


def test_the_callers_functions_say_what_names_calls_and_states_mean():
    class Box:
        value = None

    calls = {("a.b", "C"): lambda arguments: Box(), ("d", "e"): None}
    states = {Box: lambda box, state: setattr(box, "value", state)}
    first, second = read(
        b"(ca.b\nC\n)Rq\x00cd\ne\nbh\x00t.", calls=calls, states=states
    )
    assert first is second  # a state is set in place
    assert first.value == Name("d", "e")
    arguments = read(
        b"ca\nb\nK\x01N\x86R.", calls={("a", "b"): lambda arguments: arguments}
    )
    assert arguments == (1, None)
    assert read(b"K\x07\x85Q.", persistent=lambda reference: [reference]) == [(7,)]


class Command:
    """Runs a command when a pickle of it is read."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def commands(marker: Path) -> dict[str, bytes]:
    """Pickles that would leave a file; each is one way of calling something."""
    command = f"touch {marker}"
    source = f"__import__('os').system({command!r})"
    text = b"U" + bytes([len(command)]) + command.encode()
    return {
        **{
            f"protocol {number}": pickle.dumps(Command(os.system, command), number)
            for number in range(6)
        },
        "eval": pickle.dumps({"a": [Command(eval, source)]}, protocol=2),
        "inst": b"\x80\x02(" + text + b"ios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\n" + text + b"o.",
        "a name of a name": b"\x80\x02cnumpy\ncore.os.system\n" + text + b"\x85R.",
        "an escaped name": b"\x80\x02c\\x6fs\nsystem\n" + text + b"\x85R.",
        "a name from a string": b"\x80\x02U\x09os.system" + text + b"\x85R.",
        "a name as a tuple": b"\x80\x02U\x02osU\x06system\x86" + text + b"\x85R.",
        "a name beside a call": b"\x80\x02ca\nb\ncos\nsystem\n" + text + b"\x86R.",
        "new object": b"\x80\x02ca\nb\n" + text + b"\x85\x81.",
        "new object of a command": b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
    }


@pytest.mark.parametrize("kind", commands(Path("x")))
def test_a_command_is_not_run(tmp_path: Path, kind: str):
    marker = tmp_path / "marker"
    calls = {("a", "b"): lambda arguments: arguments}
    with pytest.raises(ValueError, match="must"):
        read_pickle(io.BytesIO(commands(marker)[kind]), calls=calls)
    assert not marker.exists()


def test_the_commands_would_run(tmp_path: Path):
    """The negative control: with Python's own reader the file appears."""
    marker = tmp_path / "marker"
    for kind in ("protocol 2", "eval", "inst", "obj"):
        pickle.loads(commands(marker)[kind])
        marker.unlink()


UNSAFE = {
    b"cos\nsystem\n.": "names must be allowed ones, got 'os.system'",
    b"ca\nb \n.": "names must be allowed ones, got 'a.b '",
    b"c\x1b[31m\nb\n.": r"got '\x1b[31m.b'",
    b"ca\nnamed\n)R.": "calls must be of allowed names, got 'a.named'",
    b"N)R.": "calls must be of allowed names, got None",
    b"U\x01aU\x01b\x86)R.": "calls must be of allowed names, got a tuple",
    b"NNb.": "nothing must have a state, got None",
    b"]}b.": "nothing must have a state, got a list",
    b"ca\nb\n}b.": "nothing must have a state, got 'a.b'",  # of a function, elsewhere
    b"U\x01aQ.": "nothing must have a persistent id",
    b"}K\x01Ns.": "keys must be text or bytes, got 1",
    b"})Ns.": "keys must be text or bytes, got a tuple",
    b"}(X\x01\x00\x00\x00aN)Nu.": "keys must be text or bytes, got a tuple",
    b"}ca\nb\nNs.": "keys must be text or bytes, got 'a.b'",
    b"Nr\xff\xff\xff\x7f.": "numbers of the memo must be in order, got 2147483647",
    b")" + b"\x85" * 10: "tuples must be nested at most 10 deep",
    b"N" + b"q\x00h\x00\x86" * 60: "tuples must be nested",  # 2^60 leaves
    b"N" + b"(" * 5000 + b"t" * 5000: "tuples must be nested",
    **{
        code + bytes(8) + b".": f"instructions must be of plain data, got {name}"
        for code, name in (
            *((b"I", "INT"), (b"L", "LONG"), (b"\x8b", "LONG4"), (b"S", "STRING")),
            *((b"V", "UNICODE"), (b"F", "FLOAT"), (b"G", "BINFLOAT"), (b"0", "POP")),
            *((b"1", "POP_MARK"), (b"2", "DUP"), (b"d", "DICT"), (b"l", "LIST")),
            *((b"P", "PERSID"), (b"i", "INST"), (b"o", "OBJ"), (b"\x81", "NEWOBJ")),
            *((b"\x82", "EXT1"), (b"\x83", "EXT2"), (b"\x84", "EXT4")),
            *((b"p", "PUT"), (b"g", "GET"), (b"\x80", "PROTO"), (b"\x95", "FRAME")),
            *((b"\x93", "STACK_GLOBAL"), (b"\x92", "NEWOBJ_EX"), (b"\x94", "MEMOIZE")),
            *((b"B", "BINBYTES"), (b"C", "SHORT_BINBYTES"), (b"\x8e", "BINBYTES8")),
            *((b"\x8c", "SHORT_BINUNICODE"), (b"\x8d", "BINUNICODE8")),
            *(
                (b"\x96", "BYTEARRAY8"),
                (b"\x97", "NEXT_BUFFER"),
                (b"\x8f", "EMPTY_SET"),
            ),
        )
    },
}
DAMAGED = {
    b"": "an instruction must follow, got b''",
    b"N": "an instruction must follow, got b''",
    b"\xff.": r"an instruction must follow, got b'\xff'",
    b".": "a pickle must end with one value",
    b"NN.": "a pickle must end with one value",
    b"(N.": "a pickle must end with one value",
    **dict.fromkeys(
        # Without operands, with too few, or with a mark among them.
        (b"a.", b"Na.", b"]K\x01(a.", b"s.", b"}Ns.", b"\x85.", b"N\x86.", b"N(N\x86."),
        "every operand must exist",
    ),
    **dict.fromkeys(
        (
            b"t.",
            b"Nt.",
            b"]e.",
            b"}u.",
            b"q\x00.",
            b"N(q\x00.",
            b"h\x07.",
            b"R.",
            b"b.",
        ),
        "every operand must exist",
    ),
    b"NNa.": "it must be a list, got None",
    b")(Ne.": "it must be a list, got a tuple",
    b"]U\x01aNs.": "it must be a dict, got a list",
    b"}(U\x01au.": "every key must have a value",
    b"}(U\x01aNU\x01aNu.": "keys must differ, got b'a' twice",
    b"ca\nb\nNR.": "arguments must be a tuple, got None",
    b"ca\nb\nca\nb\nR.": "arguments must be a tuple, got 'a.b'",
    b"ca\nb": "a name must be two whole lines",
    b"ca": "a name must be two whole lines",
    b"c\xff\nb\n.": "can't decode",
    b"J\x00": "not enough data",
    b"X\xff\xff\xff\xff.": "expected 4294967295 bytes",
    b"X\x02\x00\x00\x00\xc3\x28.": "can't decode",
    b"T\xff\xff\xff\xff.": "byte count < 0",
    b"T\xff\xff\xff\x7f.": "expected 2147483647 bytes",
    b"U\xffa.": "expected 255 bytes",
    b"\x8a\xff1.": "not enough data",
}


@pytest.mark.parametrize("instructions", [*UNSAFE, *DAMAGED])
def test_hostile_and_damaged_pickles_are_refused(instructions: bytes):
    calls = {("a", "b"): lambda arguments: arguments, ("a", "named"): None}
    message = re.escape((UNSAFE | DAMAGED)[instructions])
    with pytest.raises(ValueError, match=message) as caught:
        read(instructions, calls=calls)
    assert isinstance(caught.value, UnsafePickle) == (instructions in UNSAFE)


@pytest.mark.parametrize("start", [b"", b"\x80", b"N.", b"\x80\x03N.", b"(dp0\n."])
def test_other_protocols_are_refused(start: bytes):
    with pytest.raises(ValueError, match=r"must begin with b'\\x80\\x02', got b"):
        read_pickle(io.BytesIO(start))


def test_messages_are_short():
    endless: list = []
    endless.append(endless)
    for value in (endless, (endless,), {"a": endless}, object()):
        assert describe(value).startswith("a ")
    for value in ("a\x1b" * 10**6, b"\0" * 10**6, Name("a" * 10**6, "b"), 2**2000):
        assert len(describe(value)) == 60
        assert describe(value).isprintable()


def text(size: int) -> bytes:
    return b"X" + struct.pack("<I", size) + b"a" * size


NUM = 150_000
LONG = {
    "marks": b"N" + b"(" * NUM,
    "lists in lists": b"]" * NUM + b"a" * (NUM - 1) + b".",
    "groups in a list": b"]" + b"(NNe" * NUM + b".",
    "empty groups above many operands": b"]" + b"]" * NUM + b"(e" * NUM,
    "a tuple of many": b"(" + b"N" * NUM + b"t.",
    "many tuples of a long tuple": b"(" + b"N" * NUM + b"tq\x00" + b"h\x00\x85" * NUM,
    "keys that are equal and long": (
        b"}"
        + text(NUM)
        + b"q\x00"
        + text(NUM)
        + b"q\x01"
        + b"("
        + b"h\x00Nh\x01N" * NUM
        + b"u."
    ),
    "a name without end": b"c" + b"a" * NUM,
    "one number of the memo": b"N" + b"q\x00" * NUM + b".",
    "long whole numbers": b"(" + (b"\x8a\xff" + b"\x7f" * 255) * (NUM // 100) + b"t.",
}


@pytest.mark.parametrize("kind", LONG)
def test_time_is_linear(kind: str):
    """Many instructions in seconds; in quadratic time they would take minutes."""
    start = time.process_time()
    with contextlib.suppress(ValueError):
        read(LONG[kind])
    assert time.process_time() - start < 20
