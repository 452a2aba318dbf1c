"""Which code a program is of: the version of the package, and the commit."""

from importlib import metadata
from pathlib import Path
import subprocess


def version() -> str:
    """The version of the installed package, e.g. ``0.1.0``."""
    return metadata.version("dspc_jax")


def version_line() -> str:
    """Version and commit in a line, as ``--version`` shows them."""
    commit = commit_of_code()
    return f"dspc_jax {version()}" + ("" if commit is None else f", commit {commit}")


def commit_of_code() -> str | None:
    """The commit that the code is of, with a plus if files differ.

    Returns:
        The commit; None: the code is in no checkout of its own, as that of an installed
        package, which may lie inside another project's.
    """
    folder = str(Path(__file__).parent)

    def git(*arguments: str) -> str:
        command = ["git", "-C", folder, *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        return process.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None
