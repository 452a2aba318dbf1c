"""The one kind of error that a user can cause, and how a program ends on it."""

from collections.abc import Callable
import signal
import sys


class UserError(Exception):
    """A mistake in the command or its files; the message is one line and complete."""


class RunFailed(Exception):
    """Training could not go on (a non-finite loss); the message is one line."""


def exit_code(main: Callable[[], int]) -> int:
    """Runs ``main``; known failures end with one line on stderr and no traceback.

    Args:
        main: the program; returns its exit code.

    Returns:
        The result of ``main``, 2 after a `UserError`, 1 after a `RunFailed`, 130 after
        Ctrl-C. Every other exception is a bug and keeps its traceback.
    """
    try:
        return main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except RunFailed as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT
