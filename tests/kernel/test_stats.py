"""stats: what is counted equals what was sent, for each program and verdict, through any change."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

from tests.kernel import net, oracle, served
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, needs
from tests.kernel.test_holders import gone, until
from tests.kernel.test_packets import Traffic, counters, often
from tests.kernel.tool import ROOT, Tool
from xdpctl.model.chain import ACTIONS


def counted(tool: Tool, veth: net.Veth) -> dict[str, dict[str, Any]]:
    """What stats says of each program, by name."""
    (look,) = tool("stats", veth.dev, "--interval", 0, "--json").json["interfaces"]
    return {program["name"]: program for program in look["programs"]}


def settled(tool: Tool, veth: net.Veth, packets: int) -> dict[str, dict[str, Any]]:
    """The same, once the first program of the chain has seen so many packets."""
    end = time.monotonic() + 20
    while True:
        found = counted(tool, veth)
        seen = next(iter(found.values()))["packets"]
        if seen >= packets or time.monotonic() > end:
            return found
        time.sleep(0.02)


def in_turn(packets: int) -> dict[str, int]:
    """How often nth.c gives each verdict."""
    return {name: len(range(at, packets, 5)) for at, name in enumerate(ACTIONS)}


@often(10, 200)
def test_counts_equal_packets_sent(
    tool: Tool, veth: net.Veth, objects: Objects, swaps: int
) -> None:
    """Per program and verdict, with a flood on while the chain is changed in every way."""
    tool("load", veth.dev, objects["count"], "-P", 10)
    tool("load", veth.dev, objects["nth"], "-P", 20, "-A", "PASS,DROP")
    tool("load", veth.dev, objects["count_drop"], "-P", 40)
    tool("stats", veth.dev, "--on")
    changes: list[tuple[object, ...]] = [
        ("swap-dispatcher", veth.dev),
        ("load", veth.dev, objects["pass"], "-P", 5),
        ("set", veth.dev, "pass", "-P", 15),
        ("set", veth.dev, "pass", "-A", "PASS,TX"),
        ("unload", veth.dev, "-n", "pass"),
    ]
    with net.Flood(veth, rate=4000) as flood:
        for number in range(swaps):
            tool(*changes[number % len(changes)])
        sent = flood.stop()
    found = settled(tool, veth, sent)
    print(f"\n{swaps} changes, {sent} packets sent: {json.dumps(found)}")
    assert found["count"]["verdicts"] == {"XDP_PASS": sent}
    assert found["count"]["last_word"] == {}
    turns = in_turn(sent)
    assert found["nth"]["verdicts"] == turns
    on = {"XDP_PASS", "XDP_DROP"}
    assert found["nth"]["last_word"] == {k: v for k, v in turns.items() if k not in on}
    assert all(program["bytes"] == 100 * program["packets"] for program in found.values())
    dropped = {"XDP_DROP": turns["XDP_PASS"] + turns["XDP_DROP"]}
    assert found["count_drop"]["verdicts"] == found["count_drop"]["last_word"] == dropped
    assert all(program["timed"] >= program["packets"] // 64 for program in found.values())
    assert all(program["mean_ns"] > 0 for program in found.values())


@often(4, 100)
def test_switched_under_traffic(tool: Tool, veth: net.Veth, objects: Objects, swaps: int) -> None:
    """No packet misses a program as counting begins and ends."""
    staying = counters(tool, veth, objects)
    with Traffic(veth, staying) as traffic:
        for number in range(swaps):
            tool("stats", veth.dev, "--off" if number % 2 else "--on")
            assert bool(counting(tool)) == (not number % 2)
        assert traffic.missed(swaps, "counted and not") == [0, 0, 0]
    assert tool.chain(veth.ifindex) == staying


def counting(tool: Tool) -> list[str]:
    """The pins of what counts."""
    names = (path.rpartition("/")[2] for path in tool.pins())
    return [name for name in names if name.startswith(("counts", "masks", "counter-"))]


def test_only_while_it_is_on(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Nothing is attached before and after; a program that leaves is let go."""
    tool("load", veth.dev, objects["count"])
    before = oracle.snapshot()
    off = tool.try_("stats", veth.dev)
    assert (off.code, off.out) == (3, "")
    assert f"xdpctl stats {veth.dev} --on" in off.err
    tool("stats", veth.dev, "--on")
    tool("load", veth.dev, objects["pass"])
    assert tool.status(veth.dev)["root"]["counted"]
    leaving = tool.ids(veth.dev)[-1]
    assert len(counting(tool)) == (2 if tool.kind == "fused" else 6)
    net.exchange(veth, net.udps(100))
    assert [one["packets"] for one in settled(tool, veth, 100).values()] == [100, 100]
    tool("unload", veth.dev, "-i", leaving)
    assert len(counting(tool)) == (2 if tool.kind == "fused" else 4)
    gone(leaving)
    net.exchange(veth, net.udps(100))
    assert settled(tool, veth, 200)["count"]["verdicts"] == {"XDP_PASS": 200}
    shown = tool("stats", veth.dev, "--interval", 0.1).out
    assert "  count  " in shown
    assert "past the last program: 100" in shown  # the first hundred left with the other program
    assert "     200 packets: XDP_PASS 200\n" in tool("show", veth.dev).out
    ((drawn,),) = [one["programs"] for one in tool("show", veth.dev, "--json").json["interfaces"]]
    assert (drawn["packets"], drawn["verdicts"]) == (200, {"XDP_PASS": 200})
    tool("stats", veth.dev, "--off")
    assert counting(tool) == []
    assert tool.try_("stats", veth.dev).code == 3

    def as_before() -> bool:
        """It may have had more: what the first load let go of."""
        now = oracle.snapshot()
        return len(now.links) <= len(before.links) and len(now.maps) <= len(before.maps)

    until(as_before)
    tool("stats", veth.dev, "--on")
    assert [one["packets"] for one in counted(tool, veth).values()] == [0]
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


