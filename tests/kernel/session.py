"""Commands that a page shows with what they print, run again on a terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from tests.unit.terminal import without_colour

COLUMNS = 80
KEEP = b"press Enter to keep it"
"""What a command asks for that is answered, unless it has less time than anybody needs."""
_HASTE = re.compile(r"--confirm-within [1-5]s")
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_COMMAND = re.compile(r"^# (.*)\n((?:(?!# ).*\n)*)", re.MULTILINE)


class Shown(NamedTuple):
    """A command, and what it prints; the last line says in brackets that its exit code is not 0."""

    command: str
    told: str


def blocks(text: str) -> list[list[Shown]]:
    """The commands of each console block of a page."""
    found = (_COMMAND.findall(block) for block in _BLOCK.findall(text))
    return [[Shown(*one) for one in block] for block in found]


def with_blocks(text: str, new: list[list[Shown]]) -> str:
    """The page with other console blocks."""
    left = iter(new)

    def block(_old: re.Match[str]) -> str:
        return "".join(f"# {one.command}\n{one.told}" for one in next(left))

    return _BLOCK.sub(block, text)


def alike(text: str) -> str:
    """The words of a text, without what is another number each time: ids and tags.

    Where lines break depends on how wide these are, so the words stand in an order of their own.
    """
    text = re.sub(r"\b[0-9a-f]{16}\b", "TAG", without_colour(text))
    text = re.sub(r"\b\d+\b", "N", text)
    return " ".join(sorted(re.sub(r"[─│]", " ", text).split()))


def printed(command: str, directory: Path) -> str:
    """What a command of a shell prints on a terminal, on which somebody presses Enter if asked."""
    reading, terminal = pty.openpty()
    words = ["bash", "-c", command]
    with (
        os.fdopen(reading, "r+b", 0) as screen,
        os.fdopen(terminal, "wb", 0) as stream,
        subprocess.Popen(words, cwd=directory, stdin=stream, stdout=stream, stderr=stream) as shell,
    ):
        ending = threading.Thread(target=lambda: (shell.wait(), stream.write(b"\0")))
        ending.start()
        text, asked = b"", bool(_HASTE.search(command))
        while not text.endswith(b"\0"):
            text += os.read(screen.fileno(), 65536)
            if KEEP in text and not asked:
                asked = True
                screen.write(b"\n")
        ending.join()
    told = without_colour(text[:-1].decode().replace("\r\n", "\n"))
    told = re.sub(rf"({KEEP.decode()}\n)\n", r"\1", told)  # the echo of Enter
    return told + (f"[exit code {shell.returncode}]\n" if shell.returncode else "")


def command_on_path(directory: Path) -> None:
    """Make xdpctl a command in a directory."""
    program = directory / "xdpctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xdpctl "$@"\n')
    program.chmod(0o755)
