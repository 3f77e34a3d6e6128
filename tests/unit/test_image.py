"""xdpctl.programs.image: code that names things, and the record that it is kept in."""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.unit.machine import insn
from xdpctl.errors import KernelError
from xdpctl.kernel import asm, libbpf, program, records, uapi
from xdpctl.kernel.asm import CALL, INSN_SIZE, LD_IMM64
from xdpctl.kernel.object import Object, ObjectProgram
from xdpctl.kernel.program import Program
from xdpctl.model.source import Image, Recipe
from xdpctl.programs import image

MOV, EXIT = 0xB4, insn(0x95)


def named(source: int, imm: int, second: int = 0) -> bytes:
    """An instruction of two places that names something."""
    return insn(LD_IMM64, dst=1, src=source, imm=imm) + insn(0, imm=second)


def map_fd(imm: int) -> bytes:
    return named(uapi.BPF_PSEUDO_MAP_FD, imm)


def map_value(imm: int, offset: int) -> bytes:
    return named(uapi.BPF_PSEUDO_MAP_VALUE, imm, offset)


def call(over: int) -> bytes:
    return insn(CALL, src=uapi.BPF_PSEUDO_CALL, imm=over)


# What looks like a reference and is none, each with values that would be found.
DECOYS = [
    named(0, 7),  # a number of 64 bits
    named(0, 7, second=0x18),
    named(uapi.BPF_PSEUDO_BTF_ID, 7),
    insn(CALL, imm=uapi.BPF_FUNC_tail_call),  # a helper
    insn(CALL, src=uapi.BPF_PSEUDO_KFUNC_CALL, imm=7),
    insn(MOV, dst=8, src=1, off=0x1818, imm=0x18181818),  # the opcode in every other byte
    insn(MOV, dst=5, src=8, off=-0x7A7B, imm=-0x7A7A7A7B),
]

# --- what code names ----------------------------------------------------------------------------


def test_functions_begin_where_something_leads() -> None:
    code = (
        call(4)  # 0: to 5
        + named(uapi.BPF_PSEUDO_FUNC, 6)  # 1, 2: a callback, at 8
        + call(-4)  # 3: back to 0
        + EXIT  # 4
        + call(1)  # 5: to 7
        + EXIT  # 6
        + EXIT  # 7
        + EXIT  # 8
    )
    assert asm.starts(code) == [0, 5, 7, 8]
    assert asm.starts(EXIT) == [0]
    assert asm.starts(b"".join(DECOYS)) == [0]


@pytest.mark.parametrize("seed", range(20))
def test_maps_get_other_names_and_nothing_else_changes(seed: int) -> None:
    """Wherever they stand, and back again; from the words of each instruction."""
    chance = random.Random(seed)
    numbers = chance.sample(range(3, 2**31), 5)
    parts = [*DECOYS, EXIT, *map(map_fd, numbers), *(map_value(one, 64) for one in numbers[:2])]
    chance.shuffle(parts)
    code = b"".join(parts)
    assert asm.maps_of(code) == set(numbers)
    others = dict(zip(numbers, chance.sample(range(3, 2**31), 5), strict=True))
    changed = asm.with_maps(code, others)
    swapped = {map_fd(one): map_fd(other) for one, other in others.items()}
    swapped |= {map_value(one, 64): map_value(other, 64) for one, other in others.items()}
    assert changed == b"".join(swapped.get(part, part) for part in parts)
    assert asm.with_maps(changed, {new: old for old, new in others.items()}) == code


def test_a_map_without_another_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        asm.with_maps(map_fd(7), {8: 9})


# --- the record ---------------------------------------------------------------------------------

CODE = map_fd(31) + EXIT


def test_the_record_byte_by_byte() -> None:
    for frags, gpl, flags in ((0, 0, 0), (1, 0, 1), (0, 1, 2), (1, 1, 3)):
        packed = Image(CODE, bool(frags), bool(gpl)).pack()
        assert packed == b"xdpi" + struct.pack("=HHI", 1, flags, 24) + CODE
        assert Image.unpack(packed) == Image(CODE, bool(frags), bool(gpl))


def test_a_flag_of_a_later_xdpctl_is_left_alone() -> None:
    packed = bytearray(Image(CODE, frags=False, gpl=True).pack())
    packed[6:8] = struct.pack("=H", 0xFFFE)
    assert Image.unpack(bytes(packed)) == Image(CODE, frags=False, gpl=True)


def test_what_is_no_whole_image_is_none() -> None:
    packed = Image(CODE, frags=True, gpl=True).pack()
    for length in range(len(packed)):
        assert Image.unpack(packed[:length]) is None, length
    for longer in (packed + bytes(1), packed + EXIT):
        assert Image.unpack(longer) is None
    spoilt = ((0, b"X"), (4, struct.pack("=H", 2)), (4, struct.pack("=H", 257)))
    for place, value in (*spoilt, (8, struct.pack("=I", 32))):
        assert Image.unpack(packed[:place] + value + packed[place + len(value) :]) is None, place
    # Half an instruction is in no program.
    assert Image.unpack(b"xdpi" + struct.pack("=HHI", 1, 0, 4) + bytes(4)) is None


@pytest.mark.parametrize("seed", range(10))
def test_garbage_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        code = chance.randbytes(chance.randrange(64))
        head = b"xdpi" + struct.pack("=HHI", 1, chance.randrange(8), chance.choice((len(code), 8)))
        read = Image.unpack(head + code)
        if read is not None:
            assert read.code == code
            assert not len(code) % INSN_SIZE


