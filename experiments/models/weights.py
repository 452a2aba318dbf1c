"""The weights file of the Inception network: from a path, or fetched once."""

import os
from pathlib import Path
import shutil
import urllib.error
import urllib.request

from experiments.console.errors import UserError
from experiments.console.paths import cache_dir

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
URL = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE_NAME}"
)
_SECONDS = 60  # without a byte


def read(where: str, url: str = URL) -> bytes:
    """The contents of the weights file; whoever parses them checks their hash.

    Args:
        where: a path, or ``download``: the file in the user's cache
            (``$XDG_CACHE_HOME/dspc_jax``), fetched first if it is not there.
        url: where it is fetched from.

    Returns:
        The contents.

    Raises:
        UserError: it cannot be read or fetched.
    """
    path = _fetched(url) if where == "download" else Path(where)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--inception must be the file {FILE_NAME}, or download: cannot read "
            f"{str(path)!r}: {error.strerror}"
        ) from None


def _fetched(url: str) -> Path:
    """The file in the cache; a broken transfer leaves none."""
    path = cache_dir() / FILE_NAME
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:  # with the mode that the umask says
            try:
                with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310
                    shutil.copyfileobj(answer, file)
                file.close()
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except (OSError, urllib.error.URLError) as error:
        raise UserError(f"--inception=download: cannot fetch {url}: {error}") from None
    return path
