"""The one kind of error that a user can cause, and how a program ends on it."""

from collections.abc import Callable
import errno
import signal
import sys

_OF_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
"""Conditions that only the system knows, and that no program can mend."""


class UserError(Exception):
    """A mistake in the command or its files; the message is one line and complete."""


class RunFailed(Exception):
    """Training could not go on (a non-finite loss); the message is one line."""


def exit_code(main: Callable[[], int]) -> int:
    """Runs ``main``; known failures end with one line on stderr and no traceback.

    Args:
        main: the program; returns its exit code.

    Returns:
        The result of ``main``, 2 after a `UserError`, 1 after a `RunFailed` or where
        the system denies something (a full disk), 130 after Ctrl-C. Every other
        exception is a bug and keeps its traceback.
    """
    try:
        return main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except RunFailed as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        sys.stderr.write(f"error: {error.strerror}{where}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT
