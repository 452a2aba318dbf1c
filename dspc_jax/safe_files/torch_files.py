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
from typing import Any, NamedTuple
import zipfile

import numpy as np

from dspc_jax.safe_files.pickle_reader import (
    Name,
    UnsafePickle,
    describe,
    read_pickle,
    size,
    sizes,
)

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, EOFError, OverflowError, struct.error)
_DTYPES = {
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}
"""The storages that can be read: those of a network's weights and counters."""


class _Storage(NamedTuple):
    """A storage as a pickle names it: values that tensors are views of."""

    key: str
    dtype: np.dtype
    num_values: int
    num_bytes: int


class _Tensor(NamedTuple):
    """A tensor as a pickle describes it: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary that ``torch.save`` wrote.

    Args:
        data: the whole file, in either format.

    Returns:
        Names and arrays (float32 or int64), each a copy of its own.

    Raises:
        ValueError: the file is truncated, damaged, or holds anything but a dictionary
            of names and CPU tensors of float32 or int64 values.
    """
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_archive(data)
        return _read_legacy(data)
    except ValueError as error:
        raise ValueError(f"not a readable file of tensors: {error}") from error


def _read_archive(data: bytes) -> dict[str, np.ndarray]:
    """Reads the zip format; its check sums are verified."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError("entries must be stored, got compressed ones")
            if sum(info.file_size for info in infos) > len(data):
                raise ValueError("the file must hold its entries, got larger ones")
            entries = {info.filename: archive.read(info) for info in infos}
    except _ZIP_ERRORS as error:
        raise ValueError(f"the zip archive must be whole, got {error!s:.60}") from error
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"one entry must be data.pkl, got {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder", b"little") != b"little":
        raise ValueError("values must be little-endian, got others")
    table, storages = _read_table(io.BytesIO(entries[pickles[0]]))
    values = {}
    for key, storage in storages.items():
        name = f"{folder}data/{key}"
        if name not in entries:
            raise ValueError(f"entry {describe(name)} must exist, got none")
        values[key] = _values(storage, entries[name])
    return _tensors(table, values)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Reads the format before torch 1.6, which has no check sums."""
    stream = io.BytesIO(data)
    for number in (MAGIC_NUMBER, PROTOCOL_VERSION):
        if (value := read_pickle(stream)) != number:
            raise ValueError(f"it must begin with {number:#x}, got {describe(value)}")
    system = read_pickle(stream)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise ValueError("values must be little-endian, got others")
    table, storages = _read_table(stream)
    keys = read_pickle(stream)
    strings = type(keys) is list and all(type(key) is str for key in keys)
    if not strings or len(keys) != len(storages) or storages.keys() - keys:
        raise ValueError("the list of storages must be the tensors', got another")
    values = {}
    for key in keys:
        storage = storages[key]
        if stream.read(8) != struct.pack("<q", storage.num_values):
            raise ValueError(f"storage {key!r} must have {storage.num_values} values")
        values[key] = _values(storage, stream.read(storage.num_bytes))
    if stream.read(1):
        raise ValueError("the file must end after its storages, got more")
    return _tensors(table, values)


def _read_table(stream: io.BytesIO) -> tuple[dict[str, _Tensor], dict[str, _Storage]]:
    """The tensors of a state dictionary by their names, and the storages by theirs."""
    table = read_pickle(
        stream,
        calls={
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): _empty,
            **dict.fromkeys(_DTYPES),
        },
        states={dict: lambda table, state: None},  # versions of the modules
        persistent=_storage,
    )
    if type(table) is not dict or not table:
        raise ValueError(f"tensors must be in a dictionary, got {describe(table)}")
    storages: dict[str, _Storage] = {}
    for name, tensor in table.items():
        if type(name) is not str or type(tensor) is not _Tensor:
            raise ValueError(f"entries must be named tensors, got {describe(name)}")
        storage = tensor.storage
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key!r} must have one form, got two")
    return table, storages


def _storage(reference: Any) -> _Storage:
    """The meaning of a persistent id: both formats have the same first five values."""
    match reference:
        case ("storage", Name() as name, str() as key, "cpu", num_values, *view) if (
            name in _DTYPES and len(key) < 100 and view in ([], [None])
        ):
            num_bytes = size(num_values) * _DTYPES[name].itemsize
            return _Storage(key, _DTYPES[name], num_values, num_bytes)
    raise ValueError(f"storages must be {sorted(_DTYPES)} on the CPU, got another")


def _tensor(arguments: tuple) -> _Tensor:
    """The meaning of a call of ``torch._utils._rebuild_tensor_v2``."""
    storage, offset, shape, strides, _, _ = arguments  # gradient flag and hooks: unused
    tensor = _Tensor(storage, size(offset), sizes(shape), sizes(strides))
    if type(storage) is not _Storage or len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor must have a storage and a stride per axis, got none")
    return tensor


def _empty(arguments: tuple) -> dict[str, Any]:
    """The meaning of a call of ``collections.OrderedDict``."""
    if arguments:
        raise UnsafePickle("OrderedDict must be called without arguments, got some")
    return {}


def _values(storage: _Storage, raw: bytes) -> np.ndarray:
    if len(raw) != storage.num_bytes:
        raise ValueError(f"{storage.num_bytes} bytes must follow, got {len(raw)}")
    return np.frombuffer(raw, storage.dtype)


def _tensors(
    table: dict[str, _Tensor], values: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in table.items():
        # One tensor as large as its storage at most: no view of a few values that
        # strides of 0 blow up, and none that reaches beyond the storage.
        num_values = math.prod(tensor.shape)
        reach = [(n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)]
        last = tensor.offset + sum(reach)
        source = values[tensor.storage.key]
        if num_values > len(source) or (num_values and last >= len(source)):
            raise ValueError(f"the tensor {describe(name)} must lie in its storage")
        tensors[name] = np.lib.stride_tricks.as_strided(
            source[tensor.offset :],
            tensor.shape,
            [stride * source.itemsize for stride in tensor.strides],
            writeable=False,
        ).copy()
    return tensors
