"""One grammar: what is said on one command line is one change."""

from __future__ import annotations

from tests.kernel import net
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.tool import Tool

pytestmark = one_guest

FRAMES = net.udps(10)


def test_named_and_ordered_in_one_change(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each file has its own options, the interface its rules, and history knows of one change."""
    guard = ("--name", "guard", "-P", 90, "--before", "seen", objects["pass"])
    seen = ("--name", "seen", "-P", 10, objects["count"])
    tool(
        "load", "--on-end", "drop", veth.dev, *guard, *seen, "-P", 5, "-A", "drop", objects["drop"]
    )
    programs = tool.status(veth.dev)["programs"]
    assert [one["label"] or one["name"] for one in programs] == ["drop", "guard", "seen"]
    assert [one["priority"] for one in programs] == [5, 90, 10]
    assert [one["id"] for one in programs] == tool.chain(veth.ifindex)
    assert net.exchange(veth, FRAMES) == []
    tool("unload", veth.dev, "drop")
    tool("set", veth.dev, "--on-end", "pass")
    assert net.exchange(veth, FRAMES) == FRAMES
    (history,) = tool("history", veth.dev, "-j").json["interfaces"]
    assert [one["replaced_by"] for one in history["generations"]] == ["set", "unload", "load"]
