"""The code that counts: a few instructions before a program is called, and a few after it.

Both kinds of root count by it. A fused root has it around each call; of an EXT program two tracing
programs run it, one before and one behind (counting.py). What is counted goes into a row of a
per-CPU array: nothing is shared, and no instruction waits for another CPU.

A clock costs more than all of the rest, so that one packet in 64 is timed.
"""

from __future__ import annotations

import struct

from ..kernel import asm, uapi
from ..kernel.asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R10, Code, Reg, over
from ..value import Value

VERDICTS = 6
"""The five actions, and one for all other codes."""

FATES = 3
"""What came of a verdict: the last word, the next program, or no next program to go on to."""

_TICK, _START, _NS, _TIMED, _CELLS = 0, 8, 16, 24, 32
_BYTES = _CELLS + 8 * VERDICTS * FATES
_ROW = struct.Struct(f"={_BYTES // 8 + 1}Q")
ROW_SIZE = _ROW.size
SHORT_ROW_SIZE = _BYTES
"""What xdpctl 0.1 made: a row without bytes, which goes on until counting is switched off."""

_SHORT_ROW = struct.Struct(f"={_BYTES // 8}Q")
_EVERY = 64

ROW_AT, _VERDICT = R7, R8
"""Registers: where the row is, between the two pieces; and what the program answered."""

STACK = 4
"""Bytes of the stack that finding the row uses."""


class Counter(Value):
    """Where a program's packets are counted: the array's map id, the row, and if it has bytes."""

    map_id: int
    row: int
    bytes: bool = True


class Mask(Value):
    """What a program hands on after: a bit a return code; and whether there is no next program."""

    codes: int
    last: bool

    def pack(self) -> int:
        return self.codes | self.last << 32


