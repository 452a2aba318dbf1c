"""The two formats of ``torch.save``, without torch.

Since torch 1.6 a file is a zip archive: ``data.pkl`` and one entry per storage. Before
that it was a row of five pickles, followed by the storages; a storage there is its
number of values (int64) and the values. The published weights of the FID's Inception
network have the older format, and its kernels are stored in TensorFlow's order, as
views with strides.
"""

import io
import math
import struct
from typing import Any
import zipfile

import numpy as np

from dspc_jax.safe_files.pickle_reader import (
    Storage,
    Tensor,
    read_pickle,
    say,
    storage_of,
)

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary that ``torch.save`` wrote.

    Args:
      data: the whole file, in either format.

    Returns:
      Names and arrays (float32 or int64), each a copy of its own.

    Raises:
      ValueError: the file is truncated, damaged, or holds anything but a dictionary of
        names and CPU tensors of float32 or int64 values.
    """
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_archive(data)
        return _read_legacy(data)
    except ValueError as error:
        raise ValueError(f"not a readable file of tensors: {error}") from error
    except (IndexError, TypeError, KeyError, OverflowError, MemoryError) as error:
        # Instructions that do not fit together: an empty stack, a wrong operand.
        raise ValueError(f"not a readable file of tensors: {error!r}") from error


def _read_archive(data: bytes) -> dict[str, np.ndarray]:
    """Reads the zip format; its check sums are verified."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError("an entry is compressed")
            if sum(info.file_size for info in infos) > len(data):
                raise ValueError("the entries are larger than the file")
            entries = {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"damaged zip archive: {error}") from error
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries are called data.pkl, not one")
    folder = pickles[0].removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder", b"little") != b"little":
        raise ValueError("the values are not little-endian")
    table = read_pickle(io.BytesIO(entries[pickles[0]]), persistent=storage_of)
    values = {}
    for storage in _storages(table):
        name = f"{folder}data/{storage.key}"
        if name not in entries:
            raise ValueError(f"the storage {name!r} is missing")
        values[storage.key] = _values(storage, entries[name])
    return _tensors(table, values)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Reads the format before torch 1.6, which has no check sums."""
    stream = io.BytesIO(data)
    if read_pickle(stream) != MAGIC_NUMBER:
        raise ValueError("it does not begin with torch's magic number")
    if (version := read_pickle(stream)) != PROTOCOL_VERSION:
        raise ValueError(f"the protocol is {say(version)}, not {PROTOCOL_VERSION}")
    system = read_pickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("the values are not little-endian")
    table = read_pickle(stream, persistent=storage_of)
    by_key = {storage.key: storage for storage in _storages(table)}
    keys = read_pickle(stream)
    strings = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not strings or sorted(keys) != sorted(by_key):
        raise ValueError("the list of storages is not that of the tensors")
    values = {}
    for key in keys:
        storage = by_key[key]
        (count,) = np.frombuffer(_take(stream, 8), "<i8")
        if count != storage.num_values:
            raise ValueError(
                f"a storage has {count} values where {storage.num_values} are announced"
            )
        values[key] = _values(
            storage, _take(stream, storage.num_values * storage.dtype.itemsize)
        )
    if stream.read(1):
        raise ValueError("there is something behind the last storage")
    return _tensors(table, values)


def _take(stream: io.BytesIO, size: int) -> bytes:
    taken = stream.read(size)
    if len(taken) != size:
        raise ValueError(f"it ends early: {size - len(taken)} bytes are missing")
    return taken


def _values(storage: Storage, raw: bytes) -> np.ndarray:
    size = storage.num_values * storage.dtype.itemsize
    if len(raw) != size:
        raise ValueError(f"a storage has {len(raw)} bytes where {size} are announced")
    return np.frombuffer(raw, storage.dtype)


def _storages(table: Any) -> list[Storage]:
    """The storages of a table of tensors, after a check that it is one."""
    if not isinstance(table, dict) or not table:
        raise ValueError("it holds no dictionary of tensors")
    for name, tensor in table.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"the entry {say(name)} is no named tensor")
    return list({tensor.storage for tensor in table.values()})


def _tensors(
    table: dict[str, Tensor], values: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in table.items():
        # One tensor as large as its storage at most: no view of a few values that
        # strides of 0 blow up, and none that reaches beyond the storage.
        num_values = math.prod(tensor.shape)
        reach = [(n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)]
        last = tensor.offset + sum(reach)
        limit = tensor.storage.num_values
        if num_values > limit or (num_values and last >= limit):
            raise ValueError(f"the tensor {say(name)} reaches beyond its storage")
        source = values[tensor.storage.key]
        tensors[name] = np.lib.stride_tricks.as_strided(
            source[tensor.offset :],
            tensor.shape,
            [stride * source.itemsize for stride in tensor.strides],
            writeable=False,
        ).copy()
    return tensors
