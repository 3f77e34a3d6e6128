"""status --watch and show, while others change the chain."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kernel import net, oracle, served
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_holders import until
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest

FRAMES = net.udps(10)


class Watching:
    """A running `xdpctl status --watch`, a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = served.Program(
            [sys.executable, "-m", "xdpctl", "status", "--watch", "--interval", "0.1", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout
        self.fd = self.process.stdout.fileno()
        self.text = b""

    def until(self, wanted: bytes) -> str:
        """What it prints, up to an end that is waited for."""
        ending = time.monotonic() + 60
        while wanted not in self.text:
            assert select.select([self.fd], [], [], ending - time.monotonic())[0], self.text
            chunk = os.read(self.fd, 1 << 16)
            assert chunk, "it has ended"
            self.text += chunk
        found, _wanted, self.text = self.text.partition(wanted)
        return found.decode()

    def interface(self) -> dict[str, Any]:
        """The interface in the next line."""
        document = json.loads(self.until(b"\n"))
        assert (document["schema"], document["command"]) == (1, "status")
        (interface,) = document["interfaces"]
        assert isinstance(interface, dict)
        return interface

    def programs(self, names: list[str]) -> dict[str, Any]:
        """The interface as soon as it runs these, which is a whole chain at every moment."""
        while True:
            found = self.interface()
            if [one["name"] for one in found["programs"]] == names:
                return found


@contextmanager
def watching(number: signal.Signals, *words: str) -> Iterator[Watching]:
    """One that a signal ends after the block, at once, with nothing to say."""
    watch = Watching(*words)
    try:
        yield watch
        watch.process.send_signal(number)
        _out, err = watch.process.communicate(timeout=30)
        told = [line for line in err.splitlines() if not line.endswith(b"fused, as asked")]
        assert (watch.process.returncode, told) == (0, [])
    finally:
        if watch.process.poll() is None:
            watch.process.kill()
            watch.process.communicate()


def test_changes_of_others_are_seen(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each as a document on a line, and nothing twice; no lock keeps anybody from changing."""
    with watching(signal.SIGTERM, "--json", veth.dev) as watch:
        assert watch.interface()["root"] is None
        assert tool.process("load", veth.dev, objects["count"]).code == 0
        first = watch.programs(["count"])
        tool("load", veth.dev, objects["drop"], "-P", "90")
        second = watch.programs(["count", "drop"])
        tool("swap-dispatcher", veth.dev)
        third = watch.programs(["count", "drop"])
        assert third["root"]["id"] not in (first["root"]["id"], second["root"]["id"])
        assert [one["id"] for one in third["programs"]] == tool.ids(veth.dev)
        tool("unload", veth.dev, "-a", "--lock-timeout", "0")
        assert watch.programs([])["root"] is None
        time.sleep(0.5)
        assert not select.select([watch.fd], [], [], 0)[0]


def test_rows_each_time_and_an_interface_that_goes(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    begin, end = b"CURRENT XDP PROGRAM STATUS:\n", b"\n\n"
    with watching(signal.SIGINT, veth.dev[:-1] + "*") as watch:
        watch.until(begin)
        tool("load", veth.dev, objects["count"])
        assert "No XDP program" in watch.until(begin)
        watch.until(b"---\n")
        assert " count " in watch.until(end)
    with net.Veth() as other:
        goes = Watching(other.dev)
        goes.until(end)
    _out, err = goes.process.communicate(timeout=30)
    assert goes.process.returncode in (3, 12)
    assert len(err.splitlines()) <= 2, err


@needs("link_target")
def test_a_chain_with_a_vacant_slot_is_drawn(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What it says of packets is what becomes of them."""
    with Holder(objects["drop"], veth.dev, 10) as holder:
        tool("load", veth.dev, objects["count"], "-A", "XDP_PASS,XDP_TX")
        holder.settle(oracle.xdp_prog_id(veth.ifindex)[0])
        drawn = tool("show", veth.dev).out
        assert drawn.index(f"id {holder.prog_id}, ") < drawn.index(" count ")
        document = tool("show", veth.dev, "--json").json
        assert document["command"] == "show"
        (shown,) = document["interfaces"]
        counted = [(one.pop("packets"), one.pop("verdicts")) for one in shown["programs"]]
        assert (shown, counted) == (tool.status(veth.dev), [(None, None)] * 2)
        pins = tool.pins()
        holder.kill()
    until(lambda: "<vacant>" in tool("show", veth.dev).out)
    lines = tool("show", veth.dev).out.splitlines()
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    assert lines[0].startswith(f"{veth.dev}  ")
    assert f"id {root}, native mode, {tool.kind} root" in lines[0]
    place = next(number for number, line in enumerate(lines) if "<vacant>" in line)
    assert "packets pass it by" in lines[place + 1]
    assert lines[place + 2].endswith("goes on: all")
    assert " 1  count  id " in lines[place + 3]
    assert lines[place + 4].endswith("leaves: XDP_ABORTED,XDP_DROP,XDP_REDIRECT")
    assert lines[place + 5].endswith("goes on: XDP_PASS,XDP_TX")
    assert lines[-1].endswith("end: XDP_PASS")
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.pins() == pins
    tool("set", veth.dev, "--on-end", "drop")
    assert tool("show", veth.dev).out.splitlines()[-1].endswith("end: XDP_DROP")
    assert net.exchange(veth, FRAMES) == []
