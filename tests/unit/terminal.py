"""What is printed, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from xdpctl.view.document import SCHEMA


def on_terminal(
    work: Callable[[], None], columns: int = 160, stream: str = "stdout", term: str = "xterm"
) -> str:
    """What a function prints on a pseudo-terminal in the place of a standard stream."""
    reading, slave = pty.openpty()
    with contextlib.ExitStack() as ending:
        ending.callback(os.close, reading)
        with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w") as output:
            patch.setenv("TERM", term)
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys, stream, output)
            work()
        text = b""
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while chunk := os.read(reading, 4096):
                text += chunk
    return text.decode().replace("\r\n", "\n")


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one document that was printed."""
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["schema"] == SCHEMA
    assert captured.err == ""
    return dict(found)
