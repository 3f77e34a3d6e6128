"""xdpctl.roots.fused: the code that is made, run by a small interpreter; and what refusals say."""

from __future__ import annotations

import os
import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.unit.machine import DST, SRC, insn
from tests.unit.samples import DROP, PASS, TX, fresh, running, some
from xdpctl.errors import KernelError, RightsError, UnsupportedError, VerifierError, XdpctlError
from xdpctl.kernel import asm, libbpf, maps, records, uapi
from xdpctl.kernel.asm import CALL, LD_IMM64, R9
from xdpctl.kernel.program import Program, _function_names
from xdpctl.model.chain import USUAL, Member, Rules
from xdpctl.model.record import FUSED, MAX_SLOTS, Config
from xdpctl.model.source import Image
from xdpctl.observe.members import config_of
from xdpctl.roots import fused, fused_code
from xdpctl.roots.count_code import Counter
from xdpctl.roots.fused_code import Part

MOV32, MOV64, JEQ32, JNE32, EXIT = 0xB4, 0xBF, 0x16, 0x56, 0x95
LDX_W, XOR32, JNE64, JA = 0x61, 0xAC, 0x55, 0x05
LDX, STX, ST, ADD64, FRAME = 0x79, 0x7B, 0x7A, 0x07, 10
QUEUE = 0x51F
CONTEXT = object()


class Machine:
    """Runs what `assemble` makes: moves, stack, calls, jumps, tail calls, as the kernel does.

    `arrays` has by id what each program array's program answers; an array not in it is empty.
    """

    def __init__(self, code: bytes, arrays: Mapping[int, int] | None = None) -> None:
        self.code = [*struct.iter_unpack("=BBhi", code)]
        self.arrays = arrays or {}
        self.steps = 0

    def run(self, place: int = 0) -> int:
        """A function's result, from its first instruction; each has registers of its own."""
        registers: list[object] = [None, CONTEXT, *[None] * 8, "frame"]
        stack: dict[int, object] = {}
        while True:
            code, both, off, imm = self.code[place]
            dst, src = both >> DST & 15, both >> SRC & 15
            place += 1
            self.steps += 1
            if code == MOV32:
                registers[dst] = imm & 0xFFFFFFFF
            elif code == MOV64:
                registers[dst] = registers[src]
            elif code in (JEQ32, JNE32):
                equal = registers[dst] == imm & 0xFFFFFFFF
                place += off if equal == (code == JEQ32) else 0
            elif code == JNE64:
                assert (registers[dst], imm) == ("frame", 0)
                place += off
            elif code == JA:
                place += off
            elif code == STX:
                assert registers[dst] == "frame"
                assert -512 <= off <= -8 == off % 8 - 8
                stack[off] = registers[src]
            elif code == LDX:
                assert registers[src] == "frame"
                registers[dst] = stack[off]
            elif (code, off) == (LDX_W, 16):
                assert registers[src] is CONTEXT
                registers[dst] = QUEUE
            elif code == XOR32:
                one, other = registers[dst], registers[src]
                assert isinstance(one, int)
                assert isinstance(other, int)
                registers[dst] = one ^ other
            elif code == EXIT:
                assert isinstance(registers[0], int), "a verdict that nobody has set"
                return registers[0]
            elif code == LD_IMM64:
                assert src == uapi.BPF_PSEUDO_MAP_FD
                registers[dst], place = ("map", imm), place + 1
            elif (code, src) == (CALL, uapi.BPF_PSEUDO_CALL):
                assert registers[1] is CONTEXT, "a function gets the context"
                registers[0:6] = [self.run(place + imm), *[None] * 5]
            elif (code, src, imm) == (CALL, 0, 12):
                assert (registers[1], registers[3]) == (CONTEXT, 0)
                for array, answer in self.arrays.items():
                    if registers[2] == ("map", array):
                        return answer
                registers[0:6] = [None] * 6
            else:
                pytest.fail(f"unknown instruction {code:#x} at {place - 1}")


