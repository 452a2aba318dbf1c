"""Pickled dictionaries of plain values and uint8 arrays, of Python 2 and 3."""

from collections.abc import Callable
import io
import math
from typing import Any

import numpy as np

from dspc_jax.safe_files.pickle_reader import UnsafePickle, describe, read_pickle, sizes


def read_dict(content: bytes) -> dict[bytes, Any]:
    """Rebuilds a dictionary from a pickle of protocol 2.

    Args:
        content: the pickle; what follows its end is ignored.

    Returns:
        The dictionary. Its keys are bytes; its values whole numbers, bytes, strings,
        lists of these, or uint8 arrays (read-only). Strings of Python 2 are bytes.

    Raises:
        UnsafePickle: an instruction, name or value beyond these; nothing was executed.
        ValueError: the pickle is truncated or damaged.
    """
    table = read_pickle(
        io.BytesIO(content),
        calls={
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): _Uint8,
            ("_codecs", "encode"): _encoder(len(content)),
        },
        states={_Array: _Array.set_state, _Uint8: lambda dtype, order: None},
    )
    if type(table) is not dict:
        raise UnsafePickle(f"the value must be a dict, got {describe(table)}")
    # By id: a list that many keys share is searched once.
    lists = {id(value): value for value in table.values() if type(value) is list}
    for items in lists.values():
        if not all(type(item) in (int, bytes, str) for item in items):
            raise UnsafePickle("lists must be of numbers and strings, got others")
    result = {}
    for key, value in table.items():
        value = value.values if type(value) is _Array else value
        if type(value) not in (int, bytes, str, list, np.ndarray):
            raise UnsafePickle(f"values must be plain ones, got {describe(value)}")
        result[key.encode() if type(key) is str else key] = value
    return result


class _Uint8:
    """Stands for the dtype uint8; its state, the order of bytes, has no meaning."""

    def __init__(self, arguments: tuple):
        if arguments[:1] not in [("u1",), ("|u1",), (b"u1",), (b"|u1",)]:
            raise UnsafePickle("arrays must be uint8, got another dtype")


class _Array:
    """Stands for an array; its values come with its state."""

    values: np.ndarray | None = None

    def __init__(self, arguments: tuple):
        _kind, _shape, _code = arguments  # placeholders

    def set_state(self, state: Any) -> None:
        match state:
            case (_, shape, _Uint8(), is_fortran, bytes() as items):
                shape, order = sizes(shape), "F" if is_fortran else "C"
                if math.prod(shape) != len(items):
                    raise ValueError(
                        f"shape must have {len(items)} values, got {shape}"
                    )
                self.values = np.frombuffer(items, np.uint8).reshape(shape, order=order)
            case _:
                raise UnsafePickle("arrays must have bytes and a dtype, got others")


def _encoder(limit: int) -> Callable[[tuple], bytes]:
    """The call that Python 3 writes for bytes, up to as many bytes in all.

    Without the limit, a short pickle could have one long text encoded many times.
    """

    def encode(arguments: tuple) -> bytes:
        nonlocal limit
        text, encoding = arguments
        if type(text) is not str or encoding != "latin1":
            raise UnsafePickle("texts must be encoded as latin1, got another call")
        limit -= len(text)
        if limit < 0:
            raise UnsafePickle("texts must be encoded once, got more than the pickle")
        return text.encode("latin1")

    return encode
