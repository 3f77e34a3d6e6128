"""Programs that other people wrote and Debian compiled, unchanged, in chains."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import Tool

pytestmark = one_guest

KINDS = {
    "tcp80": net.tcp(1, dport=80),
    "tcp22": net.tcp(2, dport=22),
    "udp53": net.udp(3, dport=53),
    "udp9": net.udp(4, dport=9),
    "icmp": net.icmp(5),
    "arp": net.arp(6),
    "ipv6": net.ipv6(7),
}
EVERYTHING = set(KINDS)
DST_TCP_UDP = 2 | 4 | 8  # xdp-filter's flags: destination port, of TCP, of UDP


@pytest.fixture
def maps(tool: Tool) -> Path:
    """A directory for the maps that xdp-filter's objects want pinned."""
    path = tool.bpffs / "maps"
    path.mkdir()
    return path


def list_ports(maps: Path, *ports: int) -> None:
    """Put ports on xdp-filter's list: the key is in network order, the value a u64 a CPU."""
    with oracle.pin_get(maps / "filter_ports") as ports_map:
        for port in ports:
            key = struct.pack("!H", port) + bytes(2)
            oracle.map_update(
                ports_map, key, struct.pack("=Q", DST_TCP_UDP) * oracle.possible_cpus()
            )


def passing(veth: net.Veth) -> set[str]:
    """Which kinds of frames arrive."""
    arrived = {net.seq_of(frame) for frame in net.exchange(veth, list(KINDS.values()))}
    return {kind for kind, frame in KINDS.items() if net.seq_of(frame) in arrived}


# dny_* lets only what is listed pass, alw_* all but what is listed.
FILTERS = {
    "xdpfilt_dny_all": ({"tcp80", "udp53"}, set()),
    "xdpfilt_dny_tcp": ({"tcp80"}, set()),
    "xdpfilt_dny_udp": ({"udp53"}, set()),
    "xdpfilt_alw_all": (EVERYTHING - {"tcp80", "udp53"}, EVERYTHING),
    "xdpfilt_alw_tcp": (EVERYTHING - {"tcp80"}, EVERYTHING),
    "xdpfilt_alw_udp": (EVERYTHING - {"udp53"}, EVERYTHING),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_and_what_comes_after_it(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, maps: Path, name: str
) -> None:
    """What it denies is dropped, what it allows arrives, and the next program sees just that."""
    listed, empty = FILTERS[name]
    tool("load", "-p", maps, veth.dev, debian / f"{name}.o")
    tool("load", veth.dev, objects["count"])
    filter_, counter = tool.status(veth.dev)["programs"]
    assert (filter_["name"], filter_["priority"], filter_["actions"]) == (name, 10, ["XDP_PASS"])
    assert passing(veth) == empty
    assert oracle.packets(counter["id"]) == len(empty)
    list_ports(maps, 80, 53)
    assert passing(veth) == listed
    tool("swap-dispatcher", veth.dev)
    assert passing(veth) == listed
    assert oracle.packets(counter["id"]) == len(empty) + 2 * len(listed)


def test_two_filters_agree(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, maps: Path
) -> None:
    """Two programs with maps of the same names, each with its own."""
    other = tool.bpffs / "other"
    other.mkdir()
    tool("load", "-p", maps, veth.dev, debian / "xdpfilt_dny_all.o")
    tool("load", "-p", other, veth.dev, debian / "xdpfilt_alw_udp.o")
    tool("load", veth.dev, objects["count"])
    list_ports(maps, 80, 53)
    list_ports(other, 53)
    assert passing(veth) == {"tcp80"}
    assert oracle.packets(tool.ids(veth.dev)[2]) == 1
    tool("unload", veth.dev, "-n", "xdpfilt_dny_all")
    assert passing(veth) == EVERYTHING - {"udp53"}


def test_a_chain_of_ten(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, maps: Path
) -> None:
    """Filters, the AF_XDP default program, xdpdump's and ours, in one load and through a swap."""
    theirs = ["xdpfilt_alw_all", "xdpfilt_alw_tcp", "xdpfilt_alw_ip", "xdpfilt_alw_eth"]
    theirs += ["xdpfilt_alw_udp", "xsk_def_xdp_prog", "xsk_def_xdp_prog_5.3", "xdpdump_xdp"]
    tool(
        "load",
        "-p",
        maps,
        veth.dev,
        *[debian / f"{name}.o" for name in theirs],
        objects["count"],
        objects["pass"],
    )
    programs = tool.status(veth.dev)["programs"]
    assert len(programs) == 10
    assert [one["priority"] for one in programs] == [10] * 5 + [20] * 2 + [50] * 3
    (counter,) = [one["id"] for one in programs if one["name"] == "count"]
    assert passing(veth) == EVERYTHING
    list_ports(maps, 80)
    assert passing(veth) == EVERYTHING - {"tcp80"}
    tool("swap-dispatcher", veth.dev)
    assert passing(veth) == EVERYTHING - {"tcp80"}
    assert oracle.packets(counter) == 3 * len(EVERYTHING) - 2


def test_what_is_no_xdp_program(tool: Tool, veth: net.Veth, debian: Path) -> None:
    """xdpdump's observers are fentry and fexit programs; libxdp's dispatcher object has two."""
    assert tool.try_("load", veth.dev, debian / "xdpdump_bpf.o").code == 4
    assert tool.try_("load", veth.dev, debian / "xdp-dispatcher.o").code == 2
    assert tool.chain(veth.ifindex) == []


@kinds("ext")  # libxdp's record of a chain has no place for fused programs
def test_xdp_loader_reads_our_chain(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, maps: Path
) -> None:
    """Its status of our dispatcher says what ours says, row by row."""
    tool("load", "-p", maps, veth.dev, debian / "xdpfilt_alw_all.o", objects["longname"])
    tool("load", "-P", 7, "-A", "XDP_TX,XDP_DROP", veth.dev, objects["pass"])
    ours = [line.split() for line in tool("status", veth.dev).out.splitlines() if line]
    theirs = [line.split() for line in tool.xdp_loader("status", veth.dev).splitlines() if line]
    assert ours == theirs
    assert sum(line[0] == "=>" for line in ours) == 3
