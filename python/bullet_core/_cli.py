"""The `bullet` command of the wheel: Rust's, called with the arguments of this process."""

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Does what the command line says, and ends the process with its exit code."""
    from ._core import _run_command

    # Ctrl-C is the command's to handle, and Python's handler would only run once it returns.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = _run_command(["bullet", *sys.argv[1:]])
    # Threads of the command end with the process; there is nothing of Python's to tear down.
    os._exit(code)


if __name__ == "__main__":
    main()
