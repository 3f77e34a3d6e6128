"""trace: live packets with their paths, in a form that others read, and nothing left of it."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kernel import net, oracle, served
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.test_holders import gone
from tests.kernel.test_holders import until as wait
from tests.kernel.tool import ROOT, Result, Tool

pytestmark = one_guest

RATE = 2000


def chain(tool: Tool, veth: net.Veth, objects: Objects) -> list[int]:
    """A chain in which packets come to five different ends."""
    tool("load", veth.dev, objects["count"], "-P", 10)
    tool("load", veth.dev, objects["nth"], "-P", 20, "-A", "PASS,DROP")
    tool("load", veth.dev, objects["count_drop"], "-P", 30, "-A", "DROP")
    return tool.ids(veth.dev)


def documents(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


@kinds("ext")
def test_paths(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """Each packet with what every program answered; some of them, as others read them, too."""
    count, nth, drop = chain(tool, veth, objects)
    running = oracle.snapshot()
    with net.Flood(veth, rate=RATE):
        seen = documents(tool("trace", veth.dev, "-c", 25, "--json"))
        dropped = documents(
            tool("trace", veth.dev, "-c", 5, "--json", "--verdict", "pass", "--sample", 3)
        )
        file = tmp_path / "trace.pcapng"
        tool("trace", veth.dev, "-c", 20, "-w", file, "--snap", 60)
        plain = tool("trace", veth.dev, "-c", 3, "--verdict", "XDP_TX").out
    assert not oracle.settle(running).added(running)
    ends = set()
    for packet in seen:
        path = [(step["id"], step["verdict"]) for step in packet["path"]]
        assert path[0] == (count, "XDP_PASS")
        assert path[1][0] == nth
        if path[1][1] in ("XDP_PASS", "XDP_DROP"):
            assert path[2:] == [(drop, "XDP_DROP")]
            assert (packet["last_word"], packet["verdict"]) == (None, "XDP_PASS")
        else:
            assert path[2:] == []
            assert (packet["last_word"], packet["verdict"]) == (nth, path[1][1])
        ends.add((packet["verdict"], packet["last_word"]))
        frame = bytes.fromhex(packet["data"])
        assert (len(frame), packet["length"]) == (100, 100)
        assert net.seq_of(frame) is not None
    assert len(ends) == 4
    assert [packet["verdict"] for packet in dropped] == ["XDP_PASS"] * 5
    told = f"count (id {count}): XDP_PASS; nth (id {nth}): XDP_TX; the last word"
    assert [line.partition(" B: ")[2] for line in plain.splitlines()] == [told] * 3
    data = file.read_bytes()
    assert told.encode() in data
    read = subprocess.run(["tcpdump", "-nr", file], capture_output=True, text=True, check=True)
    assert len(read.stdout.splitlines()) == 20
    assert read.stdout.count("10.9.0.2.1000 > 10.9.0.1.2000") == 20


@kinds("ext")
def test_several_interfaces(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """The packets of both, each with its interface; also in one file, which others read."""
    with net.Veth() as other:
        both = f"{veth.dev},{other.dev}"
        tool("load", both, objects["count"])
        ids = {one: tool.ids(one) for one in (veth.dev, other.dev)}
        file = tmp_path / "trace.pcapng"
        words = [sys.executable, "-m", "xdpctl", "trace", both, "--json"]
        running, seen = oracle.snapshot(), set[str]()
        with net.Flood(veth, rate=200), net.Flood(other, rate=200):
            with served.Program(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                while seen != set(ids):
                    packet = json.loads(child.stdout.readline())
                    seen.add(packet["interface"])
                    assert [step["id"] for step in packet["path"]] == ids[packet["interface"]]
                child.send_signal(signal.SIGTERM)
            tool("trace", both, "-c", 40, "-w", file)
        assert not oracle.settle(running).added(running)
        data = file.read_bytes()
        assert all(one.encode() in data for one in ids)
        read = subprocess.run(["tcpdump", "-nr", file], capture_output=True, text=True, check=True)
        assert len(read.stdout.splitlines()) == 40
        # Nothing is left of a trace that one of the interfaces refuses.
        tool("unload", other.dev, "--all")
        assert tool.try_("trace", both, "-w", tmp_path / "none").code == 3
        assert not (tmp_path / "none").exists()


@kinds("ext")
def test_each_packet_is_shown_before_the_next(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Rare packets do not wait for others to come."""
    tool("load", veth.dev, objects["count"])
    words = [sys.executable, "-m", "xdpctl", "trace", veth.dev, "--json"]
    with served.Program(words, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        out = child.stdout

        def shown(seconds: float) -> list[int | None]:
            """The numbers of the packets in the next line, if there is one in time."""
            if not select.select([out], [], [], seconds)[0]:
                return []
            return [net.seq_of(bytes.fromhex(json.loads(out.readline())["data"]))]

        first, *others = net.udps(6)
        try:
            wait(lambda: net.exchange(veth, [first]) and shown(1))
            while shown(1):
                pass
            for frame in others:
                assert net.exchange(veth, [frame]) == [frame]
                assert shown(30) == [net.seq_of(frame)]
        finally:
            child.send_signal(signal.SIGTERM)


@kinds("ext")
def test_follows_the_chain_and_goes_with_its_process(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Programs that come are traced, those that leave are let go; killed, it leaves nothing."""
    tool("load", veth.dev, objects["count"])
    before = oracle.snapshot()
    words = [sys.executable, "-m", "xdpctl", "trace", veth.dev, "--json"]
    with (
        net.Flood(veth, rate=100),
        served.Program(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        out = child.stdout

        def until(names: list[str]) -> None:
            while [one["name"] for one in json.loads(out.readline())["path"]] != names:
                pass

        until(["count"])
        tool("load", veth.dev, objects["pass"], "-P", 5)
        until(["pass", "count"])
        leaving = tool.ids(veth.dev)[1]
        tool("unload", veth.dev, "-i", leaving)
        until(["pass"])
        gone(leaving)
        tool("load", veth.dev, objects["count"])
        tool("unload", veth.dev, "-n", "pass")
        until(["count"])
        child.send_signal(signal.SIGKILL)

    def as_before() -> bool:
        """It may have had more: what the first load let go of."""
        now = oracle.snapshot()
        return all(
            len(getattr(now, kind)) <= len(getattr(before, kind))
            for kind in ("progs", "links", "maps")
        )

    wait(as_before, 30)


@kinds("fused")
def test_a_fused_root_says_so(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What cannot be had is refused at once, with a way out."""
    assert tool.try_("trace", veth.dev).code == 3
    tool("load", veth.dev, objects["count"])
    refused = tool.try_("trace", veth.dev, "-c", 1)
    assert (refused.code, refused.out) == (7, "")
    assert f"xdpctl stats {veth.dev} --on" in refused.err
