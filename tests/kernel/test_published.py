"""The XDP examples that BCC publishes, changed in nothing but the line that attaches.

They are taken from where Debian has them (bpfcc-tools). Each counts in its own table, prints that
each second and ends when it is interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs
from tests.kernel.test_holders import gone, until
from tests.kernel.tool import ROOT, Tool

pytestmark = [needs("bcc", "link_target"), pytest.mark.usefixtures("headers")]
if not oracle.lacks("own_machine"):  # BCC takes minutes to compile the four in an emulated guest
    pytestmark.append(pytest.mark.soak)
PUBLISHED = Path("/usr/share/doc/bpfcc-tools/examples/networking/xdp")
FRAMES = [
    *[net.udp(1), net.udp(2), net.ipv6(3), net.tcp(4), net.tcp(5)],
    *[net.icmp(6), net.arp(7)],
]
PROTOCOLS = {17: 3, 6: 2, 1: 1, 0: 1}
"""How many of each; 0 is what is not IP."""
_ATTACH = re.compile(r"^( *)b\.attach_xdp\((\w+), (\w+), flags\)$", re.MULTILINE)
_DELTA = re.compile(r"^(?:(\d+): )?(\d+) pkt/s", re.MULTILINE)


class Published:
    """One of them as a process; `name` is that of its file."""

    def __init__(self, directory: Path, name: str, words: list[str], **options: object) -> None:
        text = (PUBLISHED / f"{name}.py").read_text()
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        changed, count = _ATTACH.subn(
            rf"\1import xdpctl; xdpctl.attach(b, \2, program=\3.name.decode(), {given})", text
        )
        assert count == text.count("attach_xdp(") > 0, "not the script that is known"
        script, self.out = directory / f"{name}.py", directory / f"{name}.out"
        script.write_text(changed)
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-u", script, *words],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def begun(self) -> None:
        """Wait until its program is in the chain."""
        end = time.monotonic() + 900
        while "hit CTRL+C to stop" not in self.out.read_text():
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < end, self.out.read_text()
            time.sleep(0.1)

    def printed(self) -> Counter[int]:
        """What it has printed, by IP protocol, or 0 where it does not tell them apart."""
        found = Counter[int]()
        for protocol, packets in _DELTA.findall(self.out.read_text()):
            found[int(protocol or 0)] += int(packets)
        return found

    def has_printed(self, expected: Counter[int]) -> bool:
        return self.printed() == expected

    def interrupt(self) -> None:
        """End it as its user would; it has to take out what it attached."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.out.read_text()
        assert self.out.read_text().endswith("Removing filter from device\n")


@contextmanager
def running(directory: Path, name: str, *words: str, **options: object) -> Iterator[Published]:
    one = Published(directory, name, list(words), **options)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def counted(program_id: int) -> dict[int, int]:
    """What one of them has in its table: dropcnt by protocol, or rxcnt for all."""
    maps = {oracle.map(number).name: number for number in oracle.prog(program_id).map_ids}
    if "rxcnt" in maps:
        return {0: oracle.array_counter(maps["rxcnt"])}
    return {one: oracle.array_counter(maps["dropcnt"], one) for one in PROTOCOLS}


def swapped(frame: bytes) -> bytes:
    """A frame that goes back to where it came from."""
    return frame[6:12] + frame[:6] + frame[12:]


def is_udp(frame: bytes) -> bool:
    return net.seq_of(frame) in (1, 2, 3)


