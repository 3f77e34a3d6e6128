"""A body as it stands in a root's main function: where it goes on, and what it leaves alone.

Where its verdict is certain, it needs no comparison: it goes to the next body, or out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kernel import asm
from ..kernel.asm import R0, R6, R7, R8, R9, Code, Decoded, Insn, Label, Reg
from ..value import Value

NOTHING = Insn(asm.JA)
"""A jump to what follows, which the verifier takes out."""

_WRITING = (asm.BPF_LD, asm.BPF_LDX, asm.BPF_ALU, asm.BPF_ALU64)
_MOVES = (asm.mov32(R0, 0).opcode, asm.mov64(R0, 0).opcode)
_JUMPS = (asm.BPF_JMP, asm.BPF_JMP32)
_NO_JUMPS = (asm.CALL, asm.EXIT)
_MAY_GOTO = asm.BPF_JMP | asm.BPF_JCOND
_FAR_JA = asm.BPF_JMP32 | asm.BPF_JA


class Ways(Value):
    """Where a body goes on.

    To `end` if its verdict has to be looked at; to `following` if it is one of the mask `on`, and
    else to `other`.
    """

    end: Label
    following: Label
    other: Label
    on: int

    def of(self, verdict: int) -> Label:
        return self.following if self.goes_on(verdict) else self.other

    def goes_on(self, verdict: int) -> bool:
        return verdict < 32 and bool(self.on >> verdict & 1)


def body(code: bytes, ways: Ways, *, certain: bool = True) -> Code:
    """The code of one function, whose ends go on; with `certain` without a comparison if possible.

    The verifier wants each instruction to be within reach. So all ends go to `end` if none of the
    verdicts that are certain goes to `following`.
    """
    insns = asm.decoded(code)
    changed = _certain(insns, ways) if certain else {}
    if ways.following not in {one.to for one in changed.values()}:
        changed = dict.fromkeys(_exits(insns), asm.ja(ways.end))
    return asm.with_changes(code, changed)


def goes_to(code: Code) -> set[Label]:
    """The labels that a piece of code names."""
    return {one.to for one in code if isinstance(one, Insn) and one.to is not None}


def untouched(code: bytes) -> set[Reg]:
    """Which of the registers that calls leave alone (r6 to r9) a function does not write."""
    written = {register for one in asm.decoded(code) for register in _written(one)}
    return {register for register in (R6, R7, R8, R9) if register.value not in written}


def _written(insn: Decoded) -> Sequence[int]:
    """The registers that an instruction writes, calls left out."""
    kind = insn.opcode & 7
    if kind in _WRITING:
        return (insn.dst,)
    if kind == asm.BPF_STX and insn.opcode & asm.MODES == asm.BPF_ATOMIC:
        return (R0.value, insn.dst, insn.src)  # whichever gets what was there
    return ()


def _exits(insns: Sequence[Decoded]) -> list[int]:
    return [number for number, one in enumerate(insns) if one.opcode == asm.EXIT]


def _certain(insns: Sequence[Decoded], ways: Ways) -> dict[int, Insn]:
    """What becomes of ends, and of jumps to them, by the instruction's number."""
    jumps = _jumps(insns)
    verdicts = _verdicts(insns, set(jumps.values()))
    changed = dict[int, Insn]()
    for place in _exits(insns):
        changed[place] = asm.ja(ways.end)
        if not place or insns[place - 1].opcode in (asm.JA, _FAR_JA, asm.EXIT):
            continue  # jumps alone get here, and one of them has to
        coming = [number for number, to in jumps.items() if to == place]
        for number in coming:
            verdict, jump = verdicts[number], insns[number]
            if verdict is not None and jump.opcode not in (_MAY_GOTO, _FAR_JA):
                dst, to = Reg(jump.dst), ways.of(verdict)
                changed[number] = Insn(jump.opcode, dst, jump.src, imm=jump.imm, to=to)
        verdict = verdicts[place]
        if verdict is None or not changed.keys() >= set(coming):
            continue
        changed[place] = asm.ja(ways.of(verdict))
        if ways.goes_on(verdict) and _moved(insns[place - 1]) is not None:
            changed[place - 1] = NOTHING
    return changed


def _jumps(insns: Sequence[Decoded]) -> dict[int, int]:
    """The instruction that each jump goes to, by number."""
    return {
        number: number + 1 + (one.imm if one.opcode == _FAR_JA else one.off)
        for number, one in enumerate(insns)
        if one.opcode & 7 in _JUMPS and one.opcode not in _NO_JUMPS
    }


def _moved(insn: Decoded) -> int | None:
    """The verdict that an instruction sets, if it does nothing else."""
    if insn.opcode in _MOVES and insn.dst == R0.value:
        return insn.imm & 0xFFFFFFFF
    return None


def _verdicts(insns: Sequence[Decoded], targets: set[int]) -> list[int | None]:
    """What r0 is before each instruction, as far as straight code tells.

    At an end that is what comes from the instruction before it, not from jumps.
    """
    known: int | None = None
    found = list[int | None]()
    for number, one in enumerate(insns):
        if number in targets and one.opcode != asm.EXIT:
            known = None
        found.append(known)
        moved = _moved(one)
        if moved is not None or one.opcode in _NO_JUMPS or R0.value in _written(one):
            known = moved
    return found