def answering(verdict: int, *, deep: bool = False, stack: int = 0) -> bytes:
    """A program that answers so; a deep one by a function of its own, behind another.

    With a `stack` it writes all over that many bytes, and over the registers that are its own.
    """
    answer = insn(MOV32, imm=verdict - (verdict >> 31 << 32)) + insn(EXIT)
    if stack:
        spoilt = b"".join(insn(MOV32, dst=register, imm=77) for register in (6, 7, 8, 9))
        spoilt += b"".join(insn(STX, FRAME, 6, -place) for place in range(8, stack + 8, 8))
        # Two ends: the first one jumps, the second one falls through.
        return (
            spoilt + insn(JNE32, dst=6, off=2, imm=1) + insn(MOV32, imm=1234) + insn(EXIT) + answer
        )
    if not deep:
        return answer
    wrong = insn(MOV32, imm=1234) + insn(EXIT)
    return insn(CALL, src=uapi.BPF_PSEUDO_CALL, imm=3) + insn(EXIT) + wrong + answer


def rule(
    masks: Sequence[int], verdicts: Sequence[int], *, dispatched: bool, rules: Rules = USUAL
) -> int:
    """What bpf/dispatcher.c says of a chain, a slot at a time; of a lone program, its verdict."""
    if not dispatched and rules == USUAL and len(masks) == 1 and not masks[0] & ~PASS:
        return verdicts[0]
    for mask, code in zip(masks, verdicts, strict=True):
        on = code < 32 and (code == 31 or mask >> code & 1)
        if code == 31 and rules.on_vacant != 2:
            return rules.on_vacant
        if not on:
            return code
    return rules.on_end


def part(
    verdict: int, mask: int = PASS, *, deep: bool = False, stack: int = 0, array_id: int = 0
) -> Part:
    code = Image(answering(verdict, deep=deep, stack=stack), frags=False, gpl=True)
    return Part(fresh("member", actions=mask), 9, code, array_id)


# --- the rule -----------------------------------------------------------------------------------

VERDICTS = (*range(6), 30, 31, 32, 33, 34, 63, 2**31, 2**32 - 1)


@pytest.mark.parametrize("seed", some(20, range(60)))
def test_any_chain_decides_as_a_dispatcher_does(seed: int) -> None:
    """Held members with a program in their array or without, and members with functions."""
    chance = random.Random(seed)
    for _ in range(40):
        count = chance.choice((1, 1, 2, 3, 5, 10, 40))
        masks = [
            chance.choice((0, PASS, chance.getrandbits(5), chance.getrandbits(32)))
            for _ in range(count)
        ]
        # Mostly such as go on, or long chains would not be tried.
        verdicts = [
            chance.choice(VERDICTS) if chance.random() < 0.3 else chance.choice((2, 31))
            for _ in range(count)
        ]
        parts, arrays, answers = [], {}, []
        for slot, (mask, verdict) in enumerate(zip(masks, verdicts, strict=True)):
            held = chance.random() < 0.3
            parts.append(
                part(
                    verdict,
                    mask,
                    deep=chance.random() < 0.3,
                    stack=chance.choice((0, 0, 8, 64, 504, 512)),
                    array_id=slot + 1 if held else 0,
                )
            )
            if held and chance.random() < 0.7:
                arrays[slot + 1] = verdict
            answers.append(31 if held and slot + 1 not in arrays else verdict)
        rules = (
            USUAL if chance.random() < 0.5 else Rules(chance.randint(0, 2), chance.randint(1, 2))
        )
        code, _names = fused_code.assemble(parts, rules, in_line=chance.random() < 0.7)
        # A held program is never the root itself.
        held = any(one.array_id for one in parts)
        expected = rule(masks, answers, dispatched=held, rules=rules)
        assert Machine(code, arrays).run() == expected, (masks, verdicts)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("mask", [0, PASS, DROP, PASS | DROP, 0x1F])
def test_each_verdict_under_each_mask(verdict: int, mask: int) -> None:
    code, _names = fused_code.assemble([part(verdict, mask), part(3)])
    goes_on = verdict == 31 or (verdict < 32 and mask >> verdict & 1)
    assert Machine(code).run() == (3 if goes_on else verdict)


