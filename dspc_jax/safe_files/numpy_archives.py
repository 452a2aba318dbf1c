"""The ``.npz`` archives of NumPy, from strangers.

An archive is a zip file of ``.npy`` entries. Here all entries are stored as they are,
so that nothing in a file can be larger than the file; shapes are known before a value
is read, and check sums are verified.
"""

import math
import re
import struct
from typing import BinaryIO, NamedTuple
import zipfile

import numpy as np

ZIP_ERRORS = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
    *(OverflowError, UnicodeDecodeError, struct.error),
)
"""What `zipfile` raises on a damaged archive."""

_MOST_DIRECTORY_BYTES = 2**20
"""Ten thousand entries with names of 60 letters; zipfile's table takes ten times it."""
_MOST_HEADER_BYTES = 4096

_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][biufV]\d{1,2})', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)


class Header(NamedTuple):
    """What an array of an archive is.

    Attributes:
        dtype: of numbers, or of bytes without a type (``V2``), never of objects.
        shape: its shape.
        order: of its values, ``"C"`` or ``"F"``.
        start: where its values start in the entry, in bytes.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    start: int


class NumpyArchive:
    """The arrays of an archive; see the module.

    Attributes:
        headers: the arrays by name, in the file's order.
    """

    def __init__(self, file: BinaryIO):
        """Reads the headers of all arrays, and no values.

        Args:
            file: open, at any position.

        Raises:
            ValueError: not such an archive, or one that is damaged, compressed or
                encrypted, or holds anything but differently named arrays of numbers.
        """
        size = file.seek(0, 2)
        try:
            _check_directory(file)
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError("entries must be stored, got compressed ones")
            if any(info.file_size != info.compress_size for info in infos):
                raise ValueError("entries must have one size, got two")
            if sum(info.file_size for info in infos) > size:
                raise ValueError("the file must hold its entries, got larger ones")
            if not all(0 <= info.header_offset < size for info in infos):
                raise ValueError("entries must be in the file, got one outside")
            self._infos = {info.filename.removesuffix(".npy"): info for info in infos}
            if len(self._infos) != len(infos):
                raise ValueError("entries must have different names, got one twice")
            self.headers = {
                name: _read_header(self._zip, info)
                for name, info in self._infos.items()
            }
        except ZIP_ERRORS as error:
            raise ValueError(f"the zip archive must be whole, got {error}") from error

    def read(self, name: str) -> np.ndarray:
        """The array of this name.

        Raises:
            ValueError: its check sum is wrong.
        """
        header = self.headers[name]
        try:
            data = self._zip.read(self._infos[name])
        except ZIP_ERRORS as error:
            raise ValueError(f"entry {name!r} must be whole, got {error}") from error
        values = np.frombuffer(data, header.dtype, offset=header.start)
        return values.reshape(header.shape, order="F" if header.order == "F" else "C")


def _check_directory(file: BinaryIO) -> None:
    """Refuses a table of entries that would be large in memory."""
    file.seek(max(0, file.seek(0, 2) - 22 - 20 - 56))
    tail = file.read()
    if tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":  # two: of no comment
        raise ValueError("it must end as a zip archive does, got another end")
    sizes = [struct.unpack("<I", tail[-10:-6])[0]]
    if tail[-42:-38] == b"PK\6\7":  # the 64-bit format
        if tail[:4] != b"PK\6\6":
            raise ValueError("its end must be in one place, got several")
        sizes.append(struct.unpack("<Q", tail[40:48])[0])
    if max(sizes) > _MOST_DIRECTORY_BYTES:
        raise ValueError(
            f"the table of entries must have at most {_MOST_DIRECTORY_BYTES} bytes, "
            f"got {max(sizes)}"
        )


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    """The header of an entry in the format of ``.npy``, version 1."""
    with archive.open(info) as entry:
        magic = entry.read(10)
        if magic[:8] != b"\x93NUMPY\1\0" or len(magic) < 10:
            raise ValueError(f"entry {info.filename!r:.60} must be an array, got other")
        (length,) = struct.unpack("<H", magic[8:])
        text = entry.read(min(length, _MOST_HEADER_BYTES))
    match = _NPY_HEADER.fullmatch(text)
    if match is None:
        raise ValueError(
            f"entry {info.filename!r:.60} must be an array of numbers, got {text!r:.80}"
        )
    descr, fortran, sizes = (group.decode() for group in match.groups())
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError(
            f"entry {info.filename!r:.60} must be an array of numbers, got {descr!r}"
        ) from error
    shape = tuple(int(size) for size in re.findall(r"\d+", sizes))
    if 10 + length + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(
            f"entry {info.filename!r:.60} must hold {dtype} {shape}, got "
            f"{info.file_size - 10 - length} bytes"
        )
    order = "F" if fortran == "True" else "C"
    return Header(dtype, shape, order, 10 + length)
