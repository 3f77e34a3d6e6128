"""Real drivers, on the cards that QEMU has: tests/vm run 6.12 --cards, in `make test-matrix`.

What a card's driver refuses is its own affair; that the chain runs on, that xdpctl says what the
driver said, and that the remedy which it names works, is ours.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.kernel import net, oracle, wires
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.test_packets import Traffic, change, counters
from tests.kernel.tool import Tool

pytestmark = pytest.mark.cards

RATE = 1500
NATIVE = tuple(name for name in wires.NAMES if name in ("virtio", "vmxnet3", "igb"))
# What vmxnet3 forgets, and what a bond replaces, stays in the kernel (seen on 6.12).
leaks = pytest.mark.leaks_ok
MODES = [
    *(pytest.param(one, "native", marks=[leaks] * (one == "vmxnet3")) for one in NATIVE),
    ("e1000e", "skb"),
]
SWAPS = 4

Tell = Callable[[str, str, str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Have the report say what was seen of a card, for docs/platforms.py: card, what, answer."""

    def told(card: str, what: str, answer: str) -> None:
        request.node.user_properties.append(("card", f"{card}: {what}: {answer}"))

    return told


def swapped(tool: Tool, wire: wires.Wire, programs: list[int], what: str) -> None:
    """Swap the root under a flood, of which each program counts every packet."""
    wire.settle()  # a first load resets some cards
    with Traffic(wire, programs, rate=RATE) as traffic:
        for _ in range(SWAPS):
            change(tool, wire)
        assert traffic.missed(SWAPS, what) == [0] * len(programs)
    assert traffic.sent > 100


@pytest.mark.parametrize(("card", "mode"), MODES)
def test_no_packet_misses_a_program(
    tool: Tool, objects: Objects, tell: Tell, card: str, mode: str
) -> None:
    with wires.wire(card) as wire:
        programs = counters(tool, wire, objects, "-m", mode)
        swapped(tool, wire, programs, f"{card}, {mode}")
        assert oracle.xdp_prog_id(wire.ifindex)[1] == mode
    tell(card, "mode", mode)
    tell(card, "swaps", "yes")


@kinds("ext")
@pytest.mark.parametrize(("card", "mode"), MODES)
def test_what_is_done_to_the_card(
    tool: Tool, objects: Objects, tell: Tell, card: str, mode: str
) -> None:
    """Reset, plug, rings, queues and MTU under a chain: it runs on, and can be swapped."""
    with wires.wire(card) as wire:
        programs = counters(tool, wire, objects, "-m", mode)

        def counts() -> bool:
            wire.settle()
            maps = [oracle.prog_map(one) for one in programs]
            wanted = [oracle.array_counter(one) + 200 for one in maps]
            net.send(wire, net.udps(200))
            seen = [oracle.settle_counter(*one, 5) for one in zip(maps, wanted, strict=True)]
            assert tool.chain(wire.ifindex) == programs
            return seen == wanted

        def runs_on(what: str, answer: str = "runs on") -> None:
            if not counts():
                # vmxnet3 forgets its program as it goes down and as it is reset, by a change of its
                # rings or its MTU (seen on 6.12). A swap gives it another.
                print(f"{card}: {what}: the driver has forgotten its program")
                assert card == "vmxnet3"
                change(tool, wire)
                assert counts()
                answer = "swap"
            tell(card, what, answer)

        net.ip("link", "set", wire.dev, "down")
        net.ip("link", "set", wire.dev, "up")
        runs_on("down and up")
        for _ in range(2):
            wires.plug(card, "off")
            wires.plug(card, "on")
        runs_on("plug")
        asked = {
            "rings": ("-G", wire.dev, "rx", "256"),
            "queues": ("-L", wire.dev, "combined", "1"),
            "offloads": ("-K", wire.dev, "gro", "on"),
        }
        for what, words in asked.items():
            refused = wires.ethtool(*words)
            print(f"{card}: {what}: {refused or 'done'}")
            runs_on(what, "refused" if refused else "runs on")
        for mtu in ("1400", "1500"):
            net.ip("link", "set", wire.dev, "mtu", mtu)
            runs_on("MTU")
        swapped(tool, wire, programs, f"{card}, afterwards")


