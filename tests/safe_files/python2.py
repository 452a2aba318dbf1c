"""Pickles as Python 2 wrote them, instruction by instruction."""

import struct

import numpy as np


def string(text: bytes) -> bytes:
    """A short string."""
    return b"U" + bytes([len(text)]) + text


def array(values: np.ndarray) -> bytes:
    """An array of bytes, as the first of its pickle."""
    sizes = [b"M" + struct.pack("<H", size) for size in values.shape]
    dtype = b"cnumpy\ndtype\nq\x06" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    content = b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05"
    content += b"K\x00\x85" + string(b"b") + b"\x87R(K\x01"
    content += b"(" + b"".join(sizes) + b"t" + dtype + b"\x89"
    return content + b"T" + struct.pack("<i", values.size) + values.tobytes() + b"tb"
