"""Other code in a program's place, and other places for programs that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel import api_holder, crash, net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_bad_input import unchanged
from tests.kernel.test_holders import until
from tests.kernel.test_packets import Traffic, often
from tests.kernel.tool import Tool
from xdpctl.cli.run import run

pytestmark = one_guest

FRAMES = net.udps(20)


@often(4, 100)
def test_counters_go_on(tool: Tool, veth: net.Veth, objects: Objects, swaps: int) -> None:
    """Under traffic, in the middle of a chain: each packet meets the old code or the new."""
    tool("load", "-P", 10, veth.dev, objects["pass"])
    tool("load", "-P", 20, "-A", "pass,tx", veth.dev, objects["count"])
    tool("load", "-P", 30, veth.dev, objects["count"])
    tool("set", veth.dev, tool.ids(veth.dev)[2], "--name", "last")
    _first, old, last = tool.ids(veth.dev)
    packets, seen = oracle.prog_map(old), 0
    with Traffic(veth, [old, last]) as traffic:
        for number in range(swaps):
            file = objects["count" if number % 2 else "recount"]
            tool("replace", veth.dev, "count", file)
            new = tool.ids(veth.dev)[1]
            assert oracle.prog_map(new) == packets
            seen += not number % 2
        assert traffic.missed(swaps, "replaced") == [0, 0]
    assert traffic.sent > 10 * swaps
    (_, member, _) = tool.status(veth.dev)["programs"]
    assert (member["priority"], member["actions"]) == (20, ["XDP_PASS", "XDP_TX"])
    assert (member["label"] or member["name"]) == "count"
    assert tool.ids(veth.dev) == [_first, new, last] == tool.chain(veth.ifindex)
    assert not {old} & set(oracle.prog_ids())


def test_whose_maps(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Kept by default, new ones where that is asked for; constants are the new code's own."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    net.exchange(veth, FRAMES)
    old = oracle.prog_map(tool.ids(veth.dev)[0])
    answer = tool("replace", veth.dev, "count", objects["recount"]).out
    new = tool.ids(veth.dev)[0]
    assert f"replaced count (id {answer.split('(id ')[1].split(')')[0]}) with id {new}" in answer
    net.exchange(veth, FRAMES)
    assert oracle.array_counter(old) == 2 * len(FRAMES)
    assert oracle.array_counter(oracle.prog_map(new, "seen")) == len(FRAMES)
    tool("replace", veth.dev, "count", objects["recount"], "--maps", "seen=new")
    assert oracle.array_counter(oracle.prog_map(tool.ids(veth.dev)[0], "seen")) == 0
    assert oracle.prog_map(tool.ids(veth.dev)[0]) == old
    pin = tool.bpffs / "mine"
    with oracle.map_fd(old) as fd:
        oracle.pin(fd, pin)
    tool("replace", veth.dev, "count", objects["recount"], "--maps", "new")
    assert oracle.prog_map(tool.ids(veth.dev)[0]) != old
    tool("replace", veth.dev, "count", objects["count"], "--maps", f"packets={pin}")
    assert oracle.prog_map(tool.ids(veth.dev)[0]) == old
    pin.unlink()
    net.exchange(veth, FRAMES)
    assert oracle.array_counter(old) == 3 * len(FRAMES)


def test_what_cannot_be_replaced(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """A map that does not fit, a map that is not there, code that is refused, no such program."""
    corrupt = tmp_path / "corrupt.o"
    corrupt.write_bytes(objects["count"].read_bytes()[:900])
    tool("load", veth.dev, objects["count"], objects["pass"])
    cases: list[tuple[list[object], int, str]] = [
        (["count", objects["percpu"]], 7, "map packets: type 6, "),
        (["count", objects["count"], "--maps", "other=new"], 7, "map other is not in the file"),
        (["count", objects["recount"], "--maps", "seen=keep"], 7, "has none of that name"),
        (["count", objects["count"], "--maps", "packets=/nowhere"], 7, "/nowhere"),
        (["count", objects["refuse"]], 5, "verifier"),
        (["count", objects["noprog"]], 4, "no XDP program"),
        (["count", corrupt], 4, "corrupt"),
        (["drop", objects["count"]], 3, "no program named drop"),
        ([2**31 - 1, objects["count"]], 3, "no program with id"),
        (["count", objects["count"], "--maps", "some"], 2, "--maps some"),
        (["count", objects["count"], "--maps", "new", "--maps", "packets=keep"], 2, "--maps new"),
    ]
    with unchanged(tool, veth):
        for words, code, text in cases:
            result = tool.try_("replace", veth.dev, *words)
            assert (result.code, text in result.err) == (code, True), result.err


def test_another_place(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Priorities, constraints and labels, and that later changes keep to them."""
    tool("load", veth.dev, objects["count"], objects["pass"], objects["mark"])
    count, mark, passes = tool.ids(veth.dev)
    with Traffic(veth, [count]) as traffic:
        tool("set", veth.dev, "pass", "-P", 7)
        assert tool.chain(veth.ifindex) == [passes, count, mark]
        tool("set", veth.dev, mark, "--before", "pass", "--name", "painter")
        assert tool.chain(veth.ifindex) == [mark, passes, count]
        tool("unload", veth.dev, "-n", "pass")
        tool("swap-dispatcher", veth.dev)
        tool("load", "-P", 3, veth.dev, objects["pass"])
        _mark, passes, _count = tool.chain(veth.ifindex)
        assert (_mark, _count) == (mark, count)
        tool("set", veth.dev, count, "-A", "none", "--after", "painter")
        assert traffic.missed(6, "set") == [0]
    one = tool.status(veth.dev)["programs"][0]
    assert (one["id"], one["name"], one["label"]) == (mark, "mark", "painter")
    assert one["before"] == ["pass"]
    assert "painter" in tool("status", veth.dev).out
    with unchanged(tool, veth):
        refused = tool.try_("set", veth.dev, "pass", "--before", "painter")
        assert (refused.code, "such an order" in refused.err) == (2, True)
        assert tool.try_("set", veth.dev, "pass", "--name", "painter").code == 2
        assert tool.try_("set", veth.dev, "pass", "--before", "nobody").code == 3
        assert tool.try_("set", veth.dev, "pass").code == 2
        assert tool.try_("set", veth.dev, "-P", 4).code == 2
    tool("set", veth.dev, "painter", "--anywhere")
    assert tool.chain(veth.ifindex) == [passes, mark, count]  # which is to run after it
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