@kinds("ext")
@pytest.mark.parametrize("attach", ["link", "netlink"])
@pytest.mark.parametrize("card", NATIVE)
def test_an_mtu_that_is_too_large(tool: Tool, objects: Objects, card: str, attach: str) -> None:
    """The driver's words are told, and each remedy works."""
    with wires.wire(card) as wire:
        wire.up(mtu=9000)
        refused = tool.try_("load", wire.dev, objects["pass"], "--attach", attach)
        print(refused.err)
        assert refused.code == 7
        assert "the driver says: " in refused.err
        assert "MTU" in refused.err
        assert f"ip link set dev {wire.dev} mtu 1500" in refused.err
        assert "-m skb" in refused.err
        tool("load", "-m", "skb", wire.dev, objects["count"], "--attach", attach)
        tool("unload", "--all", wire.dev)
        wire.up(mtu=1500)
        tool("load", wire.dev, objects["count"], "--attach", attach)
        assert oracle.xdp_prog_id(wire.ifindex)[1] == "native"
        tool("unload", "--all", wire.dev)


@needs("frags")
@pytest.mark.parametrize("card", NATIVE)
def test_jumbo_frames(tool: Tool, objects: Objects, tell: Tell, card: str) -> None:
    """A driver that knows fragments hands on all of a large frame; others are not misunderstood."""
    with wires.wire(card) as wire:
        wire.up(mtu=9000)
        loaded = tool.try_("load", wire.dev, objects["frags"])
        if loaded.code:
            print(loaded.err)
            assert loaded.code == 7
            # Its programs have it all: nobody is told to build them in another way.
            assert "xdp.frags" not in loaded.err
            assert "the driver says: " in loaded.err
            assert f"ip link set dev {wire.dev} mtu 1500" in loaded.err
            tell(card, "jumbo frames", "refused")
            return
        programs = tool.chain(wire.ifindex)
        frames = net.udps(20, size=8000)
        assert net.exchange(wire, frames) == frames
        assert oracle.packets(programs[0]) == len(frames)
        swapped(tool, wire, programs, f"{card}, jumbo frames")
        refused = tool.try_("load", wire.dev, objects["pass"])
        assert refused.code == 7
        assert "pass lacks it" in refused.err
        assert tool.chain(wire.ifindex) == programs
        tool("unload", "--all", wire.dev)
        tell(card, "jumbo frames", "yes")


@kinds("ext")
def test_a_driver_without_native_mode(tool: Tool, objects: Objects) -> None:
    with wires.wire("e1000e") as wire:
        refused = tool.try_("load", wire.dev, objects["pass"])
        print(refused.err)
        assert refused.code == 7
        assert "-m skb" in refused.err
        tool("load", "-m", "unspecified", wire.dev, objects["pass"])
        assert oracle.xdp_prog_id(wire.ifindex)[1] == "skb"
        tool("unload", "--all", wire.dev)


@kinds("ext")
@pytest.mark.parametrize("attach", ["link", "netlink"])
def test_offloads_that_stay_on(tool: Tool, objects: Objects, attach: str) -> None:
    """A card whose host merges packets, and cannot be told not to."""
    with wires.wire("fixed") as wire:
        refused = tool.try_("load", wire.dev, objects["pass"], "--attach", attach)
        print(refused.err)
        assert refused.code == 7
        assert "GRO_HW" in refused.err
        assert f"ethtool -K {wire.dev} rx-gro-hw off lro off" in refused.err
        assert "-m skb" in refused.err


@kinds("ext")
@pytest.mark.skipif("vmxnet3" not in NATIVE, reason="missing: vmxnet3")
def test_lro(tool: Tool, objects: Objects) -> None:
    """The driver turns it off by itself, or refuses and is told what to do."""
    with wires.wire("vmxnet3") as wire:
        print(wires.ethtool("-K", wire.dev, "lro", "on"))
        loaded = tool.try_("load", wire.dev, objects["count"])
        if loaded.code:
            print(loaded.err)
            assert f"ethtool -K {wire.dev} lro off" in loaded.err
            wires.ethtool("-K", wire.dev, "lro", "off")
            tool("load", wire.dev, objects["count"])
        wire.settle()
        (program,) = tool.chain(wire.ifindex)
        print(f"on again: {wires.ethtool('-K', wire.dev, 'lro', 'on') or 'done'}")
        wire.settle()
        swapped(tool, wire, [program], "vmxnet3, after its LRO")
        tool("unload", "--all", wire.dev)


@kinds("ext")
def test_fewer_queues_than_processors(tool: Tool, objects: Objects) -> None:
    """Two processors, one queue: packets that a program sends back share it."""
    with wires.wire("virtio") as wire:
        assert wires.ethtool("-L", wire.dev, "combined", "1") == ""
        programs = counters(tool, wire, objects)
        swapped(tool, wire, programs, "one queue")
        tool("unload", "--all", wire.dev)
        assert wires.ethtool("-L", wire.dev, "combined", "2") == ""


