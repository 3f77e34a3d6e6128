"""Random packets, the programs that are there to be chained, and what a chain of them means.

Everything random comes from a seed.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.tool import ROOT, Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain, Kind, Member
from xdpctl.model.request import Request
from xdpctl.programs import objects as objects_of_xdpctl

VACANT = 31
EVERY = 0b11111
"""A chain goes on after all five actions."""

PORTS = (22, 53, 80, 443)
SOURCES = {4: ("10.9.0.2", "10.9.0.3", "192.0.2.7"), 6: ("fd09::2", "fd09::3", "2001:db8::7")}
LISTED = {4: "10.9.0.3", 6: "fd09::3"}
LISTED_MAC = bytes.fromhex("020000000003")
MACS = (net.PEER_MAC, LISTED_MAC)

# Those of ours that answer by the packet alone, so that they may be run twice.
OURS = (
    *("adjust", "big", "count", "count_drop", "deepstack", "drop", "frags", "longname", "mark"),
    *("pass", "percpu", "redirect", "shrink", "subprogs", "xsk"),
)
EXAMPLES = ("blocklist", "counter")
"""Not ratelimit, for which the time counts, too."""
CODES = ("ret_0", "ret_1", "ret_2", "ret_3", "ret_4", "ret_31", "ret_32", "ret_34", "ret_200")


class Program(NamedTuple):
    """A program of an object file."""

    path: Path
    name: str | None = None

    def member(self, maps: Path) -> Member:
        """A member to be, after which a chain goes on whatever it answers."""
        return objects_of_xdpctl.member(
            str(self.path), program=self.name, actions=EVERY, pin_path=str(maps)
        )


def programs(objects: Objects, debian: Path) -> list[Program]:
    """Ours, the examples, and what Debian's xdp-tools and libxdp ship.

    But for observers and the dispatcher.
    """
    theirs = [
        Program(path)
        for path in sorted(debian.glob("xdp*.o")) + sorted(debian.glob("xsk*.o"))
        if path.stem not in ("xdp-dispatcher", "xdpdump_bpf")
    ]
    assert len(theirs) == 13, theirs
    ours = [Program(objects[name]) for name in OURS]
    ours += [Program(objects["tailcall"], "tailcall")]
    ours += [Program(ROOT / "examples" / f"{name}.c") for name in EXAMPLES]
    return theirs + ours + [Program(objects["ret"], name) for name in CODES]


Change = Callable[[Sequence[Member]], Sequence[Member]]


def change(tool: Tool, veth: net.Veth, make: Change, kind: Kind) -> tuple[int, Sequence[Member]]:
    """Give an interface another chain, made of the one it has; the root's id and the members."""
    bpffs, interface = Bpffs(str(tool.bpffs)), Interface.named(veth.dev)
    report = transact(
        bpffs, interface, lambda state: Chain(tuple(make(state.chain.members))), Request(kind=kind)
    )
    assert report.root_id is not None
    return report.root_id, report.members


def less(seed: int) -> Change:
    """Another order and other actions, and up to two programs less, as long as one is left."""

    def make(members: Sequence[Member]) -> Sequence[Member]:
        choice = random.Random(seed)
        count = max(1, len(members) - choice.randint(0, 2))
        return [
            replace(one, actions=choice.choice((EVERY, 1 << oracle.XDP_PASS, choice.randrange(32))))
            for one in choice.sample(members, count)
        ]

    return make


def list_some(maps: Path) -> None:
    """Put some ports and addresses on the lists of xdp-filter's programs, as far as pinned here.

    On that of blocklist.c as well.
    """
    both, protocols = 1 | 2, 4 | 8  # source and destination, TCP and UDP
    for name, keys, flags in (
        ("filter_ports", [struct.pack("!H2x", port) for port in PORTS[1:]], both | protocols),
        ("filter_ipv4", [socket.inet_aton(LISTED[4])], both),
        ("filter_ipv6", [socket.inet_pton(socket.AF_INET6, LISTED[6])], both),
        ("filter_ethernet", [LISTED_MAC], both),
    ):
        if (maps / name).exists():
            with oracle.pin_get(maps / name) as found:
                for key in keys:
                    value = struct.pack("=Q", flags) * oracle.possible_cpus()
                    oracle.map_update(found, key, value)
    if (maps / "blocked").exists():
        with oracle.pin_get(maps / "blocked") as found:
            for address in (
                bytes(10) + b"\xff\xff" + socket.inet_aton(LISTED[4]),
                socket.inet_pton(socket.AF_INET6, LISTED[6]),
            ):
                oracle.map_update(found, struct.pack("=I", 128) + address, bytes(8))


# --- packets ------------------------------------------------------------------------------------


def packet(choice: random.Random, number: int) -> bytes:
    """A frame of some protocol, now and then tagged, cut, damaged or plain noise."""

    def port() -> int:
        return choice.choice((*PORTS, choice.randrange(1, 1 << 16)))

    size = choice.choice((60, 64, 100, 1514, choice.randrange(60, 1515)))
    src = {version: choice.choice(some) for version, some in SOURCES.items()}
    made: list[Callable[[], bytes]] = [
        lambda: net.tcp(number, port(), port(), src=src[4], size=size),
        lambda: net.udp(number, port(), port(), src=src[4], size=size),
        lambda: net.ipv6(number, port(), port(), src=src[6], size=size),
        lambda: net.icmp(number, src=src[4], size=size),
        lambda: net.arp(number, src=src[4], size=size),
    ]
    frame = choice.choice(made)()
    frame = frame[:6] + choice.choice(MACS) + frame[12:]
    what = choice.random()
    if what < 0.1:
        frame = frame[:12] + struct.pack("!HH", 0x8100, choice.randrange(4096)) + frame[12:]
    elif what < 0.2:
        frame = frame[: choice.randrange(14, len(frame) + 1)]
    elif what < 0.3:
        damaged = bytearray(frame)
        for _ in range(choice.randrange(1, 9)):
            damaged[choice.randrange(len(damaged))] = choice.randrange(256)
        frame = bytes(damaged)
    elif what < 0.33:
        frame = choice.randbytes(choice.randrange(14, 1515))
    return frame


def packets(seed: int, count: int) -> list[bytes]:
    choice = random.Random(seed)
    return [packet(choice, number) for number in range(count)]


# --- the model ----------------------------------------------------------------------------------


def run_model(chain: Sequence[tuple[int, int]], frame: bytes) -> tuple[int, bytes]:
    """What a chain of (program, mask) makes of a packet, each program being run by itself.

    A lone program whose verdict nothing but XDP_PASS follows has no dispatcher in front of it.
    """
    if len(chain) == 1 and not chain[0][1] & ~(1 << oracle.XDP_PASS):
        return oracle.run(chain[0][0], frame)
    for program, mask in chain:
        code, frame = oracle.run(program, frame)
        if code != VACANT and not (code < 32 and mask >> code & 1):
            return code, frame
    return oracle.XDP_PASS, frame


ARRAYS = (2, 6)  # BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY


def memory(programs: Sequence[int]) -> list[tuple[str, int]]:
    """What programs have in their array maps, each element as a number; counters for the most."""
    found = []
    for program in programs:
        for number in oracle.prog(program).map_ids:
            info = oracle.map(number)
            if info.type in ARRAYS and info.name != "xdpctl_image":
                for index in range(min(info.max_entries, 8)):
                    value = oracle.map_lookup_sum(number, struct.pack("=I", index))
                    found.append((f"{info.name}[{index}]", value))
    return found