def test_a_lone_program_is_the_root_itself() -> None:
    for mask in (0, PASS):
        alone = part(31, mask)
        assert fused_code.assemble([alone]) == (alone.image.code, {0: FUSED})
    # Any other hands on somewhere, and a held one has to be able to go.
    assert Machine(fused_code.assemble([part(1, DROP)])[0]).run() == 2
    assert Machine(fused_code.assemble([part(1, PASS, array_id=7)])[0]).run() == 2
    assert Machine(fused_code.assemble([part(1, PASS, array_id=7)])[0], {7: 1}).run() == 1


@pytest.mark.parametrize("count", [2, 10, 200])
@pytest.mark.parametrize("in_line", [False, True])
def test_the_usual_verdict_costs_so_many_instructions_a_slot(count: int, in_line: bool) -> None:
    """The context is kept once, and given to each but the first; two at the root's end.

    With a call it is four more, the member's two among them. In line a verdict that is certain is
    not looked at: what is left of the member are jumps to what follows, which the verifier removes.
    """
    masks = [PASS, PASS | DROP | TX]
    parts = [part(2, masks[slot % 2]) for slot in range(count)]
    machine = Machine(fused_code.assemble(parts, in_line=in_line)[0])
    assert machine.run() == 2
    assert machine.steps == 2 + (1 + 2 if in_line else 1 + 4) * count


def test_what_stands_in_line_and_where_the_context_is_kept() -> None:
    def functions(*parts: Part) -> list[str]:
        return list(fused_code.assemble([*parts, part(2)])[1].values())[1:]

    assert functions(part(2), part(1, stack=496)) == []
    held, deep, full = part(2, array_id=9), part(2, deep=True), part(2, stack=504)
    calling = Image(insn(CALL, imm=uapi.BPF_FUNC_tail_call) + answering(2), False, True)
    tail = replace(part(2), image=calling)
    large = replace(part(2), image=Image(insn(MOV32, imm=2) * (1 << 14) + insn(EXIT), False, True))
    named = [f"prog{slot}_member" for slot in range(5)]
    assert functions(held, deep, full, tail, large) == named
    # All of it together has to be in reach of the jumps.
    half = replace(part(2), image=Image(insn(MOV32, imm=2) * (1 << 13) + insn(EXIT), False, True))
    code, names = fused_code.assemble([half, half, half])
    assert len(names) == 3
    assert Machine(code).run() == 2
    counted = replace(part(2), counter=Counter(5, 0))
    assert functions(part(2), counted) == []
    # Where the context lies: what finds a row writes to the stack, and a body to registers.
    for first, register in ((counted, R9), (part(2, stack=8), None)):
        frame = fused_code._frame([first, counted], [first.image.code, counted.image.code])
        assert (frame.register, frame.depth) == (register, 8)


@pytest.mark.parametrize(
    ("code", "bytes_used"),
    [
        (answering(2), 0),
        (answering(2, stack=64), 64),
        (insn(MOV64, 2, FRAME) + insn(ADD64, 2, imm=-100), 100),
        (insn(ADD64, 2, imm=-513) + insn(ADD64, 2, imm=8), 0),
        (insn(ST, FRAME, off=-4) + insn(LDX_W, 3, FRAME, -12) + insn(LDX, 3, 1, -99), 12),
    ],
)
def test_how_deep_a_function_seems_to_use_the_stack(code: bytes, bytes_used: int) -> None:
    assert asm.stack_depth(code) == bytes_used


@pytest.mark.usefixtures("nothing_is_left")
def test_what_does_not_fit_in_line_stands_as_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def load(_parts: Sequence[Part], in_line: bool = True, **_rest: object) -> Program:
        tried.append(in_line)
        if in_line:
            raise KernelError("verifier", 22, "no")
        return Program(os.open(os.devnull, os.O_RDONLY))

    monkeypatch.setattr(fused, "_load", load)
    monkeypatch.setattr(Program, "keep", lambda *_record: None)
    monkeypatch.setattr(libbpf, "prog_info", lambda _fd: ROOT)
    fused.build([part(2), part(2)], 0)[0].close()
    assert tried == [True, False]


