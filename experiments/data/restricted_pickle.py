"""Reads pickles of plain values and byte arrays, and nothing else.

A pickle is a program for a small machine that can call any importable function. Here no
import ever happens: instructions beyond those for plain values are refused before
anything runs, and the few names that a NumPy array needs stand for our own functions.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

# What protocol 2 needs for None, truth values, whole numbers, strings, bytes, lists,
# tuples, dicts and the construction of an array.
_INSTRUCTIONS = frozenset(
    [
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2"),
        *("SHORT_BINSTRING", "BINSTRING", "BINUNICODE"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "REDUCE", "BUILD"),
    ]
)
# An array has four. Thousands inside each other would overflow the interpreter's stack.
_MAX_TUPLES = 100


class UnsafePickle(ValueError):
    """The pickle asks for something that plain values do not need."""


class _Array:
    """What becomes an array; pickles only ever get classes derived from it."""

    value: np.ndarray | None = None


def load_dict(content: bytes) -> dict[bytes, Any]:
    """Rebuilds a dict from a pickle of protocol 2, as Python 2 and 3 write them.

    Args:
        content: the pickle; what follows its end is ignored.

    Returns:
        The dict. Its keys are bytes; its values whole numbers, bytes, strings, lists of
        these, or uint8 arrays. Strings of Python 2 are bytes.

    Raises:
        UnsafePickle: another instruction, name or value; nothing of it was executed.
        Exception: damaged content raises whatever `pickle` raises.
    """
    _check(content)
    value = _unpickler(content).load()
    if not isinstance(value, dict):
        raise UnsafePickle(f"a {type(value).__name__}, not a dict")
    result = {}
    for key, item in value.items():
        if isinstance(item, _Array):
            item = item.value
        elif not all(map(_is_scalar, item if isinstance(item, list) else [item])):
            raise UnsafePickle("a value of another kind")
        if item is None or not isinstance(key, bytes | str):
            raise UnsafePickle("an entry without name or content")
        result[key.encode() if isinstance(key, str) else key] = item
    return result


def _is_scalar(value: Any) -> bool:
    return type(value) in (int, bytes, str)


def _check(content: bytes) -> None:
    """Refuses by reading alone."""
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        name = instruction.name
        if name not in _INSTRUCTIONS:
            raise UnsafePickle(f"instruction {name}")
        # Every memo number is used once, in order: others only cost memory.
        if name == "LONG_BINPUT" and (argument is None or argument > number):
            raise UnsafePickle(f"memo number {argument}")
        tuples += "TUPLE" in name
        if tuples > _MAX_TUPLES:
            raise UnsafePickle(f"more than {_MAX_TUPLES} tuples")


def _unpickler(content: bytes) -> pickle.Unpickler:
    """An unpickler whose only names are ours, made anew for every pickle."""

    class Dtype:
        """Stands for ``numpy.dtype``."""

        def __init__(self, code: Any, *_: Any):
            self.code = code.decode("ascii") if isinstance(code, bytes) else code

        def __setstate__(self, state: Any) -> None:
            del state  # the order of bytes has no meaning for single ones

    class Array(_Array):
        """Stands for ``numpy.ndarray``."""

        def __setstate__(self, state: Any) -> None:
            _, shape, dtype, is_fortran, items = state
            if not isinstance(dtype, Dtype) or dtype.code not in ("u1", "|u1"):
                raise UnsafePickle("an array that is not uint8")
            if not isinstance(items, bytes) or math.prod(shape) != len(items):
                raise UnsafePickle("an array whose bytes do not fit its shape")
            flat = np.frombuffer(items, np.uint8)
            self.value = flat.reshape(tuple(shape), order="F" if is_fortran else "C")

    def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
        del kind, shape, code  # placeholders: the state follows
        return Array()

    def encode(text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise UnsafePickle("an encoding other than latin1")
        return text.encode("latin1")

    names = {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,  # how Python 3 writes bytes
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            try:
                return names[module, name]
            except KeyError:
                raise UnsafePickle(f"the name {module}.{name}") from None

    return Unpickler(io.BytesIO(content), encoding="bytes", fix_imports=False)
