"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that after a crash either the old or the new one is there.

    Args:
        path: of the file.
        text: all of its content.

    Raises:
        OSError: it cannot be written.
    """
    temporary = temporary_of(path)
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def temporary_of(path: Path) -> Path:
    """The file beside ``path`` that is written first and then renamed."""
    return path.with_name(f".{path.name}.tmp")
