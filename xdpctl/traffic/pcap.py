"""Files of captured packets: classic pcap in all its forms, and pcapng for reading."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import BadObjectError, NotFoundError, UsageError

_ETHERNET = 1
_LARGEST = 256 << 10
"""libpcap's MAXIMUM_SNAPLEN: a longer packet means that the file is broken."""

# Magic numbers of classic pcap, as they stand in the file: byte order, ns in a unit of time.
_MAGIC = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6


class Packet(NamedTuple):
    """A packet from the Ethernet header on; `time` in ns since 1970, `whole` its length as sent."""

    name: str
    data: bytes
    time: int = 0
    whole: int = 0

    @property
    def is_cut(self) -> bool:
        return self.whole > len(self.data)


class _Broken(Exception):  # noqa: N818 - becomes an error that names the file
    """What is wrong with a file."""


def read(path: str) -> list[Packet]:
    """All packets of a file. Raises NotFoundError or BadObjectError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except OSError as error:
        raise BadObjectError(f"cannot read {path}", why=os.strerror(error.errno or 0)) from error
    try:
        return [
            one._replace(name=f"{path}:{number}") for number, one in enumerate(_packets(data), 1)
        ]
    except _Broken as broken:
        raise BadObjectError(
            f"{path} is not a usable capture",
            why=str(broken),
            hint="a pcap or pcapng file of Ethernet frames is needed, as tcpdump -w writes it",
        ) from broken


def _packets(data: bytes) -> Iterator[Packet]:
    if data[:4] in _MAGIC:
        return _classic(data)
    if data[:4] == _SECTION:
        return _next_generation(data)
    raise _Broken("it is empty" if not data else "it begins with none of pcap's magic numbers")


def _unpack(form: str, data: bytes, offset: int, what: str) -> tuple[int, ...]:
    if offset + struct.calcsize(form) > len(data):
        raise _Broken(f"it ends within {what}, at byte {len(data)}")
    return struct.unpack_from(form, data, offset)


def _check_link(link: int) -> None:
    if link != _ETHERNET:
        raise _Broken(f"its link type is {link}, and not Ethernet ({_ETHERNET})")


def _body(data: bytes, offset: int, size: int, end: int, number: int) -> bytes:
    if size > _LARGEST:
        raise _Broken(f"packet {number} claims to have {size} bytes")
    if offset + size > end:
        raise _Broken(f"it ends within packet {number}, at byte {end}")
    return data[offset : offset + size]


def _classic(data: bytes) -> Iterator[Packet]:
    order, unit = _MAGIC[data[:4]]
    *_version, link = _unpack(order + "4xHH4x4xII", data, 0, "the file's header")
    _check_link(link & 0xFFFF)  # above are flags
    offset, number = 24, 0
    while offset < len(data):
        number += 1
        seconds, parts, size, whole = _unpack(
            order + "4I", data, offset, f"the header of packet {number}"
        )
        body = _body(data, offset + 16, size, len(data), number)
        yield Packet("", body, seconds * 10**9 + parts * unit, whole)
        offset += 16 + size


def _next_generation(data: bytes) -> Iterator[Packet]:
    """Sections of blocks: type, length, body, length again (draft-ietf-opsawg-pcapng)."""
    order, units = "<", list[int]()
    offset, number = 0, 0
    while offset < len(data):
        if data[offset : offset + 4] == _SECTION:
            orders = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
            if data[offset + 8 : offset + 12] not in orders:
                raise _Broken(f"the section at byte {offset} has no byte order")
            order, units = orders[data[offset + 8 : offset + 12]], []
        kind, size = _unpack(order + "II", data, offset, "a block's header")
        if size < 12 or size % 4 or offset + size > len(data):
            raise _Broken(f"the block at byte {offset} claims to have {size} bytes")
        end, start = offset + size - 4, offset + 8
        body = data[:end]
        if kind == _INTERFACE:
            link, _snap = _unpack(order + "H2xI", body, start, "an interface's description")
            _check_link(link)
            units.append(_resolution(order, data[start + 8 : end]))
        elif kind in (_ENHANCED, _SIMPLE):
            number += 1
            what = f"the header of packet {number}"
            if kind == _ENHANCED:
                source, high, low, size_in, whole = _unpack(order + "5I", body, start, what)
                start += 20
            else:
                (whole,) = _unpack(order + "I", body, start, what)
                source, high, low, size_in = 0, 0, 0, min(whole, end - start - 4)
                start += 4
            if source >= len(units):
                raise _Broken(f"packet {number} is of an interface that is not described")
            time = (high << 32 | low) * 10**9 // units[source]
            yield Packet("", _body(data, start, size_in, end, number), time, whole)
        offset += size


def _resolution(order: str, options: bytes) -> int:
    """Units of time in a second, by the option if_tsresol; microseconds if it is not there."""
    offset = 0
    while offset + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, offset)
        if code == 9 and size == 1 and offset + 4 < len(options):
            value = options[offset + 4]
            return int(2 ** (value & 0x7F) if value & 0x80 else 10**value)
        offset += 4 + -(-size // 4) * 4
    return 10**6


def write(path: str, packets: Iterable[Packet]) -> None:
    """Write a pcap file with times in ns. Raises UsageError."""
    try:
        with open(path, "wb") as file:
            file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _LARGEST, _ETHERNET))
            for one in packets:
                seconds, parts = divmod(one.time, 10**9)
                size = len(one.data)
                file.write(struct.pack("=4I", seconds & 0xFFFFFFFF, parts, size, size) + one.data)
    except OSError as error:
        raise UsageError(f"cannot write {path}", why=os.strerror(error.errno or 0)) from error
