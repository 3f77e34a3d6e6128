"""Instructions of BPF: put together by name and with labels, and read where that is asked.

Code to be is a sequence of instructions, of labels, and of bytes that are instructions already. A
jump or a call names the label that it goes to; `assemble` counts the distances. Instructions are
called as the kernel's documentation calls their operations, with the bits that they work on.
"""

from __future__ import annotations

import enum
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from . import uapi

# --- the parts of an opcode (<linux/bpf_common.h> and <linux/bpf.h>) ----------------------------

BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_JMP32, BPF_ALU64 = range(8)
BPF_W, BPF_DW = 0x00, 0x18
BPF_IMM, BPF_MEM, BPF_ATOMIC, MODES = 0x00, 0x60, 0xC0, 0xE0
BPF_K, BPF_X = 0x00, 0x08
BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_LSH = 0x00, 0x10, 0x20, 0x40, 0x50, 0x60
BPF_RSH, BPF_MOD, BPF_XOR, BPF_MOV = 0x70, 0x90, 0xA0, 0xB0
BPF_JA, BPF_JEQ, BPF_JGT, BPF_JNE, BPF_CALL, BPF_EXIT, BPF_JLE, BPF_JCOND = (
    0x00, 0x10, 0x20, 0x50, 0x80, 0x90, 0xB0, 0xE0,
)  # fmt: skip

LD_IMM64 = BPF_LD | BPF_IMM | BPF_DW
CALL, EXIT = BPF_JMP | BPF_CALL, BPF_JMP | BPF_EXIT
JA, ADD64_K = BPF_JMP | BPF_JA, BPF_ALU64 | BPF_ADD | BPF_K

_INSN = struct.Struct("=BBhi")
"""struct bpf_insn: opcode, registers, offset, immediate."""
INSN_SIZE = _INSN.size
# The registers are two fields of four bits. A compiler puts the first one, the destination, into
# the low half of the byte if the machine is of little endian, else into the high half.
_DST, _SRC = (0, 4) if sys.byteorder == "little" else (4, 0)


class Reg(enum.Enum):
    """A register. R10 is the frame's top, which is 512 bytes above its end."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Reg


class Label:
    """A place in code to be."""


class Insn(NamedTuple):
    """An instruction. The distance of one that goes `to` a label is not known yet.

    One with a `high` immediate takes the place of two: a load of 64 bits.
    """

    opcode: int
    dst: Reg = R0
    src: int = 0
    off: int = 0
    imm: int = 0
    to: Label | None = None
    high: int | None = None

    def pack(self, distance: int = 0) -> bytes:
        """The instruction's bytes; `distance` is to its label, in instructions behind it."""
        off, imm = self.off, self.imm
        if self.to is not None:
            off, imm = (off, distance) if self.opcode == CALL else (distance, imm)
        code = _INSN.pack(self.opcode, self.dst.value << _DST | self.src << _SRC, off, imm)
        return code if self.high is None else code + _INSN.pack(0, 0, 0, self.high)


Code = Sequence[Insn | Label | bytes]


def _size(item: Insn | Label | bytes) -> int:
    if isinstance(item, Insn):
        return 1 if item.high is None else 2
    return count(item) if isinstance(item, bytes) else 0


def places(code: Code) -> dict[Label, int]:
    """The number of the instruction that each label stands before."""
    found, here = {}, 0
    for item in code:
        if isinstance(item, Label):
            found[item] = here
        here += _size(item)
    return found


def assemble(code: Code) -> bytes:
    """The bytes. Raises KeyError for a label that stands nowhere, struct.error for one too far."""
    where, here, packed = places(code), 0, []
    for item in code:
        here += _size(item)
        if isinstance(item, Insn):
            packed.append(item.pack(where[item.to] - here if item.to else 0))
        elif isinstance(item, bytes):
            packed.append(item)
    return b"".join(packed)


def length(code: Code) -> int:
    """How many instructions it has."""
    return sum(map(_size, code))


def count(code: bytes) -> int:
    """How many instructions some bytes are."""
    return len(code) // INSN_SIZE


# --- arithmetic ---------------------------------------------------------------------------------

Operation = Callable[[Reg, Reg | int], Insn]


def _operation(opcode: int) -> Operation:
    """dst = dst OP value, a register's or an immediate one."""

    def instruction(dst: Reg, value: Reg | int) -> Insn:
        if isinstance(value, Reg):
            return Insn(opcode | BPF_X, dst, value.value)
        return Insn(opcode | BPF_K, dst, imm=value)

    return instruction