# Each hands on what it answers, or no more: the swaps in order, and who decides then.
TURNS = [
    *(("drop", "XDP_DROP", "swap"), ("swap", "XDP_TX", "cpu"), ("cpu", "XDP_REDIRECT", "map")),
    *(
        (None, "", "map"),
        ("cpu", "none", "cpu"),
        ("swap", "none", "swap"),
        ("drop", "none", "drop"),
    ),
    *((None, "", "drop"), ("drop", "XDP_DROP", "swap"), (None, "", "swap")),
]


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers of a kernel that this BCC can read: see tests/vm."""
    if place := os.environ.get("XDPCTL_BCC_HEADERS"):
        monkeypatch.setenv("BCC_KERNEL_SOURCE", place)


class Road:
    """The interface in a chain of them, what can come of its packets, and what was counted."""

    def __init__(self, veth: net.Veth, out: net.Veth, first: int, ids: dict[str, int]) -> None:
        self.veth, self.out, self.first, self.ids = veth, out, first, ids
        self.sent = 0
        self.reached = Counter[str]()

    def send(self, deciding: str) -> None:
        """All frames once: where they come out, and who has counted them."""
        # macswap turns UDP around, redirect_map everything.
        turned = [swapped(frame) if is_udp(frame) else frame for frame in FRAMES]
        twice = [frame if is_udp(frame) else swapped(frame) for frame in FRAMES]
        wait = {name: 20.0 if name == deciding else 0.05 for name in self.ids}
        with net.Sniffer(self.veth.peer) as back, net.Sniffer(self.out.peer) as beyond:
            assert net.exchange(self.veth, FRAMES, wait["cpu"]) == turned * (deciding == "cpu")
            assert back.collect(len(FRAMES), wait["swap"]) == turned * (deciding == "swap")
            assert beyond.collect(len(FRAMES), wait["map"]) == twice * (deciding == "map")
        self.sent += 1
        order = list(self.ids)
        self.reached.update(order[: order.index(deciding) + 1])
        assert oracle.packets(self.first) == self.sent * len(FRAMES)
        for name, number in self.ids.items():
            assert counted(number) == self.expected(name)

    def expected(self, name: str) -> dict[int, int]:
        """What one of them has counted until now."""
        each = {0: len(FRAMES)} if name in ("cpu", "map") else PROTOCOLS
        return {protocol: packets * self.reached[name] for protocol, packets in each.items()}


def test_all_of_them_on_one_interface(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Each counts every packet through ten swaps, and decides its fate when it is its turn."""
    if not PUBLISHED.exists():
        pytest.skip("missing: BCC's examples (bpfcc-tools)")
    tool("load", veth.dev, objects["count"], "-P", 10)
    (first,) = tool.ids(veth.dev)
    with ExitStack() as stack:
        out = stack.enter_context(net.Veth())
        # Without a program at the other end veth takes no frames back, and no redirected ones.
        passing = oracle.xdp_load(oracle.returning(oracle.XDP_PASS))
        for end in (veth, out):
            stack.callback(oracle.xdp_attach(passing, end.peer_ifindex).close)
        scripts = {
            name: stack.enter_context(running(tmp_path, *words, priority=priority))
            for name, priority, words in (
                ("drop", 20, ("xdp_drop_count", veth.dev)),
                ("swap", 30, ("xdp_macswap_count", veth.dev)),
                ("cpu", 40, ("xdp_redirect_cpu", veth.dev, "0")),
                ("map", 50, ("xdp_redirect_map", veth.dev, out.dev)),
            )
        }
        for script in scripts.values():
            script.begun()
        chain = tool.chain(veth.ifindex)
        road = Road(veth, out, first, dict(zip(scripts, chain[1:], strict=True)))
        assert chain[0] == first
        assert len(tool.chain(out.ifindex)) == 1
        road.send("drop")
        for name, actions, deciding in TURNS:
            if name:
                tool("set", veth.dev, road.ids[name], "-A", actions)
            else:
                tool("swap-dispatcher", veth.dev)
            assert tool.chain(veth.ifindex) == chain
            road.send(deciding)
        for name, script in scripts.items():
            expected = +Counter(road.expected(name))
            until(partial(script.has_printed, expected), 60)
        for name in ("swap", "map", "drop", "cpu"):
            scripts[name].interrupt()
            chain.remove(road.ids[name])
            assert tool.chain(veth.ifindex) == chain
            gone(road.ids[name])
        assert chain == [first]
        assert tool.chain(out.ifindex) == []
        assert net.exchange(veth, FRAMES) == FRAMES
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []
