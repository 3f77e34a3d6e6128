"""xdpctl.roots.in_line: where bodies go on, by what they answer; and which registers are free."""

from __future__ import annotations

import random
import struct

import pytest

from tests.unit.machine import insn
from tests.unit.samples import DROP, PASS, fresh, some
from tests.unit.test_fused import EXIT, JA, JEQ32, JNE32, MOV32, VERDICTS, Machine, rule
from xdpctl.kernel import asm
from xdpctl.kernel.asm import R0, R1, R2, R6, R7, R8, R9, R10, Code, Label
from xdpctl.model.chain import USUAL
from xdpctl.model.source import Image
from xdpctl.roots import fused_code, in_line
from xdpctl.roots.fused_code import Part
from xdpctl.roots.in_line import Ways


def within_reach(code: bytes) -> bool:
    """Whether jumps lead to every instruction, as the verifier asks first of all."""
    insns = [*struct.iter_unpack("=BBhi", code)]
    seen, open_ = set[int](), [0]
    while open_:
        place = open_.pop()
        if place in seen:
            continue
        seen.add(place)
        opcode, _registers, off, _imm = insns[place]
        if opcode == EXIT:
            continue
        if opcode != JA:
            open_.append(place + 1)
        if opcode in (JA, JEQ32, JNE32, asm.BPF_JMP | asm.BPF_JNE):
            open_.append(place + 1 + off)
    return len(seen) == len(insns)


def anything(chance: random.Random) -> bytes:
    """A program that sets verdicts and jumps forwards, with ends anywhere."""
    while True:
        size = chance.randint(2, 12)
        code = [insn(MOV32, imm=struct.unpack("=i", struct.pack("=I", chance.choice(VERDICTS)))[0])]
        for place in range(1, size - 1):
            off = chance.randint(0, size - 2 - place)
            code.append(
                chance.choice(
                    [
                        insn(MOV32, imm=chance.choice((0, 1, 2, 2, 31))),
                        insn(MOV32, dst=3, imm=chance.randint(0, 1)) if place > 1 else code[0],
                        insn(chance.choice((JEQ32, JNE32)), 0, off=off, imm=chance.randint(0, 2)),
                        insn(JA, off=off),
                        insn(EXIT),
                    ]
                )
            )
        done = b"".join([*code, insn(EXIT)])
        if within_reach(done):
            return done


@pytest.mark.parametrize("seed", some(15, range(40)))
def test_any_code_in_line_decides_as_it_did(seed: int) -> None:
    """And every instruction stays within reach."""
    chance = random.Random(seed)
    for _ in range(50):
        masks = [
            chance.choice((0, PASS, PASS | DROP, 1 << 31, chance.getrandbits(32))) for _ in range(4)
        ]
        codes = [anything(chance) for _ in masks]
        parts = [
            Part(fresh("member", actions=mask), 9, Image(code, frags=False, gpl=True))
            for mask, code in zip(masks, codes, strict=True)
        ]
        made, names = fused_code.assemble(parts, USUAL)
        assert len(names) == 1
        assert within_reach(made)
        verdicts = [Machine(code).run() for code in codes]
        assert Machine(made).run() == rule(masks, verdicts, dispatched=False)


def ways_of(code: Code, on: int = PASS) -> tuple[list[str], int]:
    """Where the jumps of a body in line go, in order; and how many instructions do nothing."""
    ways = Ways(Label(), Label(), Label(), on)
    named = {ways.end: "look", ways.following: "on", ways.other: "out"}
    changed = [one for one in in_line.body(asm.assemble(code), ways) if isinstance(one, asm.Insn)]
    return [named[one.to] for one in changed if one.to], changed.count(in_line.NOTHING)


END = Label()
CHECKED: Code = [asm.mov32(R0, 1), asm.jgt32(R1, 9, END), asm.mov32(R0, 2), END, asm.exit_()]
"""As a compiler writes it: a jump to the end, its verdict set before."""


