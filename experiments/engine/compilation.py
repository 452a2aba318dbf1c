"""Compiled programs are kept in the user's cache: a second run need not wait."""

import hashlib
import os
from pathlib import Path
import platform
from typing import Any

import jax

from experiments.console.errors import UserError
from experiments.console.paths import cache_dir

_MOST_BYTES = 2 * 2**30
_LEAST_SECONDS = 0.1  # of compilation; less is not worth a file


def default_folder() -> Path:
    """``compilation/MACHINE`` in the user's cache.

    Compiled programs are for one kind of processor, and a home folder may be shared by
    several: each has a folder of its own.
    """
    kind = f"{platform.machine()} {platform.processor()}"
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    for name in ("model name", "flags", "Features"):
        kind += next((line for line in lines if line.startswith(name)), "")
    return cache_dir() / "compilation" / hashlib.sha256(kind.encode()).hexdigest()[:12]


def keep(folder: str | None) -> None:
    """Makes JAX keep what it compiles; before anything is compiled.

    The oldest programs are removed where there are more than 2 GiB.

    Args:
        folder: of the programs; empty: they are not kept; None: the folder that JAX has
            been told of otherwise (``JAX_COMPILATION_CACHE_DIR``), else
            `default_folder`, if it can be written.

    Raises:
        UserError: the folder cannot be written.
    """
    if folder == "":
        _set("jax_enable_compilation_cache", False)
        return
    if folder is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    path = default_folder() if folder is None else Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        if folder is None:
            return
        raise UserError(
            f"--compilation_cache must be a folder that can be written, got {folder!r}"
        )
    prune(path)
    _set("jax_compilation_cache_dir", str(path))
    _set("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    _set("jax_persistent_cache_min_entry_size_bytes", -1)


def _set(name: str, value: Any) -> None:
    """Here, and in the programs that this one starts."""
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)


def prune(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Removes the oldest files until the others have at most so many bytes."""
    files = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # removed by another process
            continue
        if path.is_file():
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
