"""The code that counts: a few instructions before a program is called, and a few after it.

Both kinds of root count by it. A fused root has it around each call; of an EXT program two tracing
programs run it, one before and one behind (counting.py). What is counted goes into a row of a
per-CPU array: nothing is shared, and no instruction waits for another CPU.

A clock costs more than all of the rest, so that one packet in 64 is timed.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..kernel import uapi
from ..programs.image import CALL, LD_IMM64, insn

VERDICTS = 6
"""The five actions, and one for all other codes."""

FATES = 3
"""What came of a verdict: the last word, the next program, or no next program to go on to."""

_TICK, _START, _NS, _TIMED, _CELLS = 0, 8, 16, 24, 32
_ROW = struct.Struct(f"={_CELLS // 8 + VERDICTS * FATES}Q")
ROW_SIZE = _ROW.size
_EVERY = 64

# <linux/bpf_common.h> and <linux/bpf.h>.
_MOV32_K, _MOV32_X, _MOV64_K, _MOV64_X, _ADD64_K, _ADD64_X = 0xB4, 0xBC, 0xB7, 0xBF, 0x07, 0x0F
_ADD32_X, _SUB64_X, _MUL32_K = 0x0C, 0x1F, 0x24
_AND32_K, _AND64_K, _AND64_X = 0x54, 0x57, 0x5F
_LSH64_K, _RSH64_K, _RSH64_X = 0x67, 0x77, 0x7F
_LDX_W, _LDX_DW, _STX_DW, _ST_W, _ST_DW = 0x61, 0x79, 0x7B, 0x62, 0x7A
_JEQ64_K, _JNE32_K, _JLE32_K = 0x15, 0x56, 0xB6
_FRAME = 10
ROW_AT, _VERDICT = 7, 8
"""Registers: where the row is, between the two pieces; and what the program answered."""


class Counter(NamedTuple):
    """Where a program's packets are counted: the array's map id, and the row in it."""

    map_id: int
    row: int


class Mask(NamedTuple):
    """What a program hands on after: a bit a return code; and whether there is no next program."""

    codes: int
    last: bool

    def pack(self) -> int:
        return self.codes | self.last << 32


class Counted(NamedTuple):
    """What was counted of a program, on all CPUs together.

    `cells` has a line a verdict, of what came of it; `ns` is of the `timed` packets alone.
    """

    ns: int
    timed: int
    cells: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, rows: bytes) -> Counted:
        """Sum up a row as it is on each CPU."""
        sums = [sum(values) for values in zip(*_ROW.iter_unpack(rows), strict=True)]
        cells = sums[_CELLS // 8 :]
        lines = (tuple(cells[at : at + FATES]) for at in range(0, len(cells), FATES))
        return cls(sums[_NS // 8], sums[_TIMED // 8], tuple(lines))

    @property
    def packets(self) -> int:
        return sum(map(sum, self.cells))

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


def enter(counter: Counter) -> bytes:
    """Before the program: find the row, and start the clock for one packet in so many.

    Uses four bytes of the stack; leaves r0 to r5 undefined.
    """
    clock = (
        insn(CALL, imm=uapi.BPF_FUNC_ktime_get_ns)
        + insn(_STX_DW, dst=ROW_AT, src=0, off=_START)
    )  # fmt: skip
    tick = (
        insn(_LDX_DW, dst=1, src=ROW_AT, off=_TICK)
        + insn(_MOV64_X, dst=2, src=1)
        + insn(_ADD64_K, dst=1, imm=1)
        + insn(_STX_DW, dst=ROW_AT, src=1, off=_TICK)
        + insn(_AND32_K, dst=2, imm=_EVERY - 1)
        + over(_JNE32_K, 2, clock)
    )
    return find(counter) + over(_JEQ64_K, ROW_AT, tick)


def leave(mask: Mask | bytes) -> bytes:
    """After the program: what it answered, in r8, and the time, into the row in r7.

    `mask` is the program's, or code that leaves it in r3. Leaves r0 to r5 undefined.
    """
    stop = (
        insn(CALL, imm=uapi.BPF_FUNC_ktime_get_ns)
        + insn(_LDX_DW, dst=1, src=ROW_AT, off=_START)
        + insn(_SUB64_X, dst=0, src=1)
        + _add(_NS, insn(_ADD64_X, dst=2, src=0))
        + _add(_TIMED, insn(_ADD64_K, dst=2, imm=1))
        + insn(_ST_DW, dst=ROW_AT, off=_START)
    )
    count = (
        insn(_LDX_DW, dst=1, src=ROW_AT, off=_START)
        + over(_JEQ64_K, 1, stop)
        + (mask if isinstance(mask, bytes) else _wide(3, mask.pack()))
        + insn(_MOV64_X, dst=4, src=3)
        + insn(_RSH64_K, dst=4, imm=32)
        + insn(_MOV32_X, dst=3, src=3)
        + fate()
        + at_most(1, VERDICTS - 2, VERDICTS - 1)
        + insn(_MUL32_K, dst=1, imm=FATES)
        + insn(_ADD32_X, dst=1, src=3)
        + insn(_LSH64_K, dst=1, imm=3)
        + insn(_ADD64_X, dst=1, src=ROW_AT)
        + insn(_LDX_DW, dst=2, src=1, off=_CELLS)
        + insn(_ADD64_K, dst=2, imm=1)
        + insn(_STX_DW, dst=1, src=2, off=_CELLS)
    )
    return over(_JEQ64_K, ROW_AT, count)


def observer_entry(counter: Counter) -> bytes:
    """A program that runs before another one."""
    return enter(counter) + insn(_MOV32_K) + insn(0x95)


def observer_exit(counter: Counter, masks_id: int) -> bytes:
    """A program that runs behind another one, whose mask is in the row's place of a map."""
    mask = (
        insn(LD_IMM64, dst=3, src=uapi.BPF_PSEUDO_MAP_VALUE, imm=masks_id)
        + insn(0, imm=counter.row * MASK_SIZE + 8)
        + insn(_LDX_DW, dst=3, src=3)
    )
    return (
        insn(_LDX_DW, dst=_VERDICT, src=1, off=8)  # the one argument, then what it returned
        + find(counter)
        + leave(mask)
        + insn(_MOV32_K)
        + insn(0x95)
    )