def test_certain_verdicts_are_not_looked_at() -> None:
    assert ways_of([asm.mov32(R0, 2), asm.exit_()]) == (["on"], 1)
    assert ways_of(CHECKED) == (["out", "on"], 1)
    assert ways_of(CHECKED, on=DROP) == (["on", "out"], 0)
    assert ways_of(CHECKED, on=PASS | DROP) == (["on", "on"], 1)
    # The mask is 32 bits wide, and r0 all of a verdict.
    assert ways_of([asm.mov64(R0, 34), END, asm.exit_()], on=0xFFFFFFFF)[0] == ["look"]


def test_verdicts_that_are_looked_at() -> None:
    helper, load = asm.call_helper(5), asm.load32(R0, R1, 0)
    for spoiling in (helper, load, asm.mov32(R0, R2), asm.constant(R0, 2), asm.add32(R0, 1)):
        assert ways_of([asm.mov32(R0, 2), spoiling, asm.exit_()]) == (["look"], 0)
    # An atomic operation may give r0 what was there.
    atomic = asm.Insn(asm.BPF_STX | asm.BPF_ATOMIC | asm.BPF_DW, R1, 2, imm=0xF1)
    assert ways_of([asm.mov32(R0, 2), atomic, asm.exit_()]) == (["look"], 0)
    # None goes on, so that what follows is within reach of a comparison alone.
    assert ways_of([asm.mov32(R0, 1), asm.exit_()]) == (["look"], 0)


def test_an_end_with_several_ways_to_it() -> None:
    end, middle = Label(), Label()
    # One of two is certain.
    load = asm.load32(R0, R1, 0)
    code: Code = [load, asm.jgt32(R0, 9, end), asm.mov32(R0, 2), end]
    assert ways_of([*code, asm.exit_()]) == (["look"], 0)
    # What comes from elsewhere makes a verdict uncertain; a jump on the way does not.
    code = [asm.mov32(R0, 2), asm.jgt32(R1, 9, end), load, middle, asm.jgt32(R1, 8, end)]
    assert ways_of([*code, asm.mov32(R0, 2), end, asm.exit_()]) == (["on", "look"], 0)
    # Jumps alone lead to the first end: one has to.
    first, rest = Label(), Label()
    code = [asm.mov32(R0, 2), asm.jgt32(R1, 9, first), asm.ja(rest), first, asm.exit_(), rest]
    assert ways_of([*code, asm.mov32(R0, 2), asm.exit_()]) == (["look", "on"], 1)


@pytest.mark.parametrize("opcode", [in_line._MAY_GOTO, in_line._FAR_JA])
def test_jumps_of_other_kinds_go_where_they_went(opcode: int) -> None:
    """They name their target in another way, or do more than jump."""
    distance = {"imm": 1} if opcode == in_line._FAR_JA else {"off": 1}
    jump = insn(opcode, **distance)
    end = insn(MOV32, imm=2) + insn(EXIT)
    code = insn(MOV32, imm=2) + insn(JEQ32, 1, off=1) + jump + end
    ways = Ways(Label(), Label(), Label(), PASS)
    body = in_line.body(code, ways)
    assert in_line.goes_to(body) == {ways.end}
    assert any(isinstance(one, bytes) and jump in one for one in body)


def test_registers_that_a_function_leaves_alone() -> None:
    def untouched(*code: asm.Insn) -> set[asm.Reg]:
        return in_line.untouched(asm.assemble(code))

    assert untouched(asm.mov32(R6, 1), asm.store64(R7, 0, R8), asm.mov64(R2, R9)) == {R7, R8, R9}
    assert untouched(asm.load32(R7, R1, 0), asm.constant(R8, 7), asm.call_helper(5)) == {R6, R9}
    atomic = asm.Insn(asm.BPF_STX | asm.BPF_ATOMIC | asm.BPF_DW, R10, 9, imm=1)
    assert untouched(atomic, asm.add64(R6, 1)) == {R7, R8}
