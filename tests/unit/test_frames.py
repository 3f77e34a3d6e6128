"""xdpctl.traffic.frames: the built-in packets are what they are called."""

from __future__ import annotations

import struct

import pytest

from xdpctl.errors import UsageError
from xdpctl.traffic import frames

MADE = {one.name: one.data for one in frames.builtin()}


def total(data: bytes) -> int:
    """The internet checksum's sum, which is all ones where the checksum is right."""
    data += bytes(len(data) % 2)
    found: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return found


def test_lengths() -> None:
    assert len(MADE["jumbo"]) == 9014
    short = {name: len(one) for name, one in MADE.items() if len(one) < 60}
    assert short == {"runt-ethernet": 14, "runt-ipv4": 26, "runt-tcp": 42}
    assert all(MADE["tcp-syn-22"].startswith(MADE[name]) for name in short)


def test_ipv4_packets() -> None:
    for name, protocol in (("icmp-echo", 1), ("tcp-syn-22", 6), ("dns-query", 17), ("jumbo", 17)):
        frame = MADE[name]
        assert frame[12:14] == b"\x08\x00"
        packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        assert len(packet) == len(frame) - 14 or len(frame) == 60
        assert packet[9] == protocol
        assert total(packet[:20]) == 0xFFFF
        body = packet[20:]
        pseudo = packet[12:20] + struct.pack("!HH", protocol, len(body))
        assert total(body if protocol == 1 else pseudo + body) == 0xFFFF, name
    assert MADE["icmp-echo"][34] == 8
    assert MADE["tcp-syn-22"][36:38] == (22).to_bytes(2, "big")
    assert MADE["tcp-syn-22"][47] == 2, "SYN alone"
    assert MADE["dns-query"][36:38] == (53).to_bytes(2, "big")
    assert b"\7example\3com\0" in MADE["dns-query"]


def test_arp_and_ipv6() -> None:
    assert MADE["arp"][:6] == b"\xff" * 6
    assert MADE["arp"][12:22] == bytes.fromhex("0806 0001 0800 06 04 0001")
    frame = MADE["ipv6-nd"]
    assert frame[12:14] == b"\x86\xdd"
    assert (frame[20], frame[54]) == (58, 135)
    assert int.from_bytes(frame[18:20], "big") == len(frame) - 54
    pseudo = frame[22:54] + struct.pack("!II", len(frame) - 54, 58)
    assert total(pseudo + frame[54:]) == 0xFFFF


def test_packets_by_hand() -> None:
    packet = frames.from_hex("ff:ff 00 01ab", 3)
    assert (packet.name, packet.data) == ("packet-3", b"\xff\xff\x00\x01\xab")
    with pytest.raises(UsageError, match="packet 2 is not hexadecimal"):
        frames.from_hex("0x12", 2)