class Counted(Value):
    """What was counted of a program, on all CPUs together.

    `cells` has a line a verdict, of what came of it; `ns` is of the `timed` packets alone.
    `total_bytes` are those that packets had when they came to the program, 0 if the row has no
    place for them.
    """

    ns: int
    timed: int
    cells: tuple[tuple[int, ...], ...]
    total_bytes: int = 0

    @classmethod
    def of(cls, rows: bytes, size: int = ROW_SIZE) -> Counted:
        """Sum up a row of a size as it is on each CPU."""
        row = _ROW if size == ROW_SIZE else _SHORT_ROW
        sums = [sum(values) for values in zip(*row.iter_unpack(rows), strict=True)]
        cells = sums[_CELLS // 8 : _BYTES // 8]
        lines = (tuple(cells[at : at + FATES]) for at in range(0, len(cells), FATES))
        return cls(sums[_NS // 8], sums[_TIMED // 8], tuple(lines), sum(sums[_BYTES // 8 :]))

    @property
    def packets(self) -> int:
        return sum(map(sum, self.cells))

    @property
    def known_bytes(self) -> int | None:
        """None if bytes are not counted."""
        return self.total_bytes if self.total_bytes or not self.packets else None

    @property
    def verdicts(self) -> tuple[int, ...]:
        return tuple(map(sum, self.cells))

    @property
    def last_words(self) -> tuple[int, ...]:
        return tuple(line[0] for line in self.cells)

    @property
    def at_end(self) -> int:
        """How many went past the last program."""
        return sum(line[2] for line in self.cells)

    @property
    def mean_ns(self) -> float | None:
        return self.ns / self.timed if self.timed else None


def enter(counter: Counter, size: Code | None = None) -> Code:
    """Before the program: find the row, and start the clock for one packet in so many.

    `size` leaves the packet's bytes in r1, and is for a row that has a place for them; without it
    none are counted. Uses STACK bytes of the stack; leaves r0 to r5 undefined.
    """
    clock = [asm.call_helper(uapi.BPF_FUNC_ktime_get_ns), asm.store64(ROW_AT, _START, R0)]
    tick = [
        asm.load64(R1, ROW_AT, _TICK),
        asm.mov64(R2, R1),
        asm.add64(R1, 1),
        asm.store64(ROW_AT, _TICK, R1),
        asm.and32(R2, _EVERY - 1),
        *over(asm.jne32, R2, 0, clock),
    ]
    sized = [*size, *_add(_BYTES, R1)] if size and counter.bytes else []
    return [*find(counter), *over(asm.jeq64, ROW_AT, 0, [*sized, *tick])]


def size_of(context: Code, data: int, width: int, *, frags: bool) -> Code:
    """The bytes of a packet, into r1; `context` leaves in r1 what tells of it.

    That has the packet's begin at offset `data` and its end behind that, each of a `width`. With
    `frags` a packet may have more than what lies between. Linux kernel commit 0165cc817075 "bpf:
    introduce bpf_xdp_get_buff_len helper" (in v5.18), as are packets of several fragments.
    """
    if frags:
        return [*context, asm.call_helper(uapi.BPF_FUNC_xdp_get_buff_len), asm.mov64(R1, R0)]
    load = asm.load64 if width == 8 else asm.load32
    return [*context, load(R2, R1, data), load(R1, R1, data + width), asm.sub64(R1, R2)]


def leave(mask: Mask | Code) -> Code:
    """After the program: what it answered, in r8, and the time, into the row in r7.

    `mask` is the program's, or code that leaves it in r3. Leaves r0 to r5 undefined.
    """
    stop = [
        asm.call_helper(uapi.BPF_FUNC_ktime_get_ns),
        asm.load64(R1, ROW_AT, _START),
        asm.sub64(R0, R1),
        *_add(_NS, R0),
        *_add(_TIMED, 1),
        asm.store64(ROW_AT, _START, 0),
    ]
    count = [
        asm.load64(R1, ROW_AT, _START),
        *over(asm.jeq64, R1, 0, stop),
        *([asm.constant(R3, mask.pack())] if isinstance(mask, Mask) else mask),
        asm.mov64(R4, R3),
        asm.rsh64(R4, 32),
        asm.mov32(R3, R3),
        *fate(),
        *at_most(R1, VERDICTS - 2, VERDICTS - 1),
        asm.mul32(R1, FATES),
        asm.add32(R1, R3),
        asm.lsh64(R1, 3),
        asm.add64(R1, ROW_AT),
        asm.load64(R2, R1, _CELLS),
        asm.add64(R2, 1),
        asm.store64(R1, _CELLS, R2),
    ]
    return over(asm.jeq64, ROW_AT, 0, count)


def observer_entry(counter: Counter, *, frags: bool = False, sized: bool = True) -> bytes:
    """A program that runs before another one; `sized` if it counts bytes, too."""
    # Its one argument is a struct xdp_buff, which begins with data and data_end.
    size = size_of([asm.load64(R1, R6, 0)], 0, 8, frags=frags) if sized else None
    return asm.assemble([asm.mov64(R6, R1), *enter(counter, size), asm.mov32(R0, 0), asm.exit_()])


def observer_exit(counter: Counter, masks_id: int) -> bytes:
    """A program that runs behind another one, whose mask is in the row's place of a map."""
    mask = [
        asm.map_value(R3, masks_id, counter.row * MASK_SIZE + 8),
        asm.load64(R3, R3, 0),
    ]
    return asm.assemble(
        [
            asm.load64(_VERDICT, R1, 8),  # the one argument, then what it returned
            *find(counter),
            *leave(mask),
            asm.mov32(R0, 0),
            asm.exit_(),
        ]
    )


MASK_SIZE = 16
"""A place in the map of masks: the program's id, then the mask, eight bytes each."""


def fate() -> Code:
    """What comes of the verdict in r8, into r3: 0: it is the last word, 1: another program runs.

    2: another one would, but there is none. The codes that hand on are in r3, and the lowest bit
    of r4 tells whether there is no other. Leaves r5 undefined.
    """
    return [
        *at_most(R5, 31, 32),
        asm.rsh64(R3, R5),
        asm.and64(R3, 1),
        asm.and64(R4, R3),
        asm.add64(R3, R4),
    ]


def find(counter: Counter) -> Code:
    """Leave the row's place in r7; no row, no place."""
    return [
        asm.store32(R10, -STACK, counter.row),
        asm.map_of(R1, counter.map_id),
        asm.mov64(R2, R10),
        asm.add64(R2, -STACK),
        asm.call_helper(uapi.BPF_FUNC_map_lookup_elem),
        asm.mov64(ROW_AT, R0),
    ]


def _add(field: int, value: Reg | int) -> Code:
    return [
        asm.load64(R2, ROW_AT, field),
        asm.add64(R2, value),
        asm.store64(ROW_AT, field, R2),
    ]


def at_most(register: Reg, most: int, else_: int) -> Code:
    """The verdict, or a number for all those beyond."""
    return [
        asm.mov32(register, _VERDICT),
        *over(asm.jle32, register, most, [asm.mov32(register, else_)]),
    ]
