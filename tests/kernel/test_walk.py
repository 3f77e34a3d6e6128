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
from tests.kernel.conftest import ROOT, Objects, one_guest
from tests.kernel.tool import Tool
from xdpctl.model.chain import Kind

pytestmark = one_guest

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


Steps = list[tuple[str, str]]
"""Modules in order, each with the only kind of root that it is called on, or nothing."""


def shown() -> dict[str, Steps]:
    """By command, what the page shows."""
    text = PAGE.read_text(encoding="utf-8").split("## The walk\n")[1].split("\n## ")[0]
    return {
        command: re.findall(r"`([\w/]+)`(?: \((ext|fused)\))?", steps)
        for command, steps in re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, flags=re.MULTILINE)
    }


def row(command: str, way: list[str], kind: Kind) -> str:
    """The line that the page should have: of the other kind what it has now."""
    old = shown()[command]
    marks = dict(old)
    new = [(name, marks.get(name, "")) for name in way]
    for place, (name, only) in enumerate(old):
        if only not in ("", kind):
            before = {one for one, _only in old[:place]}
            after = [number for number, (one, _only) in enumerate(new) if one in before]
            new.insert(after[-1] + 1 if after else 0, (name, only))
    steps = " → ".join(f"`{name}`" + (f" ({only})" if only else "") for name, only in new)
    return f"| `{command}` | {steps} |"


# Types of numbers are made when a command is imported, which another test may have done.
COMMON = ("cli/numbers", "host/output", "host/signals", "host/text")


def left_out(name: str) -> bool:
    """Data, thin wrappers and what all have in common are not shown."""
    return name.startswith(("kernel/", "model/")) or name in ("errors", "value", *COMMON)


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
    told = [name for name, only in shown()[command] if only in ("", tool.kind)]
    assert way == told, f"the page should have\n{row(command, way, tool.kind)}"
