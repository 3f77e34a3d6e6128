"""Files of captured packets: classic pcap in all its forms, and pcapng for reading."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from ..errors import BadObjectError, UsageError
from ..host import files

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
_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_LARGEST_BLOCK = _LARGEST + (1 << 20)
"""Of a packet with its options, and of an interface's description."""
_INTERFACES = 1 << 16
_AT_ONCE = 1 << 20


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
    """All packets of a file that is small, in memory. Raises as `packets` does."""
    return list(packets(path))


def packets(path: str, *, or_input: bool = False) -> Iterator[Packet]:
    """The packets of a file, one by one as they are read; for ``-`` of standard input if it may be.

    No more than one block of the file is in memory. Raises NotFoundError; BadObjectError, where the
    file is broken also after packets that are whole.
    """
    with files.opened(path, or_input=or_input) as file:
        try:
            for number, one in enumerate(_packets(_Input(file)), 1):
                yield one._replace(name=f"{path}:{number}")
        except _Broken as broken:
            raise BadObjectError(
                f"{path} is not a usable capture",
                why=str(broken),
                hint="a pcap or pcapng file of Ethernet frames is needed, as tcpdump -w writes it",
            ) from broken


class _Input:
    """A file that is read from its beginning on; `offset` is how many bytes of it were taken."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0

    def take(self, size: int) -> bytes:
        """The next bytes: fewer at the end of the file."""
        found = self._file.read(size)
        self.offset += len(found)
        return found

    def all(self, size: int, what: str) -> bytes:
        """The next bytes, as many as they are to be."""
        found = self.take(size)
        if len(found) < size:
            raise _Broken(f"it ends within {what}, at byte {self.offset}")
        return found

    def skip(self, size: int, what: str) -> None:
        """Pass over bytes that are not looked at."""
        while size:
            size -= len(self.all(min(size, _AT_ONCE), what))


def _packets(file: _Input) -> Iterator[Packet]:
    magic = file.take(4)
    if magic in _MAGIC:
        return _classic(file, magic)
    if magic == _SECTION:
        return _next_generation(file, magic)
    raise _Broken("it is empty" if not magic else "it begins with none of pcap's magic numbers")


def _check_link(link: int) -> None:
    if link != _ETHERNET:
        raise _Broken(f"its link type is {link}, and not Ethernet ({_ETHERNET})")


def _check_size(size: int, number: int) -> None:
    if size > _LARGEST:
        raise _Broken(f"packet {number} claims to have {size} bytes")


def _classic(file: _Input, magic: bytes) -> Iterator[Packet]:
    order, unit = _MAGIC[magic]
    (link,) = struct.unpack(order + "16xI", file.all(20, "the file's header"))
    _check_link(link & 0xFFFF)  # above are flags
    header, number = struct.Struct(order + "4I"), 0
    while head := file.take(header.size):
        number += 1
        if len(head) < header.size:
            raise _Broken(f"it ends within the header of packet {number}, at byte {file.offset}")
        seconds, parts, size, whole = header.unpack(head)
        _check_size(size, number)
        body = file.all(size, f"packet {number}")
        yield Packet("", body, seconds * 10**9 + parts * unit, whole)


class _Blocks:
    """What a pcapng file said so far: its byte order, and each interface's unit of time."""

    def __init__(self) -> None:
        self.order = "<"
        self.units = list[int]()
        self.number = 0

    def describe(self, body: bytes) -> None:
        """An interface's description."""
        link, _snap = _unpack(self.order + "H2xI", body, "an interface's description")
        _check_link(link)
        self.units.append(_resolution(self.order, body[8:]))
        if len(self.units) > _INTERFACES:
            raise _Broken(f"a section describes more than {_INTERFACES} interfaces")

    def packet(self, kind: int, body: bytes) -> Packet:
        self.number += 1
        what = f"the header of packet {self.number}"
        if kind == _ENHANCED:
            source, high, low, size, whole = _unpack(self.order + "5I", body, what)
            start = 20
        else:
            (whole,) = _unpack(self.order + "I", body, what)
            source, high, low, size, start = 0, 0, 0, min(whole, len(body) - 4), 4
        if source >= len(self.units):
            raise _Broken(f"packet {self.number} is of an interface that is not described")
        _check_size(size, self.number)
        if start + size > len(body):
            raise _Broken(f"packet {self.number} ends within its block: it claims {size} bytes")
        time = (high << 32 | low) * 10**9 // self.units[source]
        return Packet("", body[start : start + size], time, whole)


def _next_generation(file: _Input, first: bytes) -> Iterator[Packet]:
    """Sections of blocks: type, length, body, length again (draft-ietf-opsawg-pcapng)."""
    blocks, begin = _Blocks(), first
    while begin:
        at = file.offset - len(begin)
        head = begin + file.all(8 - len(begin), "a block's header")
        read = 8
        if head[:4] == _SECTION:
            mark = file.all(4, "a block's header")
            if mark not in _ORDERS:
                raise _Broken(f"the section at byte {at} has no byte order")
            blocks.order, blocks.units = _ORDERS[mark], []
            read = 12
        kind, size = struct.unpack(blocks.order + "II", head)
        what = f"the block at byte {at}, which claims to have {size} bytes"
        if size < max(12, read + 4) or size % 4:
            raise _Broken(f"the block at byte {at} claims to have {size} bytes")
        if kind in (_INTERFACE, _ENHANCED, _SIMPLE):
            if size > _LARGEST_BLOCK:
                raise _Broken(f"the block at byte {at} claims to have {size} bytes")
            body = file.all(size - read, what)[:-4]
            if kind == _INTERFACE:
                blocks.describe(body)
            else:
                yield blocks.packet(kind, body)
        else:
            file.skip(size - read, what)
        begin = file.take(4)


def _unpack(form: str, data: bytes, what: str) -> tuple[int, ...]:
    if struct.calcsize(form) > len(data):
        raise _Broken(f"a block is too short for {what}")
    return struct.unpack_from(form, data)


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
