"""xdpctl.roots.count_code: what the instructions do to a row, run by a small interpreter."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.unit.machine import Machine, Pointer, insn
from xdpctl.kernel import asm, uapi
from xdpctl.kernel.asm import LD_IMM64, Code
from xdpctl.model.chain import VACANT
from xdpctl.roots import count_code
from xdpctl.roots.count_code import ROW_SIZE, SHORT_ROW_SIZE, Counted, Counter, Mask

COUNTER = Counter(40, 3)


class Row:
    """A row in the third place of a map, and a clock that goes on by 10 at each look."""

    def __init__(self) -> None:
        self.memory = bytearray(4 * ROW_SIZE)
        self.times: Iterator[int] = itertools.count(1000, 10)
        self.looks = 0
        self.masks = bytearray(4 * count_code.MASK_SIZE)

    def machine(self, code: bytes | Code) -> Machine:
        code = code if isinstance(code, bytes) else asm.assemble(code)
        calls: dict[int, Callable[..., object]] = {
            uapi.BPF_FUNC_map_lookup_elem: self._lookup,
            uapi.BPF_FUNC_ktime_get_ns: self._clock,
        }
        return Machine(code, {41: self.masks}, calls)

    def _lookup(self, found: object, key: Pointer, *_rest: object) -> Pointer | int:
        assert found == ("map", 40)
        (row,) = struct.unpack_from("=I", key.memory, key.offset)
        return Pointer(self.memory, row * ROW_SIZE) if row < 4 else 0

    def _clock(self, *_arguments: object) -> int:
        self.looks += 1
        return next(self.times)

    @property
    def counted(self) -> Counted:
        return Counted.of(bytes(self.memory[3 * ROW_SIZE :]))


def once(row: Row, verdict: int, mask: Mask) -> dict[str, object]:
    """A packet through a fused root's slot."""
    found = row.machine(count_code.enter(COUNTER)).run()
    return row.machine(count_code.leave(mask)).run(r7=found["r7"], r8=verdict)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("codes", [0, 1 << 2, 1 << 2 | 1 << 1, 1 << 2 | 1 << VACANT, (1 << 32) - 1])
@pytest.mark.parametrize("verdict", [0, 1, 2, 3, 4, 5, 30, 31, 32, 33, 63, 64, 200, 2**32 - 1])
def test_each_verdict_has_its_cell(verdict: int, codes: int, last: bool) -> None:
    row = Row()
    once(row, verdict, Mask(codes, last))
    goes_on = verdict < 32 and bool(codes >> verdict & 1)
    fate = (2 if last else 1) if goes_on else 0
    cells = [[0] * 3 for _ in range(6)]
    cells[min(verdict, 5)][fate] = 1
    assert row.counted.cells == tuple(map(tuple, cells))
    assert not any(row.memory[: 3 * ROW_SIZE])
    assert (row.counted.packets, row.counted.at_end) == (1, int(fate == 2))


def test_the_first_of_64_packets_is_timed() -> None:
    row = Row()
    for _ in range(130):
        once(row, 2, Mask(0, last=True))
    assert (row.counted.timed, row.counted.ns, row.looks) == (3, 30, 6)
    assert row.counted.mean_ns == 10
    assert Counted.of(bytes(ROW_SIZE)).mean_ns is None


def test_all_cpus_are_summed_up() -> None:
    rows = struct.pack("=23Q", *range(23)) + struct.pack("=23Q", *[1000] * 23)
    counted = Counted.of(rows)
    assert (counted.ns, counted.timed) == (1002, 1003)
    assert counted.cells[0] == (1004, 1005, 1006)
    assert counted.cells[5] == (1019, 1020, 1021)
    assert counted.last_words == tuple(range(1004, 1020, 3))
    assert counted.verdicts[0] == 3015
    assert counted.total_bytes == 1022


def test_the_verdict_is_left_alone_and_no_row_counts_nothing() -> None:
    row = Row()
    assert once(row, 3, Mask(0, last=False))["r8"] == 3
    machine = row.machine(count_code.enter(Counter(40, 9)))
    assert machine.run()["r7"] == 0
    row.machine(count_code.leave(Mask(0, last=False))).run(r7=0, r8=3)
    assert row.counted.packets == 1


@pytest.mark.parametrize(("mask", "cell"), [((4, 0), 1), ((4, 1), 2), ((0, 0), 0)])
def test_tracing_programs_read_the_mask_of_their_row(mask: tuple[int, int], cell: int) -> None:
    row = Row()
    codes, last = mask
    struct.pack_into("=QQ", row.masks, 3 * count_code.MASK_SIZE, 9, last << 32 | codes)
    arguments = bytearray(16)
    struct.pack_into("=Q", arguments, 8, 0xFFFFFFFF_00000002)  # only the low half is the verdict
    packet = bytearray(struct.pack("=QQ", 0x1000, 0x1000 + 98))
    struct.pack_into("=Q", arguments, 0, 0xAA)
    entry = row.machine(count_code.observer_entry(COUNTER))
    entry.addresses[0xAA] = Pointer(packet, 0)
    assert entry.run(r1=Pointer(arguments, 0))["r0"] == 0
    done = row.machine(count_code.observer_exit(COUNTER, 41)).run(r1=Pointer(arguments, 0))
    assert done["r0"] == 0
    assert row.counted.cells[2][cell] == row.counted.packets == 1
    assert (row.counted.timed, row.counted.total_bytes) == (1, 98)


@pytest.mark.parametrize("frags", [False, True])
def test_the_bytes_of_packets_are_added_up(frags: bool) -> None:
    """Of those in one piece the distance, else what the kernel says."""
    row, context = Row(), Pointer(bytearray(struct.pack("=II", 500, 564)), 0)
    size = count_code.size_of([asm.mov64(asm.R1, asm.R6)], 0, 4, frags=frags)
    for _ in range(3):
        machine = row.machine(count_code.enter(COUNTER, size))
        machine.calls = {**machine.calls, uapi.BPF_FUNC_xdp_get_buff_len: lambda *_rest: 9000}
        machine.run(r6=context)
    assert row.counted.total_bytes == 3 * (9000 if frags else 64)


def test_a_row_without_room_for_bytes_is_not_written_beyond() -> None:
    """It is of xdpctl 0.1, and the row of the next program begins there."""
    size = count_code.size_of([asm.mov64(asm.R1, asm.R6)], 0, 4, frags=False)
    short = replace(COUNTER, bytes=False)
    assert asm.assemble(count_code.enter(short, size)) == asm.assemble(count_code.enter(short))
    counted = Counted.of(struct.pack("=22Q", *range(22)), SHORT_ROW_SIZE)
    assert (counted.cells[5], counted.total_bytes) == ((19, 20, 21), 0)


def test_maps_are_named_by_id() -> None:
    assert insn(LD_IMM64, dst=1, src=1, imm=40) in asm.assemble(count_code.enter(COUNTER))
