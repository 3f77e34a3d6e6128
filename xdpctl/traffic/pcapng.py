"""Packets with comments, as Wireshark and tcpdump read them: pcapng, the parts that serve here.

https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..host.text import printable

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _UNKNOWN_LENGTH = 0x1A2B3C4D, -1
_ETHERNET = 1
_COMMENT, _APPLICATION, _NAME, _RESOLUTION, _VERDICT = 1, 4, 2, 9, 7
_NANOSECONDS, _XDP = bytes([9]), bytes([2])


def head(application: str, interfaces: Sequence[str], snap: int) -> bytes:
    """What a file begins with: who writes it, and the interfaces that packets are of."""
    section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    device = struct.pack("=HHI", _ETHERNET, 0, snap)
    blocks = [_block(_SECTION, section + _options((_APPLICATION, application.encode())))]
    for name in interfaces:
        options = _options((_NAME, _text(name)), (_RESOLUTION, _NANOSECONDS))
        blocks.append(_block(_INTERFACE, device + options))
    return b"".join(blocks)


def packet(
    interface: int, nanoseconds: int, data: bytes, length: int, comment: str, verdict: int
) -> bytes:
    """A packet, or the beginning of one of this length; the time is since 1970.

    `interface` is the place of its interface among those of the head, from 0 on.
    """
    fixed = struct.pack(
        "=IIIII", interface, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(data), length
    )
    options = _options((_COMMENT, _text(comment)), (_VERDICT, _XDP + struct.pack("=Q", verdict)))
    return _block(_PACKET, fixed + _padded(data) + options)


def _text(text: str) -> bytes:
    """A string of the format, which is UTF-8."""
    return printable(text, keep="\n").encode()


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def _options(*options: tuple[int, bytes]) -> bytes:
    found = (struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return b"".join(found) + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
