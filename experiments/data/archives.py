"""Members of tar archives, read without unpacking anything to the disk."""

from collections.abc import Callable, Iterator
import gzip
import io
import lzma
from pathlib import Path
import tarfile
from typing import Any, BinaryIO, cast
import zlib

from experiments.console.errors import UserError

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError)


def members(
    path: Path, key: Callable[[str], str | None], largest: int, most: int
) -> Iterator[tuple[str, str, bytes]]:
    """Reads members of a tar archive: compressed by xz (``.xz``) or gzip, or not.

    Args:
        path: the archive.
        key: from a member's name to what it is called here; None: it is not read.
        largest: bytes of a member, at most.
        most: bytes that the archive may unpack to.

    Yields:
        Key, location (for errors) and content.

    Raises:
        UserError: the archive is damaged or unpacks to more, or a member with a key is
            no file, is larger, or is there twice.
    """
    opened = {".xz": lzma.open, ".tar": open}.get(path.suffix, gzip.open)
    keys = set()
    try:
        with opened(path, "rb") as unpacked:
            limited = _Limited(cast(BinaryIO, unpacked), most)
            with tarfile.open(fileobj=cast(Any, limited), mode="r|") as archive:
                for member in archive:
                    name = key(member.name)
                    if name is None:
                        continue
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is None or name in keys or member.size > largest:
                        raise UserError(
                            f"{member.name} of {path} must be one file of at most "
                            f"{largest} bytes, got another or {member.size}"
                        )
                    keys.add(name)
                    yield name, f"{path}: {member.name}", file.read()
            while limited.read(2**20):  # to the check sum, which is at the end
                pass
    except _DAMAGE as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from None


class _Limited(io.RawIOBase):
    """A file that ends in an error where it unpacks to too much."""

    def __init__(self, file: BinaryIO, limit: int):
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OSError("it unpacks to more than any such archive has")
        return content