mov32, mov64 = _operation(BPF_ALU | BPF_MOV), _operation(BPF_ALU64 | BPF_MOV)
add32, add64 = _operation(BPF_ALU | BPF_ADD), _operation(BPF_ALU64 | BPF_ADD)
sub64, mul32 = _operation(BPF_ALU64 | BPF_SUB), _operation(BPF_ALU | BPF_MUL)
or32, or64 = _operation(BPF_ALU | BPF_OR), _operation(BPF_ALU64 | BPF_OR)
and32, and64 = _operation(BPF_ALU | BPF_AND), _operation(BPF_ALU64 | BPF_AND)
rsh32, rsh64 = _operation(BPF_ALU | BPF_RSH), _operation(BPF_ALU64 | BPF_RSH)
lsh64, mod64 = _operation(BPF_ALU64 | BPF_LSH), _operation(BPF_ALU64 | BPF_MOD)
xor32 = _operation(BPF_ALU | BPF_XOR)

# --- memory -------------------------------------------------------------------------------------


def _load(size: int) -> Callable[[Reg, Reg, int], Insn]:
    """dst = *(base + off)."""

    def instruction(dst: Reg, base: Reg, off: int) -> Insn:
        return Insn(BPF_LDX | BPF_MEM | size, dst, base.value, off)

    return instruction


def _store(size: int) -> Callable[[Reg, int, Reg | int], Insn]:
    """*(base + off) = value, a register's or an immediate one."""

    def instruction(base: Reg, off: int, value: Reg | int) -> Insn:
        if isinstance(value, Reg):
            return Insn(BPF_STX | BPF_MEM | size, base, value.value, off)
        return Insn(BPF_ST | BPF_MEM | size, base, off=off, imm=value)

    return instruction


load32, load64 = _load(BPF_W), _load(BPF_DW)
store32, store64 = _store(BPF_W), _store(BPF_DW)


def _signed(half: int) -> int:
    return half - (1 << 32) if half >> 31 else half


def constant(dst: Reg, value: int) -> Insn:
    """dst = value, of 64 bits."""
    low, high = _signed(value & 0xFFFFFFFF), _signed(value >> 32)
    return Insn(LD_IMM64, dst, imm=low, high=high)


def map_of(dst: Reg, map_id: int) -> Insn:
    """dst = the map, for a helper."""
    return Insn(LD_IMM64, dst, uapi.BPF_PSEUDO_MAP_FD, imm=map_id, high=0)


def map_value(dst: Reg, map_id: int, off: int) -> Insn:
    """dst = the address of a byte in the only value of a map."""
    return Insn(LD_IMM64, dst, uapi.BPF_PSEUDO_MAP_VALUE, imm=map_id, high=off)


# --- jumps and calls ----------------------------------------------------------------------------

Jump = Callable[[Reg, int, Label], Insn]


def _jump(opcode: int) -> Jump:
    """If register OP value: go to a label."""

    def instruction(register: Reg, value: int, to: Label) -> Insn:
        return Insn(opcode | BPF_K, register, imm=value, to=to)

    return instruction


jeq32, jeq64 = _jump(BPF_JMP32 | BPF_JEQ), _jump(BPF_JMP | BPF_JEQ)
jne32, jne64 = _jump(BPF_JMP32 | BPF_JNE), _jump(BPF_JMP | BPF_JNE)
jle32, jle64 = _jump(BPF_JMP32 | BPF_JLE), _jump(BPF_JMP | BPF_JLE)
jgt32 = _jump(BPF_JMP32 | BPF_JGT)


def ja(to: Label) -> Insn:
    """Go to a label."""
    return Insn(JA, to=to)


def over(jump: Jump, register: Reg, value: int, code: Code) -> Code:
    """Code that is left out if a comparison holds."""
    behind = Label()
    return [jump(register, value, behind), *code, behind]


def call(function: Label) -> Insn:
    """r0 = a function of this program, of r1 to r5."""
    return Insn(CALL, src=uapi.BPF_PSEUDO_CALL, to=function)


def call_helper(number: int) -> Insn:
    """r0 = a function of the kernel (BPF_FUNC_), of r1 to r5."""
    return Insn(CALL, imm=number)


def exit_() -> Insn:
    """End the function; its result is r0."""
    return Insn(EXIT)


# --- code that others wrote ---------------------------------------------------------------------

_REFERENCES = rb"[\x18\x85]"
_MAPS = (uapi.BPF_PSEUDO_MAP_FD, uapi.BPF_PSEUDO_MAP_VALUE)


