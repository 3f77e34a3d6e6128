"""A program that has the hook to itself, without a dispatcher: LIBXDP_SKIP_DISPATCHER=1.

Offload is the same on a card; see offload.py, for which a kernel with such a card has to be made.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, kinds
from tests.kernel.test_adopt import nothing_but_new
from tests.kernel.test_dropin import ours
from tests.kernel.test_packets import Traffic
from tests.kernel.test_taken_back import WITHIN, go_back
from tests.kernel.tool import Tool
from xdpctl.cli import xdp_loader

# There is no root of any kind, but for what `adopt` makes.
pytestmark = kinds("fused")
FRAMES = net.udps(5)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBXDP_SKIP_DISPATCHER", "1")


def running(veth: net.Veth) -> str:
    """The name of the program on the hook, by the oracle."""
    return oracle.prog(oracle.xdp_prog_id(veth.ifindex)[0]).name


@pytest.mark.parametrize("mode", ["native", "skb"])
def test_one_program_alone(tool: Tool, veth: net.Veth, objects: Objects, mode: str) -> None:
    """Packets meet it and nothing else does, until it is taken off; then nothing is left."""
    load = ["load", veth.dev, "-m", mode]
    assert ours(*load, str(objects["drop"])).code == 0
    assert (running(veth), net.exchange(veth, FRAMES)) == ("drop", [])
    root = tool.status(veth.dev)["root"]
    assert (root["kind"], root["owner"], root["attach"]) == ("bare", "xdpctl", "netlink")
    assert (root["mode"], tool.ids(veth.dev)) == (mode, [root["id"]])
    assert f"program {root['id']} (drop) runs alone" in tool("status", veth.dev).err
    before = oracle.snapshot(tool.bpffs)
    assert ours(*load, str(objects["pass"])).code == 240
    for words in (
        ["load", veth.dev, objects["pass"]],
        ["load", "-m", "hw", veth.dev, objects["pass"]],
        ["replace", veth.dev, "drop", objects["pass"]],
        ["set", veth.dev, "drop", "-P", 3],
        ["set", veth.dev, "--on-end", "drop"],
        ["stats", veth.dev, "--on"],
        ["swap-dispatcher", veth.dev],
    ):
        refused = tool.try_(*words)
        assert (refused.code, refused.out) == (7, "")
        assert f"do: take it off first: xdpctl unload {veth.dev} -i {root['id']}" in refused.err
    assert tool.try_("swap-dispatcher", "--all").code == 3  # no interface runs a chain
    assert tool("clean").out == ""
    assert not oracle.settle(before).added(before)
    assert net.exchange(veth, FRAMES) == []
    tool("unload", veth.dev, "-n", "drop")
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.pins() == []


def test_it_becomes_a_member_under_traffic(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """And has the hook to itself again when that is taken back."""
    assert ours("load", veth.dev, str(objects["count"])).code == 0
    (alone,) = tool.ids(veth.dev)
    adopt = ["adopt", veth.dev, "--object", objects["count"]]
    with Traffic(veth, [alone]) as traffic:
        tool(*adopt, "--confirm-within", "1m")
        tool("rollback", veth.dev)
        assert running(veth) == "count"
        tool(*adopt)
        tool("load", veth.dev, objects["pass"])
        assert traffic.missed(4, "adopted, taken back, adopted, joined") == [0]
    assert len(tool.chain(veth.ifindex)) == 2
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []


def test_it_comes_back(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A load or an unload that is not confirmed, and an unload that keeps it."""
    assert ours("load", veth.dev, str(objects["drop"])).code == 0
    for words in (WITHIN, ["--keep"]):
        tool("unload", veth.dev, "-a", *words)
        assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
        if words is WITHIN:
            go_back(tool, veth)
        else:
            tool("rollback", veth.dev)
        assert (running(veth), net.exchange(veth, FRAMES)) == ("drop", [])
        assert tool.status(veth.dev)["root"]["owner"] == "xdpctl"
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []


@pytest.mark.parametrize("count", [4, pytest.param(400, marks=pytest.mark.soak)])
def test_killed_while_it_is_attached(
    tool: Tool, veth: net.Veth, objects: Objects, count: int
) -> None:
    """It runs, as xdpctl's, or nothing does; `clean` removes the rest."""
    words = ["load", veth.dev, str(objects["drop"])]
    calls = crash.boundaries(lambda: xdp_loader.run(words))
    tool("unload", veth.dev, "-a")
    points = [n for n, (call, _) in enumerate(calls, 1) if call not in crash.READS]
    outcomes = Counter[str]()
    for point in points[-1 :: -max(1, len(points) // count)]:
        with crash.Stepped(lambda: xdp_loader.run(words)) as child:
            child.run_to(point)
        there = oracle.xdp_prog_id(veth.ifindex)[0] != 0
        outcomes["after" if there else "before"] += 1
        tool("clean")
        assert (oracle.xdp_prog_id(veth.ifindex)[0] != 0) == there, point
        assert there or nothing_but_new(tool), point
        if there:
            tool("unload", veth.dev, "-a")
            assert tool.pins() == [], point
    print(f"\nbare: {len(calls)} boundaries, killed at {sum(outcomes.values())}: {outcomes}")
    assert set(outcomes) == {"before", "after"}
