"""The code of a fused root: the members' bodies in one program, in order.

A body of one function stands in the main function (in_line.py); another one is a function, and
costs a direct call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..kernel import asm, uapi
from ..kernel.asm import R0, R1, R2, R3, R6, R7, R8, R9, R10, Code, Insn, Label, Reg
from ..model.chain import USUAL, VACANT, XDP_PASS, Member, Rules, takes_entry
from ..model.record import FUSED
from ..model.source import Image
from ..value import Value
from . import count_code, in_line
from .count_code import Counter, Mask
from .in_line import Ways

_RX_QUEUE_INDEX = 16
"""Where struct xdp_md has a number that the verifier does not know."""

_MAX_IN_LINE = 1 << 14
"""How many instructions the main function may have: its jumps reach twice as far."""


class Part(Value):
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
    frame = _frame(parts, bodies) if in_line else Frame()
    functions = {slot: Label() for slot in range(len(parts)) if slot not in frame.inner}
    code = [*_main(parts, bodies, functions, rules, frame)]
    for slot, function in functions.items():
        code += [function, bodies[slot]]
    where = asm.places(code)
    names = {
        where[function]: f"prog{slot}_{parts[slot].member.name}"[:100]
        for slot, function in functions.items()
    }
    return asm.assemble(code), {0: FUSED, **names}


class Frame(Value):
    """The main function: the slots whose bodies stand in line, and where its own things are.

    The context is in a register, or on the stack where the bodies in line want all of those. The
    stack is the bodies' down to `depth`; below are the context, if it is there, and a row's place.
    """

    inner: frozenset[int] = frozenset()
    depth: int = 0
    register: Reg | None = R6

    def keep(self, context: Reg) -> Insn:
        if self.register:
            return asm.mov64(self.register, context)
        return asm.store64(R10, -self.depth - 8, context)

    def fetch(self, context: Reg) -> Insn:
        if self.register:
            return asm.mov64(context, self.register)
        return asm.load64(context, R10, -self.depth - 8)


def _main(
    parts: Sequence[Part],
    bodies: Sequence[bytes],
    functions: Mapping[int, Label],
    rules: Rules,
    frame: Frame,
) -> Code:
    """Run the bodies in order, until a verdict is in no mask.

    The usual verdict falls through to the next body: with a call three instructions a slot, and no
    jump. The others are looked at behind the end.
    """
    code: list[Insn | Label | bytes] = [frame.keep(R1)]
    frags = all(part.member.frags for part in parts)
    others = list[Insn | Label | bytes]()
    for slot, part in enumerate(parts):
        mask = part.member.handed_on(rules)
        on = sorted((n for n in range(32) if mask >> n & 1), key=lambda n: n != XDP_PASS)
        ways = Ways(Label(), Label(), Label(), mask)
        place = Place(Mask(mask, slot + 1 == len(parts)), slot in frame.inner, frags)
        before, after = _around(part, place, frame)
        # With an empty mask always: a jump whose condition holds, for the verifier wants every
        # instruction to be within reach.
        to_others = asm.jne32(R0, on[0], ways.other) if on else asm.jne64(R10, 0, ways.other)
        look = [ways.end, *after, to_others]
        piece = [*before, *([frame.fetch(R1)] if slot or before else [])]
        if slot not in frame.inner:
            piece += [asm.call(functions[slot]), *look]
        else:
            piece += (inner := in_line.body(bodies[slot], ways, certain=not after))
            piece += look if ways.end in in_line.goes_to(inner) else []
        code += [*piece, ways.following]
        if ways.other in in_line.goes_to(piece):
            others += [ways.other, *(asm.jeq32(R0, verdict, ways.following) for verdict in on[1:])]
            if rules.on_vacant != XDP_PASS:
                others += asm.over(asm.jne32, R0, VACANT, [asm.mov32(R0, rules.on_vacant)])
            others.append(asm.exit_())
    return [*code, asm.mov32(R0, rules.on_end), asm.exit_(), *others]


def _frame(parts: Sequence[Part], bodies: Sequence[bytes]) -> Frame:
    """Which bodies can stand in the main function, and where the context can lie there.

    Each is one function, which goes on behind itself where it ended, and makes no tail call: that
    would leave the root. Whether the context's place on the stack is free of all of them is the
    verifier's to say: what it loads from there has to be the context.
    """
    inner, deepest, size, free = set[int](), 0, 0, {R6, R7, R8, R9}
    if any(part.counter for part in parts):
        deepest = count_code.STACK
        free -= {count_code.ROW_AT, R8}
    for slot, (part, body) in enumerate(zip(parts, bodies, strict=True)):
        count = asm.count(body)
        if part.array_id or size + count > _MAX_IN_LINE:
            continue
        if asm.makes_tail_calls(body) or len(asm.starts(body)) > 1:
            continue
        depth = asm.stack_depth(body)
        if depth + 16 > asm.STACK:
            continue
        inner.add(slot)
        deepest, size = max(deepest, depth), size + count
        free &= in_line.untouched(body)
    register = max(free, key=lambda one: one.value) if free else None
    return Frame(frozenset(inner), (deepest + 7) // 8 * 8, register)


class Place(Value):
    """Where a body stands: its mask, whether it is in line, and if packets may have fragments."""

    mask: Mask
    inner: bool
    frags: bool


def _around(part: Part, place: Place, frame: Frame) -> tuple[Code, Code]:
    """What runs before a body, and behind it.

    A body in line has the registers: where a row for counting is, is on the stack meanwhile.
    """
    after = list(_hiding(frame) if _is_to_hide(part) else ())
    if part.counter is None:
        return [], after
    size = count_code.size_of([frame.fetch(R1)], 0, 4, frags=place.frags)
    before, row_at = list(count_code.enter(part.counter, size)), -frame.depth - 16
    if place.inner:
        before.append(asm.store64(R10, row_at, count_code.ROW_AT))
        after.append(asm.load64(count_code.ROW_AT, R10, row_at))
    counts = count_code.leave(place.mask)
    return before, [*after, asm.mov64(R8, R0), *counts, asm.mov64(R0, R8)]


def _hiding(frame: Frame) -> Code:
    """w1 = ctx->rx_queue_index; w0 ^= w1; w0 ^= w1."""
    queue = asm.load32(R1, R1, _RX_QUEUE_INDEX)
    return [frame.fetch(R1), queue, asm.xor32(R0, R1), asm.xor32(R0, R1)]


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
