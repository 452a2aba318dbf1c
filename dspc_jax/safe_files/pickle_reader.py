"""Pickles as data: their instructions are read, and only harmless ones are followed.

A pickle is a program that may call anything. Here nothing is imported, and no function
of the file's choice is called: two names stand for what they make, a table and a view
of a storage, and every other name is an error.
"""

from collections.abc import Callable
import io
import pickletools
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
"""The storages that can be read: what a network's weights and counters are kept in."""


class Storage(NamedTuple):
    """A storage as a pickle names it: values that tensors are views of."""

    key: str
    dtype: np.dtype
    num_values: int


class Tensor(NamedTuple):
    """A tensor as a pickle describes it: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage_of(reference: Any) -> Storage:
    """What the persistent id of a storage means: both formats' first five words."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
        raise ValueError(f"a storage is referred to by {say(reference)}")
    word, kind, key, location, num_values, *view = reference
    if word != "storage" or view not in ([], [None]) or location != "cpu":
        raise ValueError(f"a storage is referred to by {say(reference)}")
    module, name = _global_name(kind)
    if module != "torch" or name not in DTYPES:
        raise ValueError(f"{module}.{name} is none of the storages {sorted(DTYPES)}")
    if not isinstance(key, str):
        raise ValueError(f"a storage has the key {say(key)}")
    return Storage(key, DTYPES[name], _natural(num_values))


def _rebuild(arguments: tuple) -> Tensor:
    """What ``torch._utils._rebuild_tensor_v2`` would be called with."""
    storage, offset, shape, strides, _, _ = arguments  # gradient flag and hooks: unused
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is a view of {say(storage)}")
    if len(shape) != len(strides) or len(shape) > 32:  # NumPy's most axes
        raise ValueError(f"a tensor has the shape {say(shape)}")
    return Tensor(
        storage,
        _natural(offset),
        tuple(_natural(size) for size in shape),
        tuple(_natural(stride) for stride in strides),
    )


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:  # beyond any file
        raise ValueError(f"a size is {say(value)}")
    return value


class _Global(NamedTuple):
    """A name that a pickle refers to; nothing is imported for it."""

    module: str
    name: str


class _Mark:
    """The bottom of a group of operands on the stack."""


_MARK = _Mark()


def _global_name(value: Any) -> _Global:
    if not isinstance(value, _Global):
        raise ValueError(f"{say(value)} stands where a name must")
    return value


def _call(function: Any, arguments: Any) -> Any:
    """The two calls that a state dictionary needs, as data."""
    name = _global_name(function)
    if not isinstance(arguments, tuple):
        raise ValueError("a call without a tuple of arguments")
    if name == ("torch._utils", "_rebuild_tensor_v2"):
        return _rebuild(arguments)
    if name == ("collections", "OrderedDict") and not arguments:
        return {}
    raise ValueError(f"it calls {name.module}.{name.name}, which is not allowed")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "MARK": lambda: _MARK,
}
_LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = {
    *("PROTO", "STOP", "TUPLE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "BINPERSID", "REDUCE", "BUILD"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
}
# Bytes to the names of what is followed, and to the readers of their arguments.
_INSTRUCTIONS: dict[bytes, tuple[str, Callable[[io.BytesIO], Any] | None]] = {
    opcode.code.encode("latin-1"): (
        opcode.name,
        # pickletools would undo escapes in a name, which unpickling does not.
        opcode.arg.reader if opcode.arg and opcode.name != "GLOBAL" else None,
    )
    for opcode in pickletools.opcodes
    if opcode.name in {*_CONSTANTS, *_LITERALS, *_TUPLES, *_OTHERS}
}


def read_pickle(
    stream: io.BytesIO, *, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The value of one pickle of plain data and tensors, up to its end in the stream.

    Args:
      stream: where the pickle begins; left behind its last byte.
      persistent: what a persistent id means; none are allowed by default.

    Returns:
      Numbers, strings, tuples, lists, dictionaries, and what the two allowed calls and
      ``persistent`` make.

    Raises:
      ValueError: an instruction beyond those that ``torch.save`` writes for a state
        dictionary, or a name or call that is not allowed.
      IndexError, TypeError, KeyError: instructions that do not fit together.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def group() -> list[Any]:
        """Takes the operands above the last mark, and the mark, off the stack."""
        start = len(stack) - 1
        while stack[start] is not _MARK:
            if start == 0:
                raise ValueError("a group of operands without a beginning")
            start -= 1
        operands = stack[start + 1 :]
        del stack[start:]
        return operands

    while code := stream.read(1):
        name, read_argument = _INSTRUCTIONS.get(code, (f"{code!r}", None))
        argument: Any = read_argument(stream) if read_argument else None
        match name:
            case "PROTO":
                if argument != 2:
                    raise ValueError(f"a pickle of protocol {argument}, not 2")
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case _ if name in _LITERALS:
                stack.append(argument)
            case _ if name in _TUPLES:
                stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
            case "TUPLE":
                stack.append(tuple(group()))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                module, name = stream.readline(), stream.readline()
                stack.append(_Global(module.decode()[:-1], name.decode()[:-1]))
            case "BINPERSID" if persistent is not None:
                stack.append(persistent(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "APPEND":
                value = stack.pop()
                _container(stack[-1], list).append(value)
            case "APPENDS":
                operands = group()
                _container(stack[-1], list).extend(operands)
            case "SETITEM":
                operands = [stack.pop(-2), stack.pop()]
                _update(stack[-1], operands)
            case "SETITEMS":
                operands = group()
                _update(stack[-1], operands)
            case "BUILD":
                stack.pop()  # the versions of modules, which torch keeps beside
                _container(stack[-1], dict)
            case "STOP":
                if len(stack) != 1:
                    raise ValueError("a pickle of more than one value")
                return stack[0]
            case _:
                raise ValueError(f"the instruction {name} is not allowed")
    raise ValueError("a pickle without an end")


def _update(table: Any, operands: list[Any]) -> None:
    """Sets entries. Only strings are keys: the hash of nested tuples may take ages."""
    if not all(isinstance(key, str) for key in operands[::2]):
        raise ValueError("a dictionary has a key that is no string")
    _container(table, dict).update(zip(operands[::2], operands[1::2], strict=True))


def _container(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{say(value)} stands where a {kind.__name__} must")
    return value


def say(value: Any) -> str:
    """A short description; never the text of nested values, which may be endless."""
    if value is None or isinstance(value, bool | int | str | _Global):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"
