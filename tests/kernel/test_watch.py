"""xdpctl watch keeps chains true while nobody runs a command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel import net, oracle, served
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.foreign_holder import Foreign
from tests.kernel.test_holders import gone, until, vacate
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest

FRAMES = net.udps(10)


@contextmanager
def watching(path: Path, *words: str) -> Iterator[list[dict[str, str]]]:
    """A running `xdpctl watch --json`; gives its events, which are whole after the block."""
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.settimeout(60)
    address = str(path / "notify")
    ready.bind(address)
    events: list[dict[str, str]] = []
    process = served.Program(
        [sys.executable, "-m", "xdpctl", "watch", "--json", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": address},
    )
    try:
        assert ready.recv(64) == b"READY=1"
        yield events
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        events += map(json.loads, out.splitlines())
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        ready.close()


@needs("link_target")
def test_owners_that_go(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """A process without a pin, killed, and one of the API, killed: both are out at once.

    The first there is on EXT roots alone.
    """
    with ExitStack() as stack:
        tool("load", veth.dev, objects["count"], *[objects["pass"]] * (tool.kind == "ext"))
        foreign = None
        if tool.kind == "ext":
            foreign = stack.enter_context(Foreign(vacate(tool, veth, 1), "prog1"))
        holder = stack.enter_context(Holder(objects["count"], veth.dev, 10))
        events = stack.enter_context(watching(tmp_path, "--interval", "600"))
        # The interval is long: what happens now is told by the processes' end.
        assert len(tool.chain(veth.ifindex)) == (3 if foreign else 2)
        if foreign:
            foreign.kill()
            until(lambda: len(tool.chain(veth.ifindex)) == 2, timeout=90)
            gone(foreign.prog_id)
        holder.settle(oracle.xdp_prog_id(veth.ifindex)[0])
        tool("swap-dispatcher", veth.dev)
        holder.settle(oracle.xdp_prog_id(veth.ifindex)[0])
        root, _mode = oracle.xdp_prog_id(veth.ifindex)
        holder.kill()
        until(lambda: oracle.xdp_prog_id(veth.ifindex)[0] != root, timeout=90)
        gone(holder.prog_id)
        assert len(tool.chain(veth.ifindex)) == 1
        assert net.exchange(veth, FRAMES) == FRAMES
    done = [event["what"].split()[0] for event in events]
    if foreign:
        assert done == ["took", "closed"]
        assert f"of {foreign.pid} (python" in events[0]["why"]
    else:
        assert done == ["closed"]


def test_interfaces_and_namespaces_that_go(tool: Tool, objects: Objects, tmp_path: Path) -> None:
    """Their pins go at once, and nothing else does."""
    with net.Veth() as stays, watching(tmp_path, "--interval", "600"):
        tool("load", stays.dev, objects["count"])
        kept = tool.pins()
        with net.Veth() as veth:
            tool("load", veth.dev, objects["count"])
        until(lambda: tool.pins() == kept, timeout=90)
        with net.NetNs() as space:
            with space.entered():
                net.Veth(name="x0")
                tool("load", "x0", objects["count"])
            assert tool.pins() != kept
        until(lambda: tool.pins() == kept, timeout=90)
        tool("unload", "-a", stays.dev)


@pytest.mark.parametrize("interval", ["0.2"])
def test_gaps_that_no_event_tells(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, interval: str
) -> None:
    """A slot becomes vacant while no process ends; it is closed at the next look.

    The pin of its link is removed by hand, or its holder on a fused root closes its descriptor.
    """
    with ExitStack() as stack:
        tool("load", veth.dev, objects["count"])
        if tool.kind == "ext":
            tool("load", veth.dev, objects["pass"])
        else:
            holder = stack.enter_context(Holder(objects["pass"], veth.dev, 90))
        events = stack.enter_context(watching(tmp_path, "--interval", interval))
        root, _mode = oracle.xdp_prog_id(veth.ifindex)
        if tool.kind == "ext":
            (tool.bpffs / f"xdp/dispatch-{veth.ifindex}-{root}/prog1-link").unlink()
        else:
            holder.ask("close")
        until(lambda: oracle.xdp_prog_id(veth.ifindex)[0] != root, timeout=30)
        assert len(tool.status(veth.dev)["programs"]) == 1
    assert [event["what"] for event in events] == ["closed slot 1"]


def test_interfaces_that_appear(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Each gets the chain of its file: there before, made anew, named so; and when that changes."""
    files = tmp_path / "files"
    files.mkdir()
    chain, other = files / "chain.toml", f"{veth.dev[:-1]}x"
    chain.write_text(
        f'interface = "{veth.dev[:-1]}[ax]"\nmode = "skb"\n'
        f'[[program]]\nfile = "{objects["count"]}"\n'
    )

    def runs(dev: str) -> int:
        """How many programs an interface runs, by the oracle."""
        return len(tool.chain(socket.if_nametoindex(dev)))

    with watching(tmp_path, "--interval", "600", "--apply", "--files", str(files)) as events:
        until(lambda: runs(veth.dev) == 1, timeout=90)
        with net.Veth(name=other) as more:
            until(lambda: runs(other) == 1, timeout=90)
            before = tool.ids(veth.dev)
            tool("set", other, "count", "-P", 7)
            net.ip("link", "set", veth.dev, "down")  # an event: what was changed stays
            assert tool.status(other)["programs"][0]["priority"] == 7
            with chain.open("a") as out:
                out.write(f'[[program]]\nfile = "{objects["pass"]}"\n')
            net.ip("link", "set", veth.dev, "up")
            until(lambda: (runs(veth.dev), runs(other)) == (2, 2), timeout=90)
            assert tool.ids(veth.dev)[0] == before[0]
            assert more.dev == other
        with net.Veth(name="appears0") as third:  # by an alternative name, which comes later
            net.ip("link", "property", "add", "dev", third.dev, "altname", other)
            until(lambda: runs(third.dev) == 2, timeout=90)
        chain.write_text("[[program")
        net.ip("link", "set", veth.dev, "down")
        net.ip("link", "set", veth.dev, "up")
        tool("unload", veth.dev, "--all")
    told = [(one["where"], one["why"]) for one in events if "brought to" in one["what"]]
    assert sum(why == "the file has changed" for _where, why in told) == 2
    assert {where for where, _why in told} >= {veth.dev, other, "appears0"}
