"""The fused kind of root: the members' code in one program, in order.

For kernels that refuse EXT programs, and for speed: a member of one function stands in line, and
costs a jump at most; another one is a function, and costs a direct call. A member is a program of
its own all the same, loaded alone, with its id, name and tag; the root is made of the code that is
kept with it (image.py).

A held member's code is not in the root. It is called through a program array that its process
holds: when the last such process ends, the kernel empties the array and the slot is vacant.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import KernelError, UnsupportedError, VerifierError, XdpctlError
from ..host.rights import explain_refusal
from ..kernel import libbpf, records, uapi
from ..model.chain import USUAL, VACANT, XDP_PASS, Member, Rules, takes_entry
from ..model.record import FUSED, FUSED_RECORD, Config
from ..programs import image
from ..programs.image import CALL, INSN_SIZE, LD_IMM64, Image, insn
from ..programs.words import reason
from . import count_code
from .count_code import Counter, Mask

# <linux/bpf_common.h> and <linux/bpf.h>.
_MOV32_K, _MOV64_X, _EXIT = 0xB4, 0xBF, 0x95
_JEQ32_K, _JNE32_K, _JNE64_K = 0x16, 0x56, 0x55
_JA, _ADD64_K = 0x05, 0x07
_LDX_W, _LDX_DW, _STX_DW, _XOR32_X = 0x61, 0x79, 0x7B, 0xAC
_CLASS, _LDX, _ST, _STX = 0x07, 0x01, 0x02, 0x03
_FRAME, _STACK = 10, 512
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


def build(parts: Sequence[Part], why: int, rules: Rules = USUAL) -> tuple[int, records.ProgInfo]:
    """Load a root for a chain, attached nowhere; returns its descriptor and info.

    `why` is the errno for which the kernel refuses EXT programs, 0 if nobody asked it. It takes
    packets of several fragments if every member does. Raises RightsError, UnsupportedError or
    VerifierError, which names the member.
    """
    try:
        fd = _load(parts, rules=rules)
    except KernelError:
        try:
            # In line they share a frame; as functions each may have more of the stack.
            fd = _load(parts, rules=rules, in_line=False)
        except KernelError as error:
            raise _explain(parts, error) from error
    try:
        config = Config.of([part.member for part in parts], protocol=0)._replace(
            programs=tuple(part.program_id for part in parts),
            arrays=tuple(part.array_id for part in parts),
            why=why,
        )
        image.keep(fd, FUSED_RECORD, config.pack_fused())
        info = libbpf.prog_info(fd)
        if info.name != FUSED:
            # libbpf leaves the name out, without an error, where a call of its own fails.
            raise XdpctlError(
                "the root was loaded without its name",
                why="a bpf(2) call failed meanwhile, for instance for want of memory",
                hint="try again",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd, info


def held_array(program_fd: int) -> int:
    """A program array that calls a program for as long as somebody holds it: its descriptor."""
    array = libbpf.map_create(uapi.BPF_MAP_TYPE_PROG_ARRAY, "xdpctl_held", 4)
    try:
        libbpf.map_update(array, bytes(4), program_fd.to_bytes(4, sys.byteorder))
    except BaseException:
        os.close(array)
        raise
    return array


# --- the code -----------------------------------------------------------------------------------


def _load(
    parts: Sequence[Part], gpl: bool | None = None, rules: Rules = USUAL, *, in_line: bool = True
) -> int:
    code, names = assemble(parts, rules, in_line=in_line)
    return image.load(
        uapi.BPF_PROG_TYPE_XDP,
        FUSED,
        code,
        names,
        gpl=_is_gpl(parts) if gpl is None else gpl,
        frags=all(part.member.frags for part in parts),
    )


def _is_gpl(parts: Sequence[Part]) -> bool:
    """Whether GPL-only helpers may be called: never for a member that does not allow it."""
    return all(part.image.gpl or part.array_id for part in parts)


def assemble(
    parts: Sequence[Part], rules: Rules = USUAL, *, in_line: bool = True
) -> tuple[bytes, dict[int, str]]:
    """The root's code, its maps named by id, and its functions' names by first instruction.

    A lone program whose verdict is the chain's is the root itself. With `in_line` a body that can
    stands in the main function; else every one is a function. The rules are the interface's.
    """
    lone = not (parts[0].array_id or parts[0].counter)
    if lone and takes_entry([part.member for part in parts], rules):
        return parts[0].image.code, {0: FUSED}
    bodies = [_through(part.array_id) if part.array_id else part.image.code for part in parts]
    inner, depth = _in_line(parts, bodies) if in_line else ({}, 0)
    main = _count(_main(parts, [0] * len(parts), rules, inner, depth))
    names, begins, end, functions = {0: FUSED}, [], main, b""
    for slot, (part, body) in enumerate(zip(parts, bodies, strict=True)):
        begins.append(end)
        if slot not in inner:
            names[end] = f"prog{slot}_{part.member.name}"[:100]
            functions += body
            end += _count(body)
    return _main(parts, begins, rules, inner, depth) + functions, names


def _main(
    parts: Sequence[Part],
    begins: Sequence[int],
    rules: Rules,
    inner: Mapping[int, bytes],
    depth: int,
) -> bytes:
    """Run the bodies in order, until a verdict is in no mask: those of `inner` in line, by slot.

    The context is kept in r6, or `depth` bytes below the frame's top for bodies in line, which have
    the registers. The usual verdict falls through to the next body: with a call three instructions
    a slot, and no jump. The others are looked at behind the end.
    """
    keep = insn(_STX_DW, _FRAME, 1, -depth) if inner else insn(_MOV64_X, dst=6, src=1)
    bodies = []
    for slot, part in enumerate(parts):
        last = slot + 1 == len(parts)
        before, after = _around(part, rules, last, depth + 8 if slot in inner else 0)
        if slot in inner:
            bodies.append((before + insn(_LDX_DW, 1, _FRAME, -depth) + inner[slot], after))
        else:
            found = insn(_LDX_DW, 6, _FRAME, -depth) if inner else b""
            bodies.append((found + before + insn(_MOV64_X, dst=1, src=6), after))
    calls = len(parts) - len(inner)
    end = _count(keep) + sum(_count(body + after) + 1 for body, after in bodies) + calls + 2
    code, others = keep, b""
    for slot, (part, begin) in enumerate(zip(parts, begins, strict=True)):
        mask = part.member.handed_on(rules)
        on = sorted((n for n in range(32) if mask >> n & 1), key=lambda n: n != XDP_PASS)
        body, after = bodies[slot]
        code += body
        if slot not in inner:
            code += insn(CALL, src=uapi.BPF_PSEUDO_CALL, imm=begin - _count(code) - 1)
        code += after
        leave = end + _count(others) - _count(code) - 1
        # With an empty mask always: a jump whose condition holds, for the verifier wants every
        # instruction to be within reach.
        code += insn(_JNE32_K, off=leave, imm=on[0]) if on else insn(_JNE64_K, _FRAME, off=leave)
        for verdict in on[1:]:
            others += insn(_JEQ32_K, off=_count(code) - end - _count(others) - 1, imm=verdict)
        if rules.on_vacant != XDP_PASS:
            others += insn(_JNE32_K, off=1, imm=VACANT) + insn(_MOV32_K, imm=rules.on_vacant)
        others += insn(_EXIT)
    return code + insn(_MOV32_K, imm=rules.on_end) + insn(_EXIT) + others


def _in_line(parts: Sequence[Part], bodies: Sequence[bytes]) -> tuple[dict[int, bytes], int]:
    """The bodies that can stand in the main function, by slot, and how deep the context lies there.

    Each is one function, which goes on behind itself where it ended, and makes no tail call: that
    would leave the root. Whether the context's place is free of all of them is the verifier's to
    say: what it loads from there has to be the context. Below it, one for the counting.
    """
    inner, deepest, size = dict[int, bytes](), 0, 0
    for slot, (part, body) in enumerate(zip(parts, bodies, strict=True)):
        count = _count(body)
        if part.array_id or size + count > _MAX_IN_LINE:
            continue
        if image.makes_tail_calls(body) or len(image.starts(body)) > 1:
            continue
        depth = _depth(body)
        if depth + 16 > _STACK:
            continue
        changed, opcodes, place = bytearray(body), body[::INSN_SIZE], -1
        while (place := opcodes.find(_EXIT, place + 1)) >= 0:
            changed[place * INSN_SIZE : (place + 1) * INSN_SIZE] = insn(_JA, off=count - place - 1)
        inner[slot] = bytes(changed)
        deepest, size = max(deepest, depth), size + count
    return inner, (deepest + 7) // 8 * 8 + 8


def _depth(body: bytes) -> int:
    """How much of the stack a function seems to use, in bytes: what it adds to pointers, too."""
    deepest = 0
    for opcode, registers, off, imm in struct.iter_unpack("=BBhi", body):
        kind = opcode & _CLASS
        base = registers >> 4 if kind == _LDX else registers & 15
        if kind in (_LDX, _ST, _STX) and base == _FRAME:
            deepest = max(deepest, -off)
        elif opcode == _ADD64_K and -_STACK <= imm < 0:
            deepest = max(deepest, -imm)
    return deepest


def _around(part: Part, rules: Rules, last: bool, depth: int) -> tuple[bytes, bytes]:
    """What runs before a body, and behind it.

    A body in line has all registers: where a row for counting is, is kept at a depth meanwhile.
    """
    after = _HIDING if _is_to_hide(part) else b""
    if part.counter is None:
        return b"", after
    before = count_code.enter(part.counter)
    counts = count_code.leave(Mask(part.member.handed_on(rules), last))
    if depth:
        before += insn(_STX_DW, _FRAME, count_code.ROW_AT, -depth)
        after += insn(_LDX_DW, count_code.ROW_AT, _FRAME, -depth)
    keep, give = insn(_MOV64_X, dst=8, src=0), insn(_MOV64_X, dst=0, src=8)
    return before, after + keep + counts + give


# w1 = ctx->rx_queue_index; w0 ^= w1; w0 ^= w1
_HIDING = insn(_LDX_W, dst=1, src=6, off=_RX_QUEUE_INDEX) + insn(_XOR32_X, dst=0, src=1) * 2


def _is_to_hide(part: Part) -> bool:
    """Whether the verifier must not believe what it knows of a body's verdict.

    It takes the callee of a tail call for the end of the program, and would leave out as dead code
    what follows the callee's verdicts (Linux kernel commit e3245f899043 "bpf: properly verify tail
    call behavior", in v6.19 and stable releases).
    """
    return bool(part.array_id) or image.makes_tail_calls(part.image.code)


def _count(code: bytes) -> int:
    return len(code) // INSN_SIZE


def _through(array_id: int) -> bytes:
    """A body that calls what is in a program array, or is a vacant slot."""
    return b"".join(
        (
            insn(LD_IMM64, dst=2, src=uapi.BPF_PSEUDO_MAP_FD, imm=array_id),
            insn(0),
            insn(_MOV32_K, dst=3),
            insn(CALL, imm=uapi.BPF_FUNC_tail_call),
            insn(_MOV32_K, imm=VACANT),
            insn(_EXIT),
        )
    )


# --- refusals -----------------------------------------------------------------------------------


def _explain(parts: Sequence[Part], error: KernelError) -> XdpctlError:
    """Why the kernel refuses a root, and because of which member."""
    if error.errno == errno.EPERM and not error.log:
        return explain_refusal(error, "the fused root") or error.explained()
    culprit, alone, error = _culprit(parts, error)
    member = culprit.member
    what = f"{member.name} (id {culprit.program_id})" if member.id else member.name
    if error.errno == errno.ENOENT and not error.log:
        return UnsupportedError(
            f"{what} cannot be fused",
            why="a map that its code names is gone from the kernel",
            hint="unload it and load it again",
        )
    foreign = [part.member.name for part in parts if not (part.image.gpl or part.array_id)]
    if foreign and culprit.image.gpl and _fits([culprit], gpl=True):
        return UnsupportedError(
            f"{what} cannot be fused with {', '.join(foreign)}",
            why=f"it calls what the kernel keeps for GPL-compatible programs, and "
            f"{', '.join(foreign)} {'is' if len(foreign) == 1 else 'are'} not GPL-compatible: "
            "functions of one program have one licence",
            hint="--root ext, where the kernel allows it, keeps programs apart",
        )
    frags = {part.member.frags for part in parts}
    if len(frags) > 1 and _fits([culprit], gpl=_is_gpl(parts)):
        bare = _filler(frags=False)
        if with_arrays := [
            part.member.name
            for part in parts
            if part.member.frags and not _fits([part, bare], gpl=part.image.gpl)
        ]:
            return UnsupportedError(
                f"the root cannot call the program arrays of {', '.join(with_arrays)}",
                why="programs that take packets of several fragments, and make tail calls or are "
                "held by a process, need a root that takes them, too; not every member does",
                hint='build all members with SEC("xdp.frags"), or none',
            )
    if alone and member.id and image.makes_tail_calls(culprit.image.code):
        with libbpf.owned(libbpf.prog_fd(member.id)) as fd:
            if libbpf.prog_info(fd).type == uapi.BPF_PROG_TYPE_EXT:
                return image.array_of_another_kind(what, "fused")
    beside = "by itself, as a function of the root" if alone else "beside the members before it"
    if len(parts) == 1 and not alone:
        beside = "as the root itself"
    return VerifierError(
        f"the verifier refused {what} in a fused root",
        why=f"it was accepted as a program of its own, but not {beside}: "
        f"{reason(error.log) or error}",
        hint="members share one million verifier steps, 64 maps and 256 functions; each has, with "
        "the root, 512 bytes of stack and 8 levels of calls, one of them the root's; -v shows the "
        "verifier's whole log",
        details=error.log,
    )


def _filler(*, frags: bool) -> Part:
    """A second slot, lest a lone program be the root itself."""
    return Part(Member("nothing", frags=frags), 0, Image(image.PASS, frags, gpl=True))


def _fits(parts: Sequence[Part], gpl: bool | None = None) -> bool:
    try:
        os.close(_load(parts, gpl, in_line=False))
    except KernelError:
        return False
    return True


def _culprit(parts: Sequence[Part], error: KernelError) -> tuple[Part, bool, KernelError]:
    """The first member that the kernel does not take behind a root's main function.

    Alone, or else after those before it; with the refusal of that.
    """
    gpl = _is_gpl(parts)

    def refused(some: Sequence[Part]) -> KernelError | None:
        try:
            os.close(_load(some, gpl, in_line=False))
        except KernelError as refusal:
            return refusal
        return None

    for part in parts:
        if refusal := refused([part, _filler(frags=part.member.frags)]):
            return part, True, refusal
    fitting, failing = 1, len(parts)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        refusal = refused(parts[:middle])
        if refusal is None:
            fitting = middle
        else:
            failing, error = middle, refusal
    return parts[failing - 1], False, error
