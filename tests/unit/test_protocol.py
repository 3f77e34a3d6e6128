"""xdpctl.model.record: libxdp's configuration record and those of our own, byte by byte."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from tests.unit.samples import DROP, PASS, fresh
from xdpctl.model.record import Config, root_name

FRAGS, DEVBOUND = 1 << 5, 1 << 6


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


@pytest.mark.parametrize("devbound", [False, True])
@pytest.mark.parametrize("frags", [False, True])
@pytest.mark.parametrize("count", range(11))
def test_protocol_3_has_every_value_at_its_offset(count: int, frags: bool, devbound: bool) -> None:
    """As protocol 2, a byte behind it, and what makes it whole words."""
    written = replace(config(count, 3, frags=frags), devbound=devbound)
    record = written.pack()
    assert len(record) == 128
    assert list(record[:4]) == [236, 3, count, frags]
    assert record[4:124] == config(count).pack()[4:]
    assert list(record[124:]) == [devbound, 0, 0, 0]
    assert Config.unpack(record) == written


@pytest.mark.parametrize("count", range(11))
def test_protocol_1_has_every_value_at_its_offset(count: int) -> None:
    """No magic, and no place for what a program was loaded with."""
    written = replace(config(count, 1, frags=True), devbound=True)
    record = written.pack()
    assert len(record) == 84
    assert list(record[:4]) == [count, 0, 0, 0]
    assert record[4:84] == config(count).pack()[4:84]
    assert Config.unpack(record) == replace(config(count, 1), flags=(0,) * count)


@pytest.mark.parametrize(("protocol", "size"), [(1, 84), (2, 124), (3, 128)])
def test_what_is_cut_short_is_no_record(protocol: int, size: int) -> None:
    record = config(10, protocol).pack()
    assert len(record) == size
    for length in range(size):
        assert Config.unpack(record[:length]) is None, length


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_the_record_of_members_of_each_protocol(protocol: int) -> None:
    whole = [fresh("a", frags=True, devbound=True), fresh("b", frags=True, devbound=True)]
    found = Config.of(whole, protocol)
    assert (found.protocol, found.frags, found.devbound) == (protocol, protocol != 1, True)
    assert found.flags == (FRAGS | DEVBOUND,) * 2
    read = Config.unpack(found.pack())
    assert read is not None
    # Protocol 2 keeps each program's flag; that the root has it, too, stands in 3 alone.
    assert read.devbound is (protocol == 3)
    assert read.flags == ((0, 0) if protocol == 1 else found.flags)
    mixed = Config.of([*whole, fresh("c")], protocol)
    assert (mixed.frags, mixed.devbound) == (False, True)
    assert mixed.flags == (FRAGS | DEVBOUND, FRAGS | DEVBOUND, 0)


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


# --- a fused root's -----------------------------------------------------------------------------


def fused_config(count: int, *, frags: bool = False, why: int = 0) -> Config:
    """A record with a distinct value in every place."""
    return replace(
        config(count, 0, frags=frags),
        actions=tuple(1 << slot % 32 for slot in range(count)),
        programs=tuple(2000 + slot for slot in range(count)),
        arrays=tuple(3000 + slot if slot % 3 else 0 for slot in range(count)),
        why=why,
    )


@pytest.mark.parametrize("count", [0, 1, 10, 11, 200])
@pytest.mark.parametrize(("frags", "why"), [(False, 0), (True, 95)])
def test_a_fused_record_has_every_value_at_its_offset(count: int, frags: bool, why: int) -> None:
    written = fused_config(count, frags=frags, why=why)
    record = written.pack_fused()
    assert len(record) == 16 + 20 * count
    assert struct.unpack_from("=4sHHII", record) == (b"xdpf", 1, count, frags, why)
    for slot in range(count):
        assert struct.unpack_from("=5I", record, 16 + 20 * slot) == (
            *(2000 + slot, 1 << slot % 32, 1000 + slot),
            *(FRAGS * (slot % 2), 3000 + slot if slot % 3 else 0),
        )
    assert Config.unpack_fused(record) == written


def test_each_kind_reads_its_own_record_alone() -> None:
    """Bit 31 is no part of our own masks: nothing else reads them."""
    fused = fused_config(2)
    assert struct.unpack_from("=I", fused.pack_fused(), 20) == (fused.actions[0],)
    assert Config.unpack_fused(config(2).pack()) is None
    for count in (0, 2, 10, 11, 200):
        record = fused_config(count).pack_fused()
        assert Config.unpack(record) is Config.unpack_wide(record) is None
    for count in (11, 200):
        record = config(count).pack()
        assert Config.unpack(record) is Config.unpack_fused(record) is None
    assert Config.unpack_wide(config(10).pack()) is None


def test_what_is_no_whole_fused_record_is_none() -> None:
    record = fused_config(3).pack_fused()
    for length in range(len(record)):
        assert Config.unpack_fused(record[:length]) is None, length
    assert Config.unpack_fused(record + bytes(20)) is None
    # Another magic, a later version, and a count that is not that of the slots behind it.
    numbers = [(4, 2), (4, 1 + 256), (6, 2), (6, 3 + 256)]
    for place, value in [(0, b"X"), *((at, struct.pack("=H", one)) for at, one in numbers)]:
        changed = record[:place] + value + record[place + len(value) :]
        assert Config.unpack_fused(changed) is None, place


@pytest.mark.parametrize("seed", range(10))
def test_garbage_is_no_fused_record(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        count = chance.randrange(5)
        head = struct.pack("=4sHHII", b"xdpf", 1, count, chance.getrandbits(32), 0)
        record = head + chance.randbytes(chance.choice((20 * count, chance.randrange(100))))
        read = Config.unpack_fused(record)
        assert (read is not None) == (len(record) == 16 + 20 * count)
        if read is not None:
            assert len(read.programs) == len(read.arrays) == len(read.actions) == count
            assert read.protocol == 0


# --- a wide dispatcher's ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [11, 12, 200])
@pytest.mark.parametrize(("frags", "protocol"), [(False, 1), (True, 2), (False, 3)])
def test_a_wide_record_has_every_value_at_its_offset(
    count: int, frags: bool, protocol: int
) -> None:
    """The protocol is the one that the chain has while it is short: libxdp's tools read nothing."""
    written = config(count, protocol, frags=frags)
    record = written.pack()
    assert len(record) == 16 + 12 * count
    assert struct.unpack_from("=4sHHII", record) == (b"xdpw", 1, count, frags, protocol)
    for slot in range(count):
        line = 1 << slot % 5, 1000 + slot, FRAGS * (slot % 2)
        assert struct.unpack_from("=3I", record, 16 + 12 * slot) == line
    assert Config.unpack_wide(record) == written
    assert (written.libxdp, written.protocol) == (0, protocol)
    assert config(10, protocol).libxdp == protocol


