"""Numeric arrays of MATLAB 5 files; every size is checked before it is believed.

`scipy.io.loadmat` reads the same files, but a single flipped bit makes it read memory
that is not its own (SciPy 1.17.1; tests/experiments/data/test_mat5.py has the check).
"""

from collections.abc import Iterator
import math
import struct
import zlib

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_MAX_UNPACKED = 2**29  # bytes; SVHN's training images have 225 million
# Storage types, and classes of arrays, by their numbers in the format.
_STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"},
    **{14: "i8", 15: "u8"},
}
_COMPLEX = 0x0800


def loads(content: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads the real numeric arrays of given names.

    Args:
        content: of the file.
        names: of the variables; others are passed over.

    Returns:
        The variables that the file has, by name, as MATLAB indexes them (the first axis
        is innermost).

    Raises:
        ValueError: no MATLAB 5 file, damaged, or a variable of another kind.

    References:
        MathWorks, "MAT-File Format", level 5.
    """
    orders = {b"IM": "<", b"MI": ">"}
    if len(content) < _HEADER or content[126:128] not in orders:
        raise ValueError("it has no header of a MATLAB 5 file")
    order = orders[content[126:128]]
    if struct.unpack(order + "H", content[124:126]) != (0x0100,):
        raise ValueError("it has another version than MATLAB 5 files")
    arrays: dict[str, np.ndarray] = {}
    for kind, body in _elements(memoryview(content)[_HEADER:], order):
        if kind == _COMPRESSED:
            ((kind, body),) = _elements(_unpacked(body), order)
        if kind != _MATRIX:
            raise ValueError(f"it has an element of type {kind}, not an array")
        name, array = _matrix(body, order, names)
        if array is None:
            continue
        if name in arrays:
            raise ValueError(f"it has {name} twice")
        arrays[name] = array
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of elements that follow each other."""
    while data:
        if len(data) < 8:
            raise ValueError("it ends within a tag")
        kind, size = struct.unpack(order + "II", data[:8])
        if kind >> 16:  # up to four bytes, inside the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, stop, following = 4, 4 + size, 8
            if size > 4:
                raise ValueError(f"a small element has {size} bytes")
        else:
            start, stop = 8, 8 + size
            following = stop if kind == _COMPRESSED else -(-stop // 8) * 8
        if stop > len(data):
            raise ValueError(f"an element should have {size} bytes, but it ends before")
        yield kind, data[start:stop]
        data = data[following:]


def _unpacked(body: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(body, _MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:  # where the check sum is verified
        raise ValueError("a compressed element does not end, or is too large")
    return memoryview(content)


def _matrix(
    body: memoryview, order: str, names: tuple[str, ...]
) -> tuple[str, np.ndarray | None]:
    """Name and value of an array; None if the name is not among ``names``."""
    elements = _elements(body, order)

    def take(title: str, *kinds: int) -> tuple[int, memoryview]:
        kind, content = next(elements, (0, memoryview(b"")))
        if kind not in kinds:
            raise ValueError(f"an array has no {title}")
        return kind, content

    _, flags = take("flags", 6)
    _, sizes = take("sizes", 5)
    _, name_bytes = take("name", 1)
    name = bytes(name_bytes).decode("latin1")
    if name not in names:
        return name, None
    if len(flags) != 8 or len(sizes) % 4 or not 8 <= len(sizes) <= 4 * 32:
        raise ValueError(f"{name} has damaged flags or sizes")
    flag = struct.unpack(order + "II", flags)[0]
    if flag & 0xFF not in _CLASSES or flag & _COMPLEX:
        raise ValueError(f"{name} is no array of real numbers")
    kind, numbers = take(f"numbers ({name})", *_STORED)
    shape = np.frombuffer(sizes, order + "i4").tolist()
    dtype = np.dtype(order + _STORED[kind])
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{name} of shape {shape} has {len(numbers)} bytes")
    array = np.frombuffer(numbers, dtype).reshape(shape, order="F")
    return name, array.astype(_CLASSES[flag & 0xFF], copy=False)