# --- functions and maps -------------------------------------------------------------------------


def test_every_function_has_a_name_of_its_own() -> None:
    members = [fresh("a" * 300), fresh("a"), fresh("a"), fresh("b c")]
    parts = [replace(part(2, deep=True), member=one) for one in members]
    parts[2] = replace(parts[2], array_id=7)
    code, names = fused_code.assemble(parts)
    given = _function_names(asm.starts(code), names)
    assert given == [
        FUSED,
        *(f"prog0_{'a' * 94}", f"prog0_{'a' * 94}_1"),
        *("prog1_a", "prog1_a_1"),
        "prog2_a",  # what calls through an array has no functions
        *("prog3_b_c", "prog3_b_c_1"),
    ]
    assert all(re.fullmatch(r"[A-Za-z_]\w{,126}", name) for name in given)  # KSYM_NAME_LEN: 128
    assert set(names) <= set(asm.starts(code))


def test_maps_of_all_members_and_arrays_of_held_ones() -> None:
    def using(number: int) -> Part:
        load = insn(LD_IMM64, dst=1, src=uapi.BPF_PSEUDO_MAP_FD, imm=number) + insn(0)
        return replace(part(2), image=Image(load + answering(2), frags=False, gpl=True))

    parts = [using(31), using(32), using(31), replace(using(33), array_id=99)]
    assert asm.maps_of(fused_code.assemble(parts)[0]) == {31, 32, 99}


def test_gpl_only_helpers_are_for_chains_whose_every_function_allows_them() -> None:
    free, closed = part(2), replace(part(2), image=Image(b"", frags=False, gpl=False))
    assert fused._is_gpl([free, free])
    assert not fused._is_gpl([free, closed])
    # A held member is a program of its own.
    assert fused._is_gpl([free, replace(closed, array_id=7)])


# --- the root -----------------------------------------------------------------------------------

