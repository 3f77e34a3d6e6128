"""xdpctl.kernel.asm: labels, and the bytes of instructions, against an encoder of the tests' own.

test_libbpf.py compares the opcodes with the headers; test_fused.py, test_counters.py and
test_trace.py run what is put together.
"""

from __future__ import annotations

import ctypes
import random
import struct

import pytest

from tests.unit.machine import insn
from xdpctl.kernel import asm, uapi
from xdpctl.kernel.asm import R0, R1, R2, R10, Code, Insn, Label, over


def test_a_jump_goes_to_its_label() -> None:
    """Behind it or before it; a load of 64 bits is two instructions on the way."""
    back, on = Label(), Label()
    code: Code = [
        back,
        asm.jeq32(R1, 7, on),
        asm.constant(R2, 1),
        insn(0xB4) * 3,
        asm.ja(back),
        on,
        asm.exit_(),
    ]
    load = insn(0x18, 2, imm=1) + insn(0)
    expected = insn(0x16, 1, off=6, imm=7) + load + insn(0xB4) * 3 + insn(0x05, off=-7)
    assert asm.assemble(code) == expected + insn(0x95)
    assert asm.places(code) == {back: 0, on: 7}
    assert asm.length(code) == asm.count(asm.assemble(code)) == 8


def test_a_call_names_its_function() -> None:
    function = Label()
    code: Code = [asm.call(function), asm.exit_(), function, asm.call_helper(12), asm.exit_()]
    calls = insn(0x85, src=1, imm=1) + insn(0x95) + insn(0x85, imm=12) + insn(0x95)
    assert asm.assemble(code) == calls


def test_maps_and_constants() -> None:
    pairs = {
        asm.map_of(R1, 40): insn(0x18, 1, 1, imm=40) + insn(0),
        asm.map_value(R2, 41, 24): insn(0x18, 2, 2, imm=41) + insn(0, imm=24),
        asm.constant(R1, 2**64 - 2): insn(0x18, 1, imm=-2) + insn(0, imm=-1),
        asm.constant(R1, 5 << 32 | 1 << 31): insn(0x18, 1, imm=-(2**31)) + insn(0, imm=5),
    }
    for one, expected in pairs.items():
        assert asm.assemble([one]) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (asm.mov64(R0, R10), insn(0xBF, 0, 10)),
        (asm.mov32(R0, -1), insn(0xB4, imm=-1)),
        (asm.store64(R10, -8, R1), insn(0x7B, 10, 1, -8)),
        (asm.store32(R10, -4, 9), insn(0x62, 10, 0, -4, 9)),
        (asm.load64(R1, R2, 16), insn(0x79, 1, 2, 16)),
    ],
)
def test_registers_and_immediates(instruction: Insn, expected: bytes) -> None:
    assert asm.assemble([instruction]) == expected


@pytest.mark.parametrize("seed", range(20))
def test_labels_anywhere(seed: int) -> None:
    """Each jump leads to the instruction that its label stands before."""
    chance = random.Random(seed)
    labels = [Label() for _ in range(chance.randrange(1, 9))]
    code: list[Insn | Label | bytes] = [*labels]
    for _ in range(chance.randrange(1, 60)):
        to = chance.choice(labels)
        code.append(chance.choice((asm.ja(to), asm.call(to), asm.constant(R1, 7), insn(0xB4) * 2)))
    chance.shuffle(code)
    where, here = asm.places(code), 0
    packed = [*struct.iter_unpack("=BBhi", asm.assemble([*code, asm.exit_()]))]
    for item in code:
        if isinstance(item, Insn) and item.to:
            _opcode, _registers, off, imm = packed[here]
            assert here + 1 + off + imm == where[item.to]
        here += asm.length([item])


class Fields(ctypes.Structure):
    """struct bpf_insn of <linux/bpf.h>, laid out as the C compiler of this machine does."""

    _fields_ = (
        ("code", ctypes.c_uint8),
        ("dst_reg", ctypes.c_uint8, 4),
        ("src_reg", ctypes.c_uint8, 4),
        ("off", ctypes.c_int16),
        ("imm", ctypes.c_int32),
    )


def test_instructions_are_the_compiler_s() -> None:
    """Also on machines of the other byte order: tests/endian."""
    written = Insn(0x7B, asm.R10, 3, -8, -2).pack()
    fields = Fields.from_buffer_copy(written)
    found = (fields.code, fields.dst_reg, fields.src_reg, fields.off, fields.imm)
    assert found == (0x7B, 10, 3, -8, -2)
    (decoded,) = asm.decoded(written)
    assert decoded == found
    (named,) = asm.references(Insn(asm.CALL, asm.R0, 1, 0, 5).pack())
    assert (named.src, named.imm) == (1, 5)


def test_a_label_that_stands_nowhere() -> None:
    with pytest.raises(KeyError):
        asm.assemble([asm.ja(Label())])


def test_a_jump_that_is_too_far() -> None:
    end = Label()
    with pytest.raises(struct.error):
        asm.assemble([asm.ja(end), insn(0xB4) * (1 << 15), end, asm.exit_()])


def test_code_that_is_left_out() -> None:
    inner = over(asm.jne64, R2, 0, [asm.mov32(R0, 1)])
    code = over(asm.jeq32, R1, 3, [*inner, asm.mov32(R0, 2)])
    jumps = insn(0x16, 1, off=3, imm=3) + insn(0x55, 2, off=1)
    assert asm.assemble(code) == jumps + insn(0xB4, imm=1) + insn(0xB4, imm=2)


def test_others_in_the_place_of_some_instructions() -> None:
    end = Label()
    body = insn(0x95) + insn(0x18, 1) + insn(0, imm=0x95) + insn(0x95)
    changed = asm.assemble([*asm.with_changes(body, {3: asm.ja(end), 0: asm.ja(end)}), end])
    assert changed == insn(0x05, off=3) + body[8:24] + insn(0x05)


# --- what may be called ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("insn", "may"),
    [
        (asm.call_helper(uapi.BPF_FUNC_map_lookup_elem), False),
        (asm.call_helper(uapi.BPF_FUNC_loop), True),
        (asm.Insn(asm.CALL, src=uapi.BPF_PSEUDO_CALL, imm=-1), True),  # as a compiler leaves it
        (asm.map_of(asm.R1, 5), False),
    ],
)
def test_what_may_call_functions_of_the_kernel(insn: asm.Insn, may: bool) -> None:
    assert asm.may_call(asm.assemble([insn, asm.exit_()])) is may