# --- what libbpf has loaded ---------------------------------------------------------------------


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Image | None]:
    """The image of some code in an object whose maps have the ids 1000 + descriptor."""

    def map_info(fd: int) -> records.MapInfo:
        assert fd >= 0, "a map that libbpf did not make has no descriptor"
        return records.MapInfo(1000 + fd, uapi.BPF_MAP_TYPE_ARRAY, "m", 4)

    def capture(code: bytes, names: tuple[bytes, ...] = (b"one", b"two")) -> Image | None:
        text = ctypes.create_string_buffer(code, len(code))
        following = {None: 905, 905: 906, 906: 899, 899: None}  # one not made
        library = SimpleNamespace(
            bpf_program__insn_cnt=lambda _program: len(code) // INSN_SIZE,
            bpf_program__insns=lambda _program: ctypes.addressof(text),
            bpf_map__fd=lambda found: found - 900,
            bpf_object__next_map=lambda _object, last: following[last],
            bpf_program__fd=lambda _program: 3,
            bpf_map__name=lambda found: dict(zip((905, 906), names, strict=True)).get(found, b""),
        )
        monkeypatch.setattr(libbpf, "lib", lambda: library)
        monkeypatch.setattr(libbpf, "map_info", map_info)
        info = records.ProgInfo(9, 6, "p", "", 0, 0, 0, (), gpl=True)
        monkeypatch.setattr(libbpf, "prog_info", lambda _fd: info)
        return image.capture(Object(1), ObjectProgram(2), True, None)

    return capture


def test_a_capture_names_maps_by_their_ids(captured: Callable[[bytes], Image | None]) -> None:
    code = map_fd(5) + map_value(6, 16) + b"".join(DECOYS) + EXIT
    expected = map_fd(1005) + map_value(1006, 16) + b"".join(DECOYS) + EXIT
    assert captured(code) == Image(expected, frags=True, gpl=True)


def test_a_capture_keeps_names_that_the_kernel_may_cut(
    captured: Callable[..., Image | None],
) -> None:
    """Those of maps that the code uses, from as many characters on as the kernel keeps."""
    names = b"fifteen_letters", b"blocked_sources_ipv4"
    expected = ((1005, "fifteen_letters"), (1006, "blocked_sources_ipv4"))
    assert captured(map_fd(5) + map_fd(6) + EXIT, names).names == expected  # type: ignore[union-attr]
    assert captured(map_fd(5) + EXIT, names).names == expected[:1]  # type: ignore[union-attr]


def test_what_names_something_of_a_module_has_no_image(
    captured: Callable[[bytes], Image | None],
) -> None:
    """A descriptor of the module's types is in the instruction: it means nothing later."""
    kfunc, variable = uapi.BPF_PSEUDO_KFUNC_CALL, uapi.BPF_PSEUDO_BTF_ID
    assert captured(insn(CALL, src=kfunc, off=1, imm=7) + EXIT) is None
    assert captured(named(variable, 7, second=4) + EXIT) is None
    # Those of the kernel itself have none.
    assert captured(insn(CALL, src=kfunc, imm=7) + named(variable, 7) + EXIT) is not None
    # An offset of another instruction says nothing of the kind.
    assert captured(insn(CALL, imm=7, off=1) + named(0, 7, second=4) + EXIT) is not None


def test_an_image_is_bound_or_the_program_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, bytes]] = []
    closed: list[int] = []
    monkeypatch.setattr(Program, "keep", lambda _program, *values: kept.append(values))
    monkeypatch.setattr("os.close", closed.append)
    one, owner = Image(CODE, frags=False, gpl=False), Program(77)
    assert image.bound(one, owner) is owner
    assert (kept, closed) == ([("xdpctl_image", one.pack())], [])

    def refuse(*_values: object) -> None:
        raise KernelError("bpf_prog_bind_map", 12)

    monkeypatch.setattr(Program, "keep", refuse)
    with pytest.raises(KernelError, match="ENOMEM"):
        image.bound(one, owner)
    assert closed == [77]


# --- names of functions -------------------------------------------------------------------------


def test_functions_without_a_name_are_numbered_after_the_last_one_that_has() -> None:
    given = program._function_names(
        [0, 4, 9, 12, 20, 21], {0: "root", 9: "first", 21: "se cond-2é"}
    )
    assert given == ["root", "root_1", "first", "first_1", "first_2", "se_cond_2_"]
    assert program._function_names([0], {0: "alone"}) == ["alone"]


RECIPE = Recipe(
    *("/x/a.o", "f", "00ff", "/sys/fs/bpf", ("-DX=1",), None),
    *((("limit", "5"),), (("flows", 64),), (("jumps[1]", "dropper"),)),
)


@pytest.mark.parametrize(
    "recipe", [RECIPE, Recipe("-", "f", ""), Recipe("/b.c", "g", "", bcc=False)]
)
@pytest.mark.parametrize("names", [(), ((7, "a_rather_long_name"),)])
def test_what_a_program_was_loaded_from_is_kept(
    recipe: Recipe, names: tuple[tuple[int, str], ...]
) -> None:
    image = Image(CODE, frags=False, gpl=True, names=names, recipe=recipe)
    assert Image.unpack(image.pack()) == image


@pytest.mark.parametrize(
    "data",
    [
        *(None, [], {}, {"file": "a"}, {**RECIPE.data(), "later": 1}, {**RECIPE.data(), "file": 3}),
        *({**RECIPE.data(), "bcc": 7}, {**RECIPE.data(), "entries": [["flows", "many"]]}),
        *({**RECIPE.data(), "flags": [1]}, {**RECIPE.data(), "tails": [1]}),
    ],
)
def test_what_is_no_recipe_is_none(data: object) -> None:
    """A record is what anybody may have bound: it is read with care, and the image stays."""
    assert Recipe.parse(data) is None