MASK_SIZE = 16
"""A place in the map of masks: the program's id, then the mask, eight bytes each."""


def fate() -> bytes:
    """What comes of the verdict in r8, into r3: 0: it is the last word, 1: another program runs.

    2: another one would, but there is none. The codes that hand on are in r3, and the lowest bit
    of r4 tells whether there is no other. Leaves r5 undefined.
    """
    return (
        at_most(5, 31, 32)
        + insn(_RSH64_X, dst=3, src=5)
        + insn(_AND64_K, dst=3, imm=1)
        + insn(_AND64_X, dst=4, src=3)
        + insn(_ADD64_X, dst=3, src=4)
    )


def find(counter: Counter) -> bytes:
    """Leave the row's place in r7; no row, no place."""
    return (
        insn(_ST_W, dst=_FRAME, off=-4, imm=counter.row)
        + insn(LD_IMM64, dst=1, src=uapi.BPF_PSEUDO_MAP_FD, imm=counter.map_id)
        + insn(0)
        + insn(_MOV64_X, dst=2, src=_FRAME)
        + insn(_ADD64_K, dst=2, imm=-4)
        + insn(CALL, imm=uapi.BPF_FUNC_map_lookup_elem)
        + insn(_MOV64_X, dst=ROW_AT, src=0)
    )


def over(jump: int, register: int, code: bytes, imm: int = 0) -> bytes:
    """Code that is left out where a comparison holds."""
    return insn(jump, dst=register, off=len(code) // 8, imm=imm) + code


def _add(field: int, how: bytes) -> bytes:
    load = insn(_LDX_DW, dst=2, src=ROW_AT, off=field)
    return load + how + insn(_STX_DW, dst=ROW_AT, src=2, off=field)


def at_most(register: int, most: int, else_: int) -> bytes:
    """The verdict, or a number for all those beyond."""
    return (
        insn(_MOV32_X, dst=register, src=_VERDICT)
        + insn(_JLE32_K, dst=register, off=1, imm=most)
        + insn(_MOV32_K, dst=register, imm=else_)
    )


def _wide(register: int, value: int) -> bytes:
    low, high = (
        half - (1 << 32) if half >> 31 else half for half in (value & 0xFFFFFFFF, value >> 32)
    )
    return insn(LD_IMM64, dst=register, imm=low) + insn(0, imm=high)