ROOT = records.ProgInfo(600, 6, FUSED, "", 0, 0, 0, (31, 40), gpl=True)
OWN = records.MapInfo(31, 1, "packets", 8)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A kernel that takes everything; remembers what it was given."""
    given: dict[str, object] = {}

    def load(
        kind: int, name: str, code: bytes, _names: object, *, gpl: bool, frags: bool, device: int
    ) -> Program:
        given.update(kind=kind, name=name, code=code, gpl=gpl, frags=frags, device=device)
        return Program(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def keep(_program: Program, name: str, record: bytes) -> None:
        given[name] = record

    monkeypatch.setattr(Program, "load", load)
    monkeypatch.setattr(Program, "keep", keep)
    monkeypatch.setattr(libbpf, "prog_info", lambda _fd: ROOT)
    return given


@pytest.mark.usefixtures("nothing_is_left")
def test_a_root_has_its_record(kernel: dict[str, object]) -> None:
    members = [running("one", 11, priority=7, frags=True), fresh("two", actions=DROP, frags=True)]
    parts = [replace(part(2), member=one, program_id=11 + n) for n, one in enumerate(members)]
    parts[1] = replace(parts[1], array_id=40)
    root, info = fused.build(parts, 1)
    root.close()
    assert info == ROOT
    assert (kernel["name"], kernel["kind"]) == (FUSED, uapi.BPF_PROG_TYPE_XDP)
    assert (kernel["gpl"], kernel["frags"]) == (True, True)
    record = kernel["xdpctl_chain"]
    assert isinstance(record, bytes)
    assert Config.unpack_fused(record) == Config(
        0, True, (PASS, DROP), (7, 50), (32, 32), False, (11, 12), (0, 40), 1
    )
    fused_without = fused.build([parts[0], replace(parts[1], member=fresh("bare"))], 0)
    fused_without[0].close()
    assert kernel["frags"] is False


@pytest.mark.usefixtures("nothing_is_left")
def test_a_root_without_its_name_is_not_used(
    kernel: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libbpf, "prog_info", lambda _fd: ROOT._replace(name=""))
    with pytest.raises(XdpctlError, match="without its name"):
        fused.build([part(2), part(2)], 0)


def record_map(monkeypatch: pytest.MonkeyPatch, name: str, kind: int, record: bytes) -> None:
    def map_fd(number: int) -> int:
        assert number in ROOT.map_ids
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(libbpf, "map_fd", map_fd)
    # What is bound comes last, whatever the program's own maps are called.
    bound = records.MapInfo(40, kind, name, len(record), flags=uapi.BPF_F_RDONLY_PROG)
    infos = iter([bound, *[OWN] * len(ROOT.map_ids)])
    monkeypatch.setattr(libbpf, "map_info", lambda _fd: next(infos))
    monkeypatch.setattr(maps, "lookup", lambda _fd, info, _key: record[: info.value_size])


@pytest.mark.usefixtures("nothing_is_left")
def test_only_a_root_of_the_name_with_the_record_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(0, False, (PASS,), (50,), (0,), False, (11,), (0,), 95)
    record_map(monkeypatch, "xdpctl_chain", uapi.BPF_MAP_TYPE_ARRAY, config.pack_fused())
    assert config_of(ROOT) == config
    for other in (ROOT._replace(name="firewall"), ROOT._replace(map_ids=())):
        assert config_of(other) is None
    record_map(monkeypatch, "packets", uapi.BPF_MAP_TYPE_ARRAY, config.pack_fused())
    assert config_of(ROOT) is None
    record_map(monkeypatch, "xdpctl_chain", uapi.BPF_MAP_TYPE_PROG_ARRAY, config.pack_fused())
    assert config_of(ROOT) is None
    record_map(monkeypatch, "xdpctl_chain", uapi.BPF_MAP_TYPE_ARRAY, bytes(40))
    assert config_of(ROOT) is None


# --- refusals -----------------------------------------------------------------------------------

Refuses = Callable[[Sequence[Part], bool], str | None]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Refuses], None]:
    """A kernel that refuses some chains: it is given the parts and whether all are GPL."""

    def set_up(refuses: Refuses) -> None:
        def load(parts: Sequence[Part], gpl: bool | None = None, **_rules: object) -> Program:
            log = refuses(parts, fused._is_gpl(parts) if gpl is None else gpl)
            if log is None:
                return Program(os.open(os.devnull, os.O_RDONLY))
            raise KernelError("verifier", 22, log)

        monkeypatch.setattr(fused, "_load", load)

    return set_up


def refusal_of(parts: Sequence[Part]) -> XdpctlError:
    with pytest.raises(XdpctlError) as caught:
        fused.build(parts, 0)
    return caught.value


def parts_of(*members: Member) -> list[Part]:
    return [Part(one, 100 + slot, Image(b"", one.frags, True)) for slot, one in enumerate(members)]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("seed", range(20))
def test_the_first_member_that_is_too_much_is_named(
    seed: int, refusing: Callable[[Refuses], None]
) -> None:
    """Each has a cost, and the kernel a limit; the log tells of the refusal that is explained."""
    chance = random.Random(seed)
    count = chance.choice((2, 3, 7, 50, 200))
    costs = {f"m{slot}": chance.randint(1, 9) for slot in range(count)}
    limit = chance.randint(10, sum(costs.values()) - 1) if sum(costs.values()) > 10 else 9
    if sum(costs.values()) <= limit:
        costs["m1"] = 9
    alone = chance.choice((None, chance.randrange(count)))
    if alone is not None:
        costs[f"m{alone}"] = limit + 1

    def refuses(parts: Sequence[Part], _gpl: bool) -> str | None:
        total = sum(costs.get(one.member.name, 0) for one in parts)
        return f"processed\ntotal {total} of {limit}" if total > limit else None

    refusing(refuses)
    running_sum, first = 0, 0
    while (running_sum := running_sum + costs[f"m{first}"]) <= limit:
        first += 1
    expected = first if alone is None else alone
    error = refusal_of(parts_of(*(running(f"m{slot}", 100 + slot) for slot in range(count))))
    assert isinstance(error, VerifierError)
    assert error.what == f"the verifier refused m{expected} (id {100 + expected}) in a fused root"
    assert ("by itself" in error.why, "beside" in error.why) == (alone is not None, alone is None)
    assert f"of {limit}" in error.why
    told = re.search(r"total (\d+)", error.details)
    assert told is not None
    assert int(told[1]) == (limit + 1 if alone is not None else running_sum)
    for word in ("512 bytes of stack", "one million", "64 maps", "8 levels"):
        assert word in error.hint


def test_a_member_without_an_id_is_named_without(refusing: Callable[[Refuses], None]) -> None:
    refusing(lambda parts, _gpl: "no" if any(one.member.name == "bad" for one in parts) else None)
    error = refusal_of(parts_of(running("good", 100), fresh("bad")))
    assert error.what == "the verifier refused bad in a fused root"


def test_a_licence_that_a_neighbour_does_not_allow(refusing: Callable[[Refuses], None]) -> None:
    """The one that needs it is named, and those beside it that do not allow it."""

    def refuses(parts: Sequence[Part], gpl: bool) -> str | None:
        needs = any(one.member.name == "tracer" for one in parts)
        return "cannot call GPL-restricted function" if needs and not gpl else None

    refusing(refuses)
    parts = parts_of(running("free", 100), running("tracer", 101), running("a", 102), fresh("b"))
    for slot in (2, 3):
        parts[slot] = replace(parts[slot], image=Image(b"", frags=False, gpl=False))
    error = refusal_of(parts)
    assert isinstance(error, UnsupportedError)
    assert error.what == "tracer (id 101) cannot be fused with a, b"
    assert "a, b are not GPL-compatible" in error.why
    assert "--root ext" in error.hint
    assert "b is not GPL-compatible" in refusal_of([parts[1], parts[3]]).why
    # A fault of its own is no matter of licences.
    refusing(lambda parts, _gpl: "loop" if any(one.program_id == 101 for one in parts) else None)
    assert isinstance(refusal_of(parts), VerifierError)


def test_frags_and_program_arrays(refusing: Callable[[Refuses], None]) -> None:
    """An array whose programs take fragments belongs to a root that takes them."""

    def refuses(parts: Sequence[Part], _gpl: bool) -> str | None:
        arrays = any(one.member.name == "calls" for one in parts)
        return "incompatible" if arrays and not all(one.member.frags for one in parts) else None

    refusing(refuses)
    calls, takes = running("calls", 100, frags=True), running("takes", 101, frags=True)
    bare = running("bare", 102)
    for order in ((calls, takes, bare), (bare, takes, calls)):
        error = refusal_of(parts_of(*order))
        assert isinstance(error, UnsupportedError)
        assert error.what == "the root cannot call the program arrays of calls"
        assert "xdp.frags" in error.hint
    with_all = parts_of(calls, takes, replace(bare, frags=True))
    fused._load(with_all).close()


def test_a_want_of_rights_is_no_members_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_parts: Sequence[Part], _gpl: bool | None = None, **_rules: object) -> Program:
        raise KernelError("bpf_prog_load", 1)

    monkeypatch.setattr(fused, "_load", load)
    for lacking, expected in ((["CAP_BPF"], RightsError), ([], UnsupportedError)):
        monkeypatch.setattr("xdpctl.host.rights.missing", lambda lacking=lacking: lacking)
        error = refusal_of(parts_of(running("m", 100), running("n", 101)))
        assert type(error) is expected
        assert "the fused root" in error.what


def test_as_many_members_as_there_are_slots() -> None:
    """Without functions of their own they leave room below Linux's 256 functions."""
    code, names = fused_code.assemble([part(2, 0x1F) for _ in range(MAX_SLOTS)], in_line=False)
    assert len(asm.starts(code)) == len(names) == MAX_SLOTS + 1 < 256
    assert Machine(code).run() == 2


def test_a_root_of_no_program_answers_what_the_rules_say() -> None:
    for verdict in (1, 2):
        code, names = fused_code.assemble([], USUAL._replace(on_end=verdict))
        assert Machine(code).run() == verdict
        assert names == {0: FUSED}
    record = Config.of([], protocol=0)
    assert Config.unpack_fused(record.pack_fused()) == record
    assert not record.devbound
