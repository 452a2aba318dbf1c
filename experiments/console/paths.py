"""Paths as users type them."""

import os
from pathlib import Path
import re


def local_path(text: str) -> str:
    """A path of this machine: ``~`` is the home folder, as in a shell.

    A shell expands ``~`` at the start of a word only, not in ``--workdir=~/run``.

    Args:
        text: the path.

    Returns:
        The path without ``~``.

    Raises:
        ValueError: a remote one (``gs://...``), which nothing here can read, or the
            home of a user who is not known.
    """
    text = str(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError("remote path")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError("no such user")
    return path


def cache_dir() -> Path:
    """The user's cache: ``$XDG_CACHE_HOME/dspc_jax``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dspc_jax"
