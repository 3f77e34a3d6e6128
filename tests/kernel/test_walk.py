"""The way of four commands through the modules is the one that docs/architecture.md shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

import xdpctl
from tests.kernel import net
from tests.kernel.conftest import ROOT, Objects
from tests.kernel.tool import Tool
from xdpctl.model.chain import Kind

PACKAGE = f"{Path(xdpctl.__file__).parent}/"
PAGE = ROOT / "docs/architecture.md"
CO_OPTIMIZED = 1
"""Of the code of functions; that of modules and classes lacks it."""


class Walk:
    """The modules of the package whose functions are called in the block, in order."""

    def __init__(self) -> None:
        self.modules: list[str] = []

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED:
            name = code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
            if code.co_filename.startswith(PACKAGE) and name not in self.modules:
                self.modules.append(name)

    def __enter__(self) -> Self:
        sys.setprofile(self.note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def told(kind: Kind) -> dict[str, list[str]]:
    """By command, the modules that the page shows; those of the other kind of root are left out."""
    text = PAGE.read_text(encoding="utf-8").split("## The walk\n")[1].split("\n## ")[0]
    found = {}
    for command, steps in re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, flags=re.MULTILINE):
        marked = re.findall(r"`([\w/]+)`(?: \((ext|fused)\))?", steps)
        found[command] = [name for name, only in marked if only in ("", kind)]
    return found


def left_out(name: str) -> bool:
    """Data, thin wrappers and what all have in common are not shown."""
    return name.startswith(("kernel/", "model/")) or name in ("errors", "host/signals")


@pytest.mark.parametrize("command", ["load", "status", "swap-dispatcher", "stats"])
def test_a_command_goes_the_way_that_is_shown(
    tool: Tool, veth: net.Veth, objects: Objects, command: str
) -> None:
    words: dict[str, list[object]] = {"load": [objects["drop"]], "stats": ["--interval", "0"]}
    tool("load", veth.dev, objects["count"])
    if command == "stats":
        tool("stats", veth.dev, "--on")
    with Walk() as walk:
        tool(command, veth.dev, *words.get(command, []))
    tool("unload", veth.dev, "--all")
    way = [name for name in walk.modules if not left_out(name)]
    assert way == told(tool.kind)[command], " → ".join(f"`{name}`" for name in way)