# --- what stands on a card ----------------------------------------------------------------------


@contextmanager
def above(wire: wires.Wire, *lines: str) -> Iterator[None]:
    """Make what stands on a card, called top0; it goes at the end."""
    try:
        net.ip(
            "-batch", "-", batch="\n".join([*lines, "link set top0 addrgenmode none arp off up"])
        )
        yield
    finally:
        for one in ("top0", "sends0"):
            with suppress(RuntimeError):
                net.ip("link", "del", one)
        wire.up()


ABOVE = {
    "bond": ("native", ["link set {dev} down", "link add top0 type bond mode active-backup",
                        "link set {dev} master top0"]),
    "bridge": ("skb", ["link add top0 type bridge forward_delay 0", "link set {dev} master top0"]),
    "vlan": ("skb", ["link add link {dev} name top0 type vlan id 5",
                     "link add link {peer} name sends0 type vlan id 5", "link set sends0 up"]),
    "macvlan": ("skb", ["link add link {dev} name top0 type macvlan mode passthru"]),
}  # fmt: skip


@kinds("ext")
@pytest.mark.parametrize(
    "kind_of_device", [pytest.param(one, marks=[leaks] * (one == "bond")) for one in ABOVE]
)
def test_on_top_of_a_card(tool: Tool, objects: Objects, tell: Tell, kind_of_device: str) -> None:
    mode, lines = ABOVE[kind_of_device]
    with wires.wire("virtio") as wire:
        words = [line.format(dev=wire.dev, peer=wire.peer) for line in lines]
        with above(wire, *words):
            top = wires.Wire("top0", "sends0" if kind_of_device == "vlan" else wire.peer)
            top.settle()
            programs = counters(tool, top, objects, "-m", mode)
            swapped(tool, top, programs, kind_of_device)
            tool("unload", "--all", "top0")
    tell(kind_of_device, "mode", mode)
    tell(kind_of_device, "swaps", "yes")


@kinds("ext")
def test_the_card_below_a_bridge(tool: Tool, objects: Objects) -> None:
    bridge = "link add top0 type bridge forward_delay 0"
    with wires.wire("virtio") as wire, above(wire, bridge, f"link set {wire.dev} master top0"):
        programs = counters(tool, wire, objects)
        swapped(tool, wire, programs, "below a bridge")
        tool("unload", "--all", wire.dev)


_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


@kinds("ext")
def test_a_tap(tool: Tool, objects: Objects, tell: Tell) -> None:
    """What a process writes into a tap comes in there, in native mode."""
    subprocess.run(["modprobe", "tun"], check=True)
    with open("/dev/net/tun", "r+b", buffering=0) as tap:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _IFF_TAP | _IFF_NO_PI))
        net.ip("link", "set", "tap0", "addrgenmode", "none", "arp", "off", "up")
        wire = wires.Wire("tap0", "tap0")
        programs = counters(tool, wire, objects)
        assert oracle.xdp_prog_id(wire.ifindex)[1] == "native"
        before = [oracle.packets(one) for one in programs]
        ending, sent = threading.Event(), 0

        def flood() -> None:
            nonlocal sent
            while not ending.wait(0.005):
                for frame in net.udps(16, start=sent):
                    sent += os.write(tap.fileno(), frame) > 0

        writer = threading.Thread(target=flood)
        writer.start()
        for _ in range(SWAPS):
            change(tool, wire)
        ending.set()
        writer.join()
        print(f"{sent} frames written")
        assert sent > 100
        assert [oracle.packets(one) for one in programs] == [number + sent for number in before]
        tool("unload", "--all", "tap0")
    tell("tap", "mode", "native")
    tell("tap", "swaps", "yes")


@kinds("ext")
def test_wireguard(tool: Tool, objects: Objects, tell: Tell) -> None:
    """A device without Ethernet and without native mode."""
    net.ip("link", "add", "wg0", "type", "wireguard")
    try:
        net.ip("link", "set", "wg0", "up")
        refused = tool.try_("load", "wg0", objects["pass"])
        assert refused.code == 7
        assert "-m skb" in refused.err
        tool("load", "-m", "skb", "wg0", objects["count"], objects["pass"])
        tool("swap-dispatcher", "wg0")
        tool("unload", "--all", "wg0")
        tell("wireguard", "mode", "skb")
    finally:
        net.ip("link", "del", "wg0")
