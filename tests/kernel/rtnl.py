"""Interfaces by rtnetlink(7), in this process: one of ip(8) takes 75 ms in an emulated guest.

It shares no code with the product. Numbers are those of linux/rtnetlink.h and linux/if_link.h.
Each raises OSError with the kernel's code. All are about the current network namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR = 2
_ADDRESS, _IFNAME, _MTU, _LINKINFO, _AF_SPEC, _TX_QUEUES, _RX_QUEUES, _XDP = (
    1, 3, 4, 18, 26, 31, 32, 43,
)  # fmt: skip
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_UP, _NOARP = 0x1, 0x80
_XDP_ATTACHED, _XDP_PROG_ID = 2, 4
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, which of the flags to change


def add_veth(dev: str, peer: str, *, ifindex: int = 0, queues: int | None = None) -> None:
    """Make a pair; `ifindex` is that of `dev`, 0: the kernel chooses."""
    many = [_number(one, queues) for one in (_TX_QUEUES, _RX_QUEUES) if queues]
    other = _IFINFO.pack(0, 0, 0, 0, 0) + _join(_name(peer), *many)
    data = _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
    info = _attribute(_LINKINFO, _attribute(_INFO_KIND, b"veth\0") + data)
    _ask(_NEWLINK, _ACK | _CREATE | _EXCL, ifindex, _join(_name(dev), *many, info))


def set_up(name: str, address: bytes = b"", mtu: int | None = None, *, quiet: bool = False) -> None:
    """Set a link up; `quiet`: without ARP, and without an IPv6 address of its own."""
    wanted = [_attribute(_ADDRESS, address)] if address else []
    wanted += [_number(_MTU, mtu)] if mtu else []
    flags = _UP
    if quiet:
        flags |= _NOARP
        mode = _attribute(_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
        wanted.append(_attribute(_AF_SPEC, _attribute(socket.AF_INET6, mode)))
    _ask(_NEWLINK, _ACK, 0, _join(_name(name), *wanted), flags)


def delete(name: str) -> None:
    """Delete a link, and its peer."""
    _ask(_DELLINK, _ACK, 0, _name(name))


def xdp(ifindex: int) -> tuple[int, int]:
    """(id of the XDP program, how it is attached): (0, 0) without one.

    How: XDP_ATTACHED_* of linux/if_link.h, 1 native, 2 skb, 3 hw. Several at once are not told.
    """
    answer = _ask(_GETLINK, 0, ifindex)
    found = dict(_attributes(answer[_IFINFO.size :])).get(_XDP, b"")
    facts = dict(_attributes(found))
    attached, program = facts.get(_XDP_ATTACHED, b"\0")[0], facts.get(_XDP_PROG_ID, bytes(4))
    return struct.unpack("=I", program)[0], attached


def _ask(kind: int, flags: int, ifindex: int, attributes: bytes = b"", state: int = 0) -> bytes:
    """Send a request about one link; the answer without its header."""
    body = _IFINFO.pack(0, 0, ifindex, state, state) + attributes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as s:
        s.bind((0, 0))
        s.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body)
        answer = s.recv(1 << 16)
    if struct.unpack_from("=4xH", answer)[0] == _ERROR:
        (code,) = struct.unpack_from("=i", answer, 16)
        if code:
            raise OSError(-code, os.strerror(-code))
    return answer[16:]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _name(name: str) -> bytes:
    return _attribute(_IFNAME, os.fsencode(name) + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _join(*attributes: bytes) -> bytes:
    return b"".join(attributes)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[(size + 3) & ~3 :]
