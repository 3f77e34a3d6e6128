"""A small interpreter of BPF: what the code that counts and traces needs of it."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LOW = (1 << 32) - 1
WHOLE = (1 << 64) - 1

_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x0: lambda a, b: a + b,
    0x1: lambda a, b: a - b,
    0x2: lambda a, b: a * b,
    0x4: lambda a, b: a | b,
    0x5: lambda a, b: a & b,
    0x6: lambda a, b: a << b,
    0x7: lambda a, b: a >> b,
    0x9: lambda a, b: a % b,
    0xB: lambda _a, b: b,
}
_COMPARISONS: dict[int, Callable[[int, int], bool]] = {
    0x1: lambda a, b: a == b,
    0x2: lambda a, b: a > b,
    0x5: lambda a, b: a != b,
    0xB: lambda a, b: a <= b,
}
_SIZES = {0x0: "=I", 0x3: "=Q"}


# Where the registers are in the second byte of an instruction.
DST, SRC = (0, 4) if sys.byteorder == "little" else (4, 0)


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction, written by its numbers: an oracle of its own beside kernel/asm.py."""
    return struct.pack("=BBhi", code, dst << DST | src << SRC, off, imm)


class Pointer(NamedTuple):
    """A place in memory."""

    memory: bytearray
    offset: int

    def moved(self, distance: int) -> Pointer:
        return Pointer(self.memory, self.offset + distance)


class Machine:
    """`values` has the memory that map values are in, by the map's id; `calls` what helpers do."""

    def __init__(
        self,
        code: bytes,
        values: Mapping[int, bytearray],
        calls: Mapping[int, Callable[..., object]],
    ) -> None:
        self.code = [*struct.iter_unpack("=BBhi", code)]
        self.values, self.calls = values, calls
        self.addresses: dict[int, Pointer] = {}
        """What numbers that are read from memory lead to, once something is read from there."""

    def run(self, **registers: object) -> dict[str, Any]:
        """Run to the end or an exit; the registers then, by name: r0 to r10."""
        r: list[Any] = [None] * 10 + [Pointer(bytearray(512), 512)]
        for name, value in registers.items():
            r[int(name[1:])] = value
        at = 0
        while at < len(self.code):
            code, both, off, imm = self.code[at]
            dst, src = both >> DST & 15, both >> SRC & 15
            at += 1
            kind, size = code & 7, _SIZES.get(code >> 3 & 3, "=Q")
            if code == 0x95:
                break
            if code == 0x85:
                r[:6] = [self.calls[imm](*r[1:6]), *[None] * 5]
            elif code == 0x18:
                following = self.code[at][3]
                at += 1
                r[dst] = (
                    (imm & LOW) | (following & LOW) << 32,
                    ("map", imm),
                    Pointer(self.values.get(imm, bytearray()), following),
                )[src]
            elif kind in (4, 7):
                self._compute(r, code, dst, r[src] if code & 8 else imm & WHOLE, wide=kind == 7)
            elif kind in (5, 6):
                mask = WHOLE if kind == 5 else LOW
                value = int(not r[dst]) ^ 1 if isinstance(r[dst], Pointer) else r[dst]
                at += off if _COMPARISONS[code >> 4](value & mask, imm & mask) else 0
            elif kind == 1:
                base = r[src] if isinstance(r[src], Pointer) else self.addresses[r[src]]
                place = base.moved(off)
                (r[dst],) = struct.unpack_from(size, place.memory, place.offset)
            else:
                place, value = r[dst].moved(off), r[src] if kind == 3 else imm
                mask = LOW if size == "=I" else WHOLE
                struct.pack_into(size, place.memory, place.offset, value & mask)
        return {f"r{number}": value for number, value in enumerate(r)}

    @staticmethod
    def _compute(r: list[Any], code: int, dst: int, value: Any, *, wide: bool) -> None:
        operation = code >> 4
        if operation == 0xB and wide:
            r[dst] = value
        elif isinstance(value, Pointer) and operation == 0:
            r[dst] = value.moved(r[dst])
        elif isinstance(r[dst], Pointer) and operation == 0:
            r[dst] = r[dst].moved((value ^ 1 << 63) - (1 << 63))
        else:
            mask = WHOLE if wide else LOW
            old = r[dst] if operation != 0xB else 0
            r[dst] = _OPERATIONS[operation](old & mask, value & mask) & mask