class Reference(NamedTuple):
    """An instruction that names something: its number and parts; `src` says what kind of thing."""

    number: int
    opcode: int
    src: int
    off: int
    imm: int


def references(code: bytes) -> Iterator[Reference]:
    """The instructions that name something: calls and loads of 64 bits."""
    for match in re.finditer(_REFERENCES, code[::INSN_SIZE]):
        number = match.start()
        opcode, registers, off, imm = _INSN.unpack_from(code, number * INSN_SIZE)
        yield Reference(number, opcode, registers >> _SRC & 15, off, imm)


def with_maps(code: bytes, names: Mapping[int, int]) -> bytes:
    """The code with other names for its maps: ids for descriptors, or the other way round."""
    changed = bytearray(code)
    for one in references(code):
        if one.opcode == LD_IMM64 and one.src in _MAPS:
            struct.pack_into("=i", changed, one.number * INSN_SIZE + 4, names[one.imm])
    return bytes(changed)


def maps_of(code: bytes) -> set[int]:
    """What the code calls its maps."""
    return {one.imm for one in references(code) if one.opcode == LD_IMM64 and one.src in _MAPS}


def makes_tail_calls(code: bytes) -> bool:
    """Whether any of its functions may go over to another program."""
    return any(
        (one.opcode, one.src, one.imm) == (CALL, 0, uapi.BPF_FUNC_tail_call)
        for one in references(code)
    )


def may_call(code: bytes) -> bool:
    """Whether it may call functions that are not helpers, before they are known: libbpf fills in.

    So do two helpers, which are given a function.
    """
    calls = {(one.src, one.imm) for one in references(code) if one.opcode == CALL}
    given = {(0, uapi.BPF_FUNC_for_each_map_elem), (0, uapi.BPF_FUNC_loop)}
    return bool(calls & given) or any(src == uapi.BPF_PSEUDO_CALL for src, _imm in calls)


def names_module(code: bytes) -> bool:
    """Whether it names something of a kernel module, by a descriptor that means nothing later."""
    for one in references(code):
        if (one.opcode, one.src) == (CALL, uapi.BPF_PSEUDO_KFUNC_CALL) and one.off:
            return True
        is_ksym = (one.opcode, one.src) == (LD_IMM64, uapi.BPF_PSEUDO_BTF_ID)
        if is_ksym and _INSN.unpack_from(code, (one.number + 1) * INSN_SIZE)[3]:
            return True
    return False


def starts(code: bytes) -> list[int]:
    """The number of each function's first instruction, as the verifier finds them, in order."""
    found = {0}
    for one in references(code):
        if (one.opcode, one.src) in (
            (CALL, uapi.BPF_PSEUDO_CALL),
            (LD_IMM64, uapi.BPF_PSEUDO_FUNC),
        ):
            found.add(one.number + 1 + one.imm)
    return sorted(found)


class Decoded(NamedTuple):
    """An instruction; the second half of a load of 64 bits has the opcode 0."""

    opcode: int
    dst: int
    src: int
    off: int
    imm: int


def decoded(code: bytes) -> list[Decoded]:
    """The instructions, the halves of a load each by itself."""
    return [
        Decoded(opcode, registers >> _DST & 15, registers >> _SRC & 15, off, imm)
        for opcode, registers, off, imm in _INSN.iter_unpack(code)
    ]


def with_changes(code: bytes, changed: Mapping[int, Insn]) -> Code:
    """The code with others in the place of some instructions, by number."""
    pieces, done = list[Insn | Label | bytes](), 0
    for number in sorted(changed):
        pieces += [code[done * INSN_SIZE : number * INSN_SIZE], changed[number]]
        done = number + 1
    return [*pieces, code[done * INSN_SIZE :]]


def stack_depth(code: bytes) -> int:
    """How much of the stack a function seems to use, in bytes: what it adds to pointers, too."""
    deepest, frame = 0, R10.value
    for opcode, dst, src, off, imm in decoded(code):
        kind = opcode & 7
        base = src if kind == BPF_LDX else dst
        if kind in (BPF_LDX, BPF_ST, BPF_STX) and base == frame:
            deepest = max(deepest, -off)
        elif opcode == ADD64_K and -STACK <= imm < 0:
            deepest = max(deepest, -imm)
    return deepest


STACK = 512
"""Bytes of stack that a program has (MAX_BPF_STACK of <linux/filter.h>)."""

PASS = assemble([mov32(R0, 2), exit_()])
"""A program that passes every packet: w0 = XDP_PASS; exit."""
