"""xdpctl.traffic.pcapng: blocks as the format has them, and as tcpdump reads them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdpctl.traffic import pcapng

COMMENT = "count (id 12): XDP_PASS; größer: XDP_DROP; the last word"


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file, each with its length before and behind it."""
    while data:
        kind, size = struct.unpack_from("=II", data)
        assert size % 4 == 0
        assert struct.unpack_from("=I", data, size - 4) == (size,)
        yield kind, data[8 : size - 4]
        data = data[size:]


def options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack_from("=HH", data)
        if not code:
            assert data == bytes(4)
            return found
        found[code] = data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 60])
def test_a_file(size: int) -> None:
    data = pcapng.head("xdpctl 0", ["veth0", "veth1"], 256)
    data += pcapng.packet(1, 5 << 32 | 7, bytes(range(size)), 1500, COMMENT, 1)
    section, interface, second, packet = blocks(data)
    assert section[0] == 0x0A0D0D0A
    assert struct.unpack_from("=IHHq", section[1]) == (0x1A2B3C4D, 1, 0, -1)
    assert options(section[1][16:]) == {4: b"xdpctl 0"}
    assert interface[0] == 1
    assert struct.unpack_from("=HHI", interface[1]) == (1, 0, 256)
    assert options(interface[1][8:]) == {2: b"veth0", 9: b"\x09"}
    assert second[0] == 1
    assert options(second[1][8:]) == {2: b"veth1", 9: b"\x09"}
    assert packet[0] == 6
    assert struct.unpack_from("=5I", packet[1]) == (1, 5, 7, size, 1500)
    assert packet[1][20 : 20 + size] == bytes(range(size))
    told = options(packet[1][20 + size + -size % 4 :])
    assert told == {1: COMMENT.encode(), 7: b"\x02" + struct.pack("=Q", 1)}


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="missing: tcpdump")
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "packets.pcapng"
    arp = bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010a0000010000")
    arp += bytes.fromhex("000000000a000002")
    data = pcapng.head("xdpctl 0", ["veth0", "veth1"], 256)
    for number in (0, 1, 0):
        data += pcapng.packet(number, 10**18, arp, len(arp), COMMENT, 2)
    path.write_bytes(data)
    done = subprocess.run(
        ["tcpdump", "-nttr", path], capture_output=True, text=True, check=True, env={"TZ": "UTC"}
    )
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.startswith("1000000000.000000 ARP, Request who-has 10.0.0.2 tell 10.0.0.1")