@pytest.mark.parametrize("members", [1, 2])
def test_what_becomes_of_packets_past_the_end(
    tool: Tool, veth: net.Veth, objects: Objects, members: int
) -> None:
    tool("load", veth.dev, *[objects["count"], objects["pass"]][:members])
    for word, passed in (("drop", 0), ("aborted", 0), ("pass", len(FRAMES))):
        tool("set", veth.dev, "--on-end", word)
        tool("swap-dispatcher", veth.dev)
        assert tool.status(veth.dev)["root"]["on_end"] == word
        before = oracle.packets(tool.ids(veth.dev)[0])
        assert len(net.exchange(veth, FRAMES)) == passed
        assert oracle.packets(tool.ids(veth.dev)[0]) - before == len(FRAMES)
    assert not [pin for pin in tool.pins() if "rules" in pin]


@needs("link_target")
def test_a_vacant_slot_that_fails_closed(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Its packets are dropped from the end of its holder on, until a change closes the gap."""
    tool("load", veth.dev, objects["pass"])
    tool("set", veth.dev, "--on-vacant", "drop")
    with api_holder.Holder(objects["count"], veth.dev, 10) as holder:
        assert net.exchange(veth, FRAMES) == FRAMES
        holder.kill()
        until(lambda: tool.status(veth.dev)["programs"][0]["vacant"])
    assert net.exchange(veth, FRAMES) == []
    tool("swap-dispatcher", veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.status(veth.dev)["root"]["on_vacant"] == "drop"
    # No verdict at all hands on from the first to the last.
    tool("load", "-P", 1, "-A", "none", veth.dev, objects["count"])
    first, last = tool.ids(veth.dev)
    tool("set", veth.dev, last, "-A", "none")
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(first) == len(FRAMES)


@pytest.mark.parametrize("verb", ["replace", "set"])
def test_killed_at_its_system_calls(
    tool: Tool, veth: net.Veth, objects: Objects, verb: str
) -> None:
    """SIGKILL: the chain of before or that of after, whole, and nothing left after `clean`."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    words = {
        "replace": ["replace", veth.dev, "count", str(objects["recount"]), "-q"],
        "set": ["set", veth.dev, "pass", "-P", "3", "--name", "p", "--on-end", "drop", "-q"],
    }[verb]
    back = {
        "replace": ["replace", veth.dev, "count", str(objects["count"]), "-q"],
        "set": ["set", veth.dev, "p", "-P", "50", "--name", "pass", "--on-end", "pass", "-q"],
    }[verb]

    def shape() -> list[tuple[object, ...]]:
        status = tool.status(veth.dev)
        rules = (status["root"]["on_end"],)
        return [
            rules,
            *((one["name"], one["priority"], one["label"]) for one in status["programs"]),
        ]

    before = shape()
    calls = crash.boundaries(lambda: run(words))
    after = shape()
    assert before != after
    tool(*back)
    before = shape()
    points = [n for n, (call, _) in enumerate(calls, 1) if call not in crash.READS]
    found = set()
    for point in points[:: max(1, len(points) // 8)]:
        with crash.Stepped(lambda: run(words)) as child:
            child.run_to(point)
        now = shape()
        assert now in (before, after), point
        found.add(now == after)
        tool("clean")
        assert shape() == now
        assert not tool.status(veth.dev)["residue"]
        if now == after:
            tool(*back)
            assert shape() == before
    assert len(found) == 2
