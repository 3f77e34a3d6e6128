"""README's session and the first day, command by command, on a terminal of 80 columns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel import first_day, net, oracle
from tests.kernel.conftest import kinds, needs, one_guest
from tests.kernel.session import COLUMNS, alike, blocks, command_on_path, printed
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest


@kinds("ext")
@needs("link_target")
def test_the_session(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command does what is shown, in order, and nothing is left."""
    command_on_path(tmp_path)
    for name, value in {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LIBXDP_BPFFS": str(tool.bpffs),
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    (session,) = blocks((ROOT / "README.md").read_text())
    with net.NetNs() as space, space.entered():
        for command, told in session:
            text = printed(command, ROOT)
            print(f"# {command}\n{text}", end="")
            assert max(map(len, text.split("\n"))) <= COLUMNS
            assert "[exit code" not in text
            if command.startswith("xdpctl"):
                assert alike(text) == alike(told), f"# {command}\n{text}"
    assert tool.pins() == []


@kinds("fused")
def test_the_first_day(tool: Tool, tmp_path: Path) -> None:
    """Each command of the page prints what it shows there, but for numbers; and nothing is left."""
    if not oracle.lacks("own_machine"):
        pytest.skip("missing: time: an emulated guest takes a quarter of an hour for a day")
    page = first_day.PAGE.read_text()
    block_pairs = zip(
        blocks(page),
        first_day.blocks_now(page, tool.bpffs, tmp_path, everything=False),
        strict=True,
    )
    for shown, now in (pair for block in block_pairs for pair in zip(*block, strict=True)):
        if not first_day.is_of_this_machine(now.command):
            assert first_day.alike(now.told) == first_day.alike(shown.told), now
    assert tool.pins() == []