def test_tail_calls_and_changes_of_kind(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A verdict is what came back, from whomever; a root of another kind goes on counting."""
    tried = tool.try_("load", veth.dev, objects["tailcall"], "-n", "tailcall", "-P", 10)
    tool("load", veth.dev, objects["count"], "-P", 20, "-A", "none")
    tool("stats", veth.dev, "--on")
    net.exchange(veth, net.udps(100))
    found = settled(tool, veth, 100)
    assert all(sum(one["verdicts"].values()) == 100 for one in found.values())
    assert found["count"]["last_word"] == {"XDP_PASS": 100}
    if tried.code or oracle.lacks("ext"):
        return
    other = "fused" if tool.kind == "ext" else "ext"
    tool("unload", veth.dev, "-n", "tailcall")
    ids = tool.ids(veth.dev)
    tool("swap-dispatcher", veth.dev, "--root", other)
    assert len(counting(tool)) == (2 if other == "fused" else 4)
    net.exchange(veth, net.udps(100))
    # A program that becomes an EXT one is another one, and begins anew.
    total = 200 if tool.ids(veth.dev) == ids else 100
    assert settled(tool, veth, total)["count"]["last_word"] == {"XDP_PASS": total}


@needs("link_target")
def test_a_held_program_goes_with_its_process(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What counts it does not keep it in the chain, nor in the kernel; a licence is no matter."""
    tool("load", veth.dev, objects["nongpl"], "-P", 20)
    tool("stats", veth.dev, "--on")
    with Holder(objects["count"], veth.dev, 10) as holder:
        net.exchange(veth, net.udps(100))
        found = settled(tool, veth, 100)
        assert found["count"]["verdicts"] == {"XDP_PASS": 100}
        tool("swap-dispatcher", veth.dev)
        holder.settle(oracle.xdp_prog_id(veth.ifindex)[0])
        net.exchange(veth, net.udps(100))
        assert settled(tool, veth, 200)["count"]["verdicts"] == {"XDP_PASS": 200}
        holder.kill()
        until(lambda: tool.status(veth.dev)["programs"][0]["vacant"])
        net.exchange(veth, net.udps(100))
        assert [one["packets"] for one in settled(tool, veth, 300).values()] == [300]
        tool("swap-dispatcher", veth.dev)
        gone(holder.prog_id)
    assert len(counting(tool)) == (2 if tool.kind == "fused" else 4)


def test_watch_leaves_nothing(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """It only looks; killed, it leaves what was there."""
    tool("load", veth.dev, objects["count"])
    tool("stats", veth.dev, "--on")
    before, pins = oracle.snapshot(), tool.pins()
    words = ["stats", veth.dev, "--watch", "--interval", "0.2", "--json"]
    command = [sys.executable, "-m", "xdpctl", *words]
    with served.Program(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = json.loads(child.stdout.readline())
        net.exchange(veth, net.udps(50))
        while json.loads(child.stdout.readline())["interfaces"][0]["programs"][0]["packets"] < 50:
            pass
        child.send_signal(signal.SIGKILL)
    assert first["interfaces"][0]["programs"][0]["packets"] == 0
    assert not oracle.settle(before).added(before)
    assert tool.pins() == pins