@pytest.mark.parametrize("devbound", [False, True])
def test_what_members_of_a_wide_dispatcher_were_loaded_with(devbound: bool) -> None:
    members = [fresh(f"m{slot}", frags=slot != 4, devbound=devbound) for slot in range(11)]
    found = Config.of(members)
    assert (found.frags, found.devbound) == (False, devbound)
    assert Config.unpack_wide(found.pack()) == found
    assert Config.of([*members[:4], *members[5:], fresh("n", frags=True)]).frags


def test_what_is_no_whole_wide_record_is_none() -> None:
    record = config(11).pack()
    for length in range(len(record)):
        assert Config.unpack_wide(record[:length]) is None, length
    assert Config.unpack_wide(record + bytes(12)) is None
    changes = [(0, b"X"), (3, b"f")]
    changes += [(at, struct.pack("=H", one)) for at, one in ((4, 2), (6, 10), (6, 11 + 256))]
    changes += [(12, struct.pack("=I", protocol)) for protocol in (0, 4, 2 + 65536)]
    for place, value in changes:
        changed = record[:place] + value + record[place + len(value) :]
        assert Config.unpack_wide(changed) is None, place
    # One that is not wide: nobody writes it so.
    assert Config.unpack_wide(record[:6] + struct.pack("=H", 10) + record[8:-12]) is None


def test_the_names_of_dispatchers() -> None:
    assert {root_name(count) for count in range(1, 11)} == {"xdp_dispatcher"}
    assert {root_name(count) for count in range(11, 201)} == {"xdpctl_wide"}
