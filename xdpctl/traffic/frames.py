"""Packets for a trial, where nobody gives any: one of each kind that chains are known to trip over.

Addresses are of the ranges for documentation (RFC 5737, RFC 3849), hardware addresses locally
administered.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from ..errors import UsageError
from .pcap import Packet

_HERE, _THERE = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
_EVERYBODY = b"\xff" * 6
_IP, _PEER = "192.0.2.1", "192.0.2.2"
_IP6, _PEER6 = "2001:db8::1", "2001:db8::2"
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_SHORTEST = 60
"""Bytes of the shortest frame, without its checksum: what is shorter is padded."""


def builtin() -> list[Packet]:
    """ARP, ICMP echo, TCP SYN to port 22, DNS query, IPv6 neighbour, a jumbo frame and runts.

    Runts end behind the Ethernet header, the least that kernels run, in the IPv4 header and in the
    TCP header: where a program finds less than it wants to look at.
    """
    arp = (
        struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + _THERE + _packed(_PEER) + bytes(6) + _packed(_IP)
    )
    echo = _with_sum(struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(range(56)), b"", 2)
    query = (
        struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\7example\3com\0" + struct.pack("!HH", 1, 1)
    )
    multicast = "ff02::1:ff00:1"
    solicit = struct.pack("!BBHI", 135, 0, 0, 0) + _packed(_IP6) + b"\1\1" + _THERE
    neighbour = _ipv6(58, _with_sum(solicit, _pseudo6(58, len(solicit), multicast), 2), multicast)
    syn = _frame(_IPV4, _ipv4(6, _tcp_syn(22)))
    made = {
        "arp": _frame(_ARP, arp, _EVERYBODY),
        "icmp-echo": _frame(_IPV4, _ipv4(1, echo)),
        "tcp-syn-22": syn,
        "dns-query": _frame(_IPV4, _ipv4(17, _udp(53, query))),
        "ipv6-nd": _frame(_IPV6, neighbour, b"\x33\x33" + _packed(multicast)[-4:]),
        "jumbo": _frame(_IPV4, _ipv4(17, _udp(9, bytes(9000 - 28)))),
        "runt-ethernet": syn[:14],
        "runt-ipv4": syn[: 14 + 12],
        "runt-tcp": syn[: 14 + 20 + 8],
    }
    return [Packet(name, data, 0, len(data)) for name, data in made.items()]


def from_hex(text: str, number: int) -> Packet:
    """A packet that is given in hexadecimal. Raises UsageError."""
    try:
        data = bytes.fromhex(text.replace(":", " "))
    except ValueError as error:
        raise UsageError(
            f"packet {number} is not hexadecimal",
            why=str(error),
            hint="two digits a byte, from the Ethernet header on; blanks and colons may separate",
        ) from error
    return Packet(f"packet-{number}", data, 0, len(data))


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _frame(kind: int, body: bytes, destination: bytes = _HERE) -> bytes:
    frame = destination + _THERE + struct.pack("!H", kind) + body
    return frame.ljust(_SHORTEST, b"\0")


def _with_sum(data: bytes, pseudo: bytes, place: int) -> bytes:
    """The data with the internet checksum of itself and a pseudo header in its place."""
    text = pseudo + data + bytes(len(pseudo + data) % 2)
    total = sum(struct.unpack(f"!{len(text) // 2}H", text))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:place] + struct.pack("!H", ~total & 0xFFFF) + data[place + 2 :]


def _ipv4(protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, 64, protocol, 0)
    return _with_sum(head + _packed(_PEER) + _packed(_IP), b"", 10) + body


def _ipv6(protocol: int, body: bytes, destination: str) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
    return head + _packed(_PEER6) + _packed(destination) + body


def _pseudo4(protocol: int, length: int) -> bytes:
    return _packed(_PEER) + _packed(_IP) + struct.pack("!HH", protocol, length)


def _pseudo6(protocol: int, length: int, destination: str) -> bytes:
    return _packed(_PEER6) + _packed(destination) + struct.pack("!II", length, protocol)


def _tcp_syn(port: int) -> bytes:
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 64240, 0, 0)
    return _with_sum(segment, _pseudo4(6, len(segment)), 16)


def _udp(port: int, body: bytes) -> bytes:
    datagram = struct.pack("!HHHH", 40000, port, 8 + len(body), 0) + body
    return _with_sum(datagram, _pseudo4(17, len(datagram)), 6)
