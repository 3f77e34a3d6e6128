"""README's session, command by command, on a terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import net
from tests.kernel.conftest import kinds, needs, one_guest
from tests.kernel.tool import ROOT, Tool
from tests.unit.terminal import without_colour

COLUMNS = 80


def session() -> list[tuple[str, str]]:
    """The commands of README.md's session, each with what it is said to print."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return re.findall(r"^# (.*)\n((?:(?!# ).*\n)*)", block, re.MULTILINE)


def alike(text: str) -> str:
    """A text without what is another number each time, ids and tags, and the widths of those."""
    text = re.sub(r"\b[0-9a-f]{16}\b", "TAG", without_colour(text))
    return re.sub(r"([ ─])\1*", r"\1", re.sub(r"\b\d+\b", "N", text)).strip()


def printed(command: str) -> str:
    """What a command of a shell prints on a terminal."""
    reading, terminal = pty.openpty()
    with os.fdopen(reading, "rb", 0) as output, os.fdopen(terminal, "wb", 0) as stream:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            stdin=stream,
            stdout=stream,
            stderr=stream,
            check=False,
        )
        stream.write(b"\0")
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(output.fileno(), 65536)
    assert done.returncode == 0, text
    return text[:-1].decode().replace("\r\n", "\n")


@one_guest
@kinds("ext")
@needs("link_target")
def test_the_session(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command does what is shown, in order, and nothing is left."""
    program = tmp_path / "xdpctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xdpctl "$@"\n')
    program.chmod(0o755)
    for name, value in {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LIBXDP_BPFFS": str(tool.bpffs),
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    with net.NetNs() as space, space.entered():
        for command, told in session():
            text = printed(command)
            print(f"# {command}\n{without_colour(text)}", end="")
            assert max(map(len, without_colour(text).split("\n"))) <= COLUMNS
            if command.startswith("xdpctl"):
                assert alike(text) == alike(told), f"# {command}\n{text}"
    assert tool.pins() == []
