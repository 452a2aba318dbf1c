"""Pickles as data: their instructions are followed, and nothing is ever executed.

A pickle is a program for a small stack machine that may call anything. This machine
imports nothing: a name stays a name, and a call of one is made by a function that the
caller of the reader provides. It knows the instructions of plain values in protocol 2;
every other one is an error. Time and memory are linear in the size of the pickle.
"""

from collections.abc import Callable, Mapping
import io
import pickletools
from typing import Any, NamedTuple

_PROTOCOL = b"\x80\x02"
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_MAX_DEPTH = 10
"""Of tuples in tuples; Python's hash of thousands would overflow its stack."""


class UnsafePickle(ValueError):
    """The pickle asks for something that its reader does not allow."""


class Name(NamedTuple):
    """A name that a pickle refers to; nothing is imported for it."""

    module: str
    name: str


def read_pickle(
    stream: io.BytesIO,
    *,
    calls: Mapping[tuple[str, str], Callable[[tuple], Any] | None] | None = None,
    states: Mapping[type, Callable[[Any, Any], None]] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of one pickle of protocol 2, up to its end in the stream.

    Args:
        stream: where the pickle begins; left behind its last byte.
        calls: the names (module, name) that may occur, each with the function that
            makes the value of a call from the tuple of its arguments, or None for a
            name that must not be called.
        states: the types of objects that may get a state, each with the function that
            gives an object its state, in place.
        persistent: makes the value that a persistent id stands for.

    Returns:
        None, truth values, whole numbers, strings, bytes (strings of Python 2), tuples,
        lists and dictionaries of these, `Name`, and what the functions make. Lists and
        dictionaries may be shared, and may hold themselves.

    Raises:
        UnsafePickle: an instruction, a name, a call or a key that is not allowed.
        ValueError: the pickle is truncated or damaged.
    """
    if (start := stream.read(2)) != _PROTOCOL:
        raise ValueError(f"a pickle must begin with {_PROTOCOL!r}, got {start!r}")
    machine = _Machine(stream, calls or {}, states or {}, persistent)
    try:
        while (code := stream.read(1)) != b".":
            machine.follow(code)
    except (IndexError, KeyError) as error:  # of the stack, of the memo
        raise ValueError(f"every operand must exist, got {error!r}") from None
    if machine.marked or len(machine.stack) != 1:
        raise ValueError("a pickle must end with one value, got none or more")
    return machine.stack[0]


class _Machine:
    """The stack machine; a mark keeps the stack so far, and an empty one begins."""

    def __init__(self, stream: io.BytesIO, calls, states, persistent):
        self._stream = stream
        self._calls, self._states, self._persistent = calls, states, persistent
        self.marked: list[list[Any]] = []
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._depths: dict[int, int] = {}  # of tuples, by their ids

    def follow(self, code: bytes) -> None:
        if code not in _OPCODES:
            raise ValueError(f"an instruction must follow, got {code!r}")
        opcode = _OPCODES[code]
        if opcode.name not in _INSTRUCTIONS:
            raise UnsafePickle(f"instructions must be of plain data, got {opcode.name}")
        # GLOBAL reads for itself: pickletools would undo escapes, unpickling does not.
        argument = None if opcode.name == "GLOBAL" else opcode.arg
        arguments = [argument.reader(self._stream)] if argument else []
        _INSTRUCTIONS[opcode.name](self, *arguments)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def group(self) -> list[Any]:
        """Takes the operands above the last mark, and the mark."""
        operands, self.stack = self.stack, self.marked.pop()
        return operands

    def last(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def pack(self, operands: list[Any]) -> None:
        """Pushes a tuple."""
        inner = [self._depths.get(id(x), 1) for x in operands if type(x) is tuple]
        depth = 1 + max(inner, default=0)
        if depth > _MAX_DEPTH:
            raise UnsafePickle(f"tuples must be nested at most {_MAX_DEPTH} deep")
        value = tuple(operands)
        self._depths[id(value)] = depth
        self.push(value)

    def put(self, number: int) -> None:
        if number > self._stream.tell():  # every number is used once, in order
            raise UnsafePickle(f"numbers of the memo must be in order, got {number}")
        self.memo[number] = self.stack[-1]

    def extend(self, operands: list[Any]) -> None:
        self.container(list).extend(operands)

    def update(self, operands: list[Any]) -> None:
        """Sets entries, once each: other keys may take ages to hash or to compare."""
        table = self.container(dict)
        if len(operands) % 2:
            raise ValueError("every key must have a value, got a key alone")
        for key, value in zip(operands[::2], operands[1::2], strict=True):
            if type(key) not in (str, bytes):
                raise UnsafePickle(f"keys must be text or bytes, got {describe(key)}")
            if key in table:
                raise ValueError(f"keys must differ, got {describe(key)} twice")
            table[key] = value

    def container(self, kind: type) -> Any:
        if type(value := self.stack[-1]) is not kind:
            raise ValueError(f"it must be a {kind.__name__}, got {describe(value)}")
        return value

    def refer(self) -> None:
        lines = [self._stream.readline(), self._stream.readline()]
        if not all(line.endswith(b"\n") for line in lines):
            raise ValueError("a name must be two whole lines, got the end of the file")
        name = Name(*(line[:-1].decode() for line in lines))
        if name not in self._calls:
            raise UnsafePickle(f"names must be allowed ones, got {describe(name)}")
        self.push(name)

    def reduce(self) -> None:
        name, arguments = self.last(2)
        function = self._calls[name] if type(name) is Name else None
        if function is None:
            raise UnsafePickle(f"calls must be of allowed names, got {describe(name)}")
        if type(arguments) is not tuple:
            raise ValueError(f"arguments must be a tuple, got {describe(arguments)}")
        self.push(function(arguments))

    def build(self) -> None:
        value, state = self.last(2)
        if type(value) not in self._states:
            raise UnsafePickle(f"nothing must have a state, got {describe(value)}")
        self._states[type(value)](value, state)
        self.push(value)

    def resolve(self) -> None:
        if self._persistent is None:
            raise UnsafePickle("nothing must have a persistent id, got one")
        self.push(self._persistent(self.stack.pop()))


_INSTRUCTIONS: dict[str, Callable[..., None]] = {
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "EMPTY_TUPLE": lambda machine: machine.push(()),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "EMPTY_DICT": lambda machine: machine.push({}),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Machine.push),
    "BINUNICODE": _Machine.push,
    # Strings of Python 2 are bytes, which pickletools reads as text.
    "SHORT_BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine: machine.pack(machine.group()),
    "TUPLE1": lambda machine: machine.pack(machine.last(1)),
    "TUPLE2": lambda machine: machine.pack(machine.last(2)),
    "TUPLE3": lambda machine: machine.pack(machine.last(3)),
    "APPEND": lambda machine: machine.extend(machine.last(1)),
    "APPENDS": lambda machine: machine.extend(machine.group()),
    "SETITEM": lambda machine: machine.update(machine.last(2)),
    "SETITEMS": lambda machine: machine.update(machine.group()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    "BINGET": lambda machine, number: machine.push(machine.memo[number]),
    "LONG_BINGET": lambda machine, number: machine.push(machine.memo[number]),
    "GLOBAL": _Machine.refer,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.resolve,
}


def size(value: Any) -> int:
    """A whole number that a pickle gives, after a check that it can be a size."""
    if type(value) is not int or not 0 <= value < 2**40:  # beyond any file
        raise ValueError(f"a size must be from 0 to 2^40, got {describe(value)}")
    return value


def sizes(value: Any) -> tuple[int, ...]:
    """A tuple that a pickle gives, after a check that it can be a shape or strides."""
    if type(value) is not tuple or len(value) > 32:  # NumPy's most axes
        raise ValueError(f"a shape must be a short tuple, got {describe(value)}")
    return tuple(map(size, value))


def describe(value: Any) -> str:
    """A short description; never the text of nested values, which may be endless."""
    if type(value) is Name:
        value = f"{value.module}.{value.name}"
    if value is None or isinstance(value, bool | int | str | bytes):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"
