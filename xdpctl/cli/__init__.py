"""The command line. A command parses, calls and renders; it decides nothing about the kernel."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and end the process with its code (xdpctl(8), EXIT STATUS)."""
    from ..host import output
    from .run import told_of
    from .settings import Settings

    with output.prepared() as streams:
        code = _code(arguments)
        if error := output.untold(streams):
            code = code or told_of(error, Settings())
    sys.exit(code)


def _code(arguments: list[str] | None) -> int:
    if arguments is None and os.path.basename(sys.argv[0]) == "xdp-loader":
        from . import xdp_loader

        return xdp_loader.run(sys.argv[1:], ends=True)
    from .run import run
    from .settings import Settings

    settings = Settings()
    settings.ends = True
    return run(arguments, settings)
