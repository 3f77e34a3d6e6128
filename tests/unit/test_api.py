"""xdpctl as others import it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = """\
import xdpctl

state = xdpctl.look("eth0")
reveal_type(state)
reveal_type(xdpctl.make_plan(state, state.chain.without(["count"])).leaving)
with xdpctl.attach("count.o", "eth0", priority=10) as attachment:
    reveal_type(attachment.maps["packets"])
xdpctl.look(1)
"""


@pytest.mark.long
@pytest.mark.skipif(not find_spec("mypy"), reason="missing: mypy")
def test_its_types_are_seen_from_outside(tmp_path: Path) -> None:
    """By a script of somebody else's, that finds it where it is installed."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    told = [line.split('"')[1] for line in lines if "Revealed type" in line]
    types = ["xdpctl.model.state.State", "xdpctl.model.chain.Member", "xdpctl.api.maps.Map"]
    assert len(told) == len(types), done.stdout
    assert all(wanted in found for wanted, found in zip(types, told, strict=True)), told
    assert [line.split(":")[:3] for line in lines if " error: " in line] == [
        ["script.py", "8", " error"]
    ]
