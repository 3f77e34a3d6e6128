"""The code of a fused root: the members' bodies in one program, in order.

A body of one function stands in the main function, where it costs a jump at most; another one is a
function, and costs a direct call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..kernel import asm, uapi
from ..kernel.asm import R0, R1, R2, R3, R6, R8, R10, Code, Insn, Label
from ..model.chain import USUAL, VACANT, XDP_PASS, Member, Rules, takes_entry
from ..model.record import FUSED
from ..model.source import Image
from . import count_code
from .count_code import Counter, Mask

_RX_QUEUE_INDEX = 16
"""Where struct xdp_md has a number that the verifier does not know."""

_MAX_IN_LINE = 1 << 14
"""How many instructions the main function may have: its jumps reach twice as far."""


class Part(NamedTuple):
    """A member of a root to be, with its program's id and code, and the array of a held one.

    With a `counter` its packets are counted there.
    """

    member: Member
    program_id: int
    image: Image
    array_id: int = 0
    counter: Counter | None = None


def assemble(
    parts: Sequence[Part], rules: Rules = USUAL, *, in_line: bool = True
) -> tuple[bytes, dict[int, str]]:
    """The root's code, its maps named by id, and its functions' names by first instruction.

    A lone program whose verdict is the chain's is the root itself. With `in_line` a body that can
    stands in the main function; else every one is a function. The rules are the interface's.
    """
    lone = parts and not (parts[0].array_id or parts[0].counter)
    if lone and takes_entry([part.member for part in parts], rules):
        return parts[0].image.code, {0: FUSED}
    bodies = [_through(part.array_id) if part.array_id else part.image.code for part in parts]
    inner, depth = _in_line(parts, bodies) if in_line else ({}, 0)
    functions = {slot: Label() for slot in range(len(parts)) if slot not in inner}
    code = [*_main(parts, functions, rules, inner, depth)]
    for slot, function in functions.items():
        code += [function, bodies[slot]]
    where = asm.places(code)
    names = {
        where[function]: f"prog{slot}_{parts[slot].member.name}"[:100]
        for slot, function in functions.items()
    }
    return asm.assemble(code), {0: FUSED, **names}


def _main(
    parts: Sequence[Part],
    functions: Mapping[int, Label],
    rules: Rules,
    inner: Mapping[int, Code],
    depth: int,
) -> Code:
    """Run the bodies in order, until a verdict is in no mask: those of `inner` in line, by slot.

    The context is kept in r6, or `depth` bytes below the frame's top for bodies in line, which have
    the registers. The usual verdict falls through to the next body: with a call three instructions
    a slot, and no jump. The others are looked at behind the end.
    """
    code: list[Insn | Label | bytes] = [
        asm.store64(R10, -depth, R1) if inner else asm.mov64(R6, R1)
    ]
    others = list[Insn | Label | bytes]()
    for slot, part in enumerate(parts):
        last = slot + 1 == len(parts)
        before, after = _around(part, rules, last, depth + 8 if slot in inner else 0)
        if slot in inner:
            code += [*before, asm.load64(R1, R10, -depth), *inner[slot], *after]
        else:
            found = [asm.load64(R6, R10, -depth)] if inner else []
            code += [*found, *before, asm.mov64(R1, R6), asm.call(functions[slot]), *after]
        mask = part.member.handed_on(rules)
        on = sorted((n for n in range(32) if mask >> n & 1), key=lambda n: n != XDP_PASS)
        other, following = Label(), Label()
        # With an empty mask always: a jump whose condition holds, for the verifier wants every
        # instruction to be within reach.
        code.append(asm.jne32(R0, on[0], other) if on else asm.jne64(R10, 0, other))
        code.append(following)
        others += [other, *(asm.jeq32(R0, verdict, following) for verdict in on[1:])]
        if rules.on_vacant != XDP_PASS:
            others += asm.over(asm.jne32, R0, VACANT, [asm.mov32(R0, rules.on_vacant)])
        others.append(asm.exit_())
    return [*code, asm.mov32(R0, rules.on_end), asm.exit_(), *others]


def _in_line(parts: Sequence[Part], bodies: Sequence[bytes]) -> tuple[dict[int, Code], int]:
    """The bodies that can stand in the main function, by slot, and how deep the context lies there.

    Each is one function, which goes on behind itself where it ended, and makes no tail call: that
    would leave the root. Whether the context's place is free of all of them is the verifier's to
    say: what it loads from there has to be the context. Below it, one for the counting.
    """
    inner, deepest, size = dict[int, Code](), 0, 0
    for slot, (part, body) in enumerate(zip(parts, bodies, strict=True)):
        count = asm.count(body)
        if part.array_id or size + count > _MAX_IN_LINE:
            continue
        if asm.makes_tail_calls(body) or len(asm.starts(body)) > 1:
            continue
        depth = asm.stack_depth(body)
        if depth + 16 > asm.STACK:
            continue
        end = Label()
        inner[slot] = [*asm.with_end(body, end), end]
        deepest, size = max(deepest, depth), size + count
    return inner, (deepest + 7) // 8 * 8 + 8


def _around(part: Part, rules: Rules, last: bool, depth: int) -> tuple[Code, Code]:
    """What runs before a body, and behind it.

    A body in line has all registers: where a row for counting is, is kept at a depth meanwhile.
    """
    after = list(_HIDING if _is_to_hide(part) else ())
    if part.counter is None:
        return [], after
    before = list(count_code.enter(part.counter))
    if depth:
        before.append(asm.store64(R10, -depth, count_code.ROW_AT))
        after.append(asm.load64(count_code.ROW_AT, R10, -depth))
    counts = count_code.leave(Mask(part.member.handed_on(rules), last))
    return before, [*after, asm.mov64(R8, R0), *counts, asm.mov64(R0, R8)]


# w1 = ctx->rx_queue_index; w0 ^= w1; w0 ^= w1
_HIDING: Code = (asm.load32(R1, R6, _RX_QUEUE_INDEX), asm.xor32(R0, R1), asm.xor32(R0, R1))


def _is_to_hide(part: Part) -> bool:
    """Whether the verifier must not believe what it knows of a body's verdict.

    It takes the callee of a tail call for the end of the program, and would leave out as dead code
    what follows the callee's verdicts (Linux kernel commit e3245f899043 "bpf: properly verify tail
    call behavior", in v6.19 and stable releases).
    """
    return bool(part.array_id) or asm.makes_tail_calls(part.image.code)


def _through(array_id: int) -> bytes:
    """A body that calls what is in a program array, or is a vacant slot."""
    return asm.assemble(
        [
            asm.map_of(R2, array_id),
            asm.mov32(R3, 0),
            asm.call_helper(uapi.BPF_FUNC_tail_call),
            asm.mov32(R0, VACANT),
            asm.exit_(),
        ]
    )
