"""``python -m xdpctl``, and the command itself."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

_NAME = "xdp-loader" if os.path.basename(sys.argv[0]) == "xdp-loader" else "xdpctl"


def main() -> None:
    """Run the command line of this process, from before anything is imported to its very end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    gc.disable()  # what is imported stays: see Settings.enter()
    try:
        from .cli import main as command_line
    except (ImportError, MemoryError, OSError) as error:
        _say(f"cannot start: {error or type(error).__name__}")
        os._exit(1)
    command_line()


def _end(signum: int, _frame: object) -> None:
    """Nothing is begun yet, and to undo nothing: an exception would print a traceback."""
    _say(f"interrupted by signal {signum}")
    os._exit(128 + signum)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{_NAME}: {text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
