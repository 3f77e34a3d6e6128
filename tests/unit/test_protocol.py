"""xdpctl.protocol: libxdp's configuration record, byte by byte."""

from __future__ import annotations

import random
import struct

import pytest

from tests.unit.samples import DROP, PASS, fresh
from xdpctl.protocol import Config

FRAGS = 1 << 5


def config(count: int, protocol: int = 2, *, frags: bool = False) -> Config:
    """A record with a distinct value in every place."""
    return Config(
        protocol=protocol,
        frags=frags,
        actions=tuple(1 << slot % 5 for slot in range(count)),
        priorities=tuple(1000 + slot for slot in range(count)),
        flags=tuple(FRAGS * (slot % 2) for slot in range(count)),
    )


def words(record: bytes, offset: int) -> list[int]:
    return list(struct.unpack_from("=10I", record, offset))


@pytest.mark.parametrize("frags", [False, True])
@pytest.mark.parametrize("count", range(11))
def test_protocol_2_has_every_value_at_its_offset(count: int, frags: bool) -> None:
    written = config(count, frags=frags)
    record = written.pack()
    rest = [0] * (10 - count)
    assert len(record) == 124
    assert list(record[:4]) == [236, 2, count, frags]
    assert words(record, 4) == [mask | 1 << 31 for mask in written.actions] + rest
    assert words(record, 44) == [*written.priorities, *rest]
    assert words(record, 84) == [*written.flags, *rest]
    assert Config.unpack(record) == written


def test_bit_31_is_written_and_not_read() -> None:
    bare = Config(2, False, (0,), (50,), (0,))
    assert words(bare.pack(), 4)[0] == 0x80000000
    assert Config.unpack(bare.pack()) == bare


def test_the_record_of_members() -> None:
    members = [
        fresh("a", priority=0, actions=DROP, frags=True),
        fresh("b", priority=2**32 - 1, actions=0),
    ]
    record = Config.of(members).pack()
    assert list(record[:4]) == [236, 2, 2, 0]  # frags only where every member has them
    assert words(record, 4)[:3] == [0x80000002, 0x80000000, 0]
    assert words(record, 44)[:3] == [0, 2**32 - 1, 0]
    assert words(record, 84)[:3] == [FRAGS, 0, 0]
    assert Config.of(members[:1]).pack()[3] == 1


def by_hand(protocol: int, count: int, actions: int, *, frags: int = 0) -> bytes:
    """A record as libxdp of that protocol writes it."""
    tables = struct.pack("=10I10I", *[actions | 1 << 31] * 10, *range(70, 80))
    if protocol == 1:
        return bytes([count, 0, 0, 0]) + tables
    tables += struct.pack("=10I", *[FRAGS] * 10)
    devbound = bytes(4) if protocol == 3 else b""
    return bytes([236, protocol, count, frags]) + tables + devbound


@pytest.mark.parametrize(
    ("protocol", "size", "flags"), [(1, 84, 0), (2, 124, FRAGS), (3, 128, FRAGS)]
)
def test_every_protocol_is_read(protocol: int, size: int, flags: int) -> None:
    record = by_hand(protocol, 3, PASS | DROP)
    assert len(record) == size
    read = Config.unpack(record)
    assert read == Config(protocol, False, (6, 6, 6), (70, 71, 72), (flags,) * 3)
    # Readers take a map that is larger than they know.
    assert Config.unpack(record + bytes(4)) == read
    assert Config.unpack(record[:-5]) is None


def test_the_frags_byte_of_newer_protocols() -> None:
    for protocol, expected in ((1, False), (2, True), (3, True)):
        read = Config.unpack(by_hand(protocol, 1, PASS, frags=1))
        assert read is not None
        assert read.frags is expected


@pytest.mark.parametrize("protocol", [0, 1, 4, 255])
def test_other_protocols_behind_the_magic_are_not_read(protocol: int) -> None:
    assert Config.unpack(bytes([236, protocol, 1, 0]) + bytes(124)) is None


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_ten_programs_are_read_and_eleven_are_not(protocol: int) -> None:
    ten = Config.unpack(by_hand(protocol, 10, PASS))
    assert ten is not None
    assert ten.priorities == tuple(range(70, 80))
    assert Config.unpack(by_hand(protocol, 11, PASS)) is None


@pytest.mark.parametrize("seed", range(20))
def test_garbage_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        record = bytearray(chance.randbytes(chance.choice((0, 1, 83, 84, 123, 124, 128, 300))))
        if record and chance.random() < 0.7:
            record[:3] = bytes([236, chance.choice((1, 2, 3)), chance.randrange(13)])[: len(record)]
        read = Config.unpack(bytes(record))
        if read is not None:
            assert len(read.actions) == len(read.priorities) == len(read.flags) <= 10
            assert not any(mask >> 31 for mask in read.actions)
