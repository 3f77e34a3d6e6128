"""xdpctl.programs.legacy_maps: maps that are defined as before BTF, as libbpf reads them."""

from __future__ import annotations

import contextlib
import ctypes
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.unit.samples import built, compiled
from xdpctl.errors import BadObjectError, KernelError, NotFoundError, UnsupportedError, UsageError
from xdpctl.kernel import abi, libbpf
from xdpctl.kernel.elf import Elf
from xdpctl.kernel.object import Object
from xdpctl.kernel.records import MapShape
from xdpctl.programs import legacy_maps, loading, objects

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.heavy]

DEFINITION = "struct {0} {{ unsigned {1}; }}; "
PLAIN = DEFINITION.format("plain", "type, key, value, entries, flags")
AYA = DEFINITION.format("aya", "type, key, value, entries, flags, id, pinning")
ELF = DEFINITION.format("elf", "type, key, value, entries, flags, id, pin, inner_id, inner_idx")
LOOKUP = "static void *(*lookup)(void *, const void *) = (void *)1; "
USING = (
    LOOKUP + 'SEC("xdp") int f(struct xdp_md *c) {{ int k = 0; return lookup({0}, &k) ? 1 : 2; }} '
)
ONE = "{2, 4, 8, 1}"


def opened(data: bytes) -> dict[str, MapShape]:
    """The maps that libbpf reads in a translated object."""
    options = abi.ObjectOpenOpts(object_name=b"x")
    with Object.parsed(legacy_maps.translated(data), options) as parsed:
        return {one.name: one.shape for one in parsed.maps}


def of(directory: Path, source: str, *flags: str) -> dict[str, MapShape]:
    return opened(Path(compiled(directory, source, *flags)).read_bytes())


# --- what is translated -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["legacies", "g0_legacies"])
def test_every_map_of_an_object(name: str) -> None:
    """With type information and without: kinds, sizes and whole names, static ones as well."""
    found = opened(Path(built(name)).read_bytes())
    del found["x.rodata"]
    assert found == {
        "packets": MapShape(2, 4, 8, 1, 0),
        "a_map_whose_name_is_30_letters": MapShape(1, 4, 8, 16, 1),
        "a_map_whose_name_is_30_as_well": MapShape(6, 4, 8, 3, 0),
        "hidden": MapShape(2, 4, 8, 1, 0),
        "apart": MapShape(2, 4, 8, 1, 0),
        "longer": MapShape(9, 4, 8, 32, 0),
    }


def test_other_objects_stay_as_they_are() -> None:
    """Also those that libbpf is to refuse: of other machines, and no objects at all."""
    others = [Path(built(name)).read_bytes() for name in ("count", "global", "pass", "tailcall")]
    legacy = Path(built("legacy")).read_bytes()
    swapped = legacy[:5] + bytes([3 - legacy[5]]) + legacy[6:]
    for data in (*others, Path("/bin/true").read_bytes(), swapped, legacy[:900], b"", b"maps\0"):
        assert legacy_maps.translated(data) == data


def test_what_is_there_stays_where_it_is() -> None:
    """Types keep their numbers, so what .BTF.ext says of functions and lines still holds."""
    data = Path(built("legacies")).read_bytes()
    new = legacy_maps.translated(data)
    with Elf(data) as before, Elf(new) as after:
        contents = {one.name: one.contents for one in after.sections}
        for one in before.sections:
            if one.name in (b"xdp", b"license", b".BTF.ext"):
                assert contents[one.name] == one.contents
        assert b"maps" not in contents
        assert b"maps/apart" not in contents
    assert legacy_maps.translated(new) == new


@pytest.mark.parametrize("flags", [(), ("-g0",)])
@pytest.mark.parametrize(
    ("name", "definition", "shape"),
    [
        ("plain", "{1, 8, 16, 100, 1}", (1, 8, 16, 100, 1)),
        ("plain", "{27, 0, 0, 4096}", (27, 0, 0, 4096, 0)),
        ("plain", "{1, 4, 8, 0}", (1, 4, 8, 0, 0)),
        ("plain", "{2, -1, -1, -1, -1}", (2, *(4 * (0xFFFFFFFF,)))),
        ("aya", "{5, 4, 8, 1, 0, 3, 0}", (5, 4, 8, 1, 0)),
        ("elf", "{10, 4, 8, 1, 2, 3}", (10, 4, 8, 1, 2)),
    ],
)
def test_definitions(
    tmp_path: Path, name: str, definition: str, shape: tuple[int, ...], flags: tuple[str, ...]
) -> None:
    source = PLAIN + AYA + ELF + f'struct {name} m SEC("maps") = {definition};'
    assert of(tmp_path, source + USING.format("&m"), *flags) == {"m": MapShape(*shape)}


def test_a_definition_without_flags(tmp_path: Path) -> None:
    source = DEFINITION.format("early", "type, key, value, entries")
    source += f'struct early m SEC("maps") = {ONE}, n SEC("maps") = {{1, 2, 3, 4}};'
    shapes = {"m": MapShape(2, 4, 8, 1, 0), "n": MapShape(1, 2, 3, 4, 0)}
    assert of(tmp_path, source + USING.format("&m")) == shapes


@pytest.mark.parametrize("linked", [False, True])
def test_both_kinds_of_maps_in_one_object(tmp_path: Path, linked: bool) -> None:
    """What is in .maps stays in it, and what a linker has said of it, too."""
    new = "struct { int (*type)[1]; int (*key_size)[2]; int (*value_size)[3]; "
    source = PLAIN + f'struct plain m SEC("maps") = {ONE}; {new} int (*max_entries)[7]; }}'
    source += ' n SEC(".maps"), o SEC(".maps");' + USING.format("(c ? (void *)&m : c + (&n == &o))")
    path = compiled(tmp_path, source.replace("struct xdp_md *c", "char *c"))
    if linked:
        library, out = libbpf.lib(), f"{path}.linked"
        library.bpf_linker__new.restype = ctypes.c_void_p
        linker = ctypes.c_void_p(libbpf.pointer("bpf_linker__new", out.encode(), None))
        assert not library.bpf_linker__add_file(linker, path.encode(), None)
        assert not library.bpf_linker__finalize(linker)
        library.bpf_linker__free(linker)
        path = out
    assert re.search(loading.MAY_BE_LEGACY, Path(path).read_bytes())
    shape = MapShape(1, 2, 3, 7, 0)
    found = opened(Path(path).read_bytes())
    assert found == {"m": MapShape(2, 4, 8, 1, 0), "n": shape, "o": shape}


def test_pins_by_name(tmp_path: Path) -> None:
    """As aya has them; with a node of memory the number is another one."""
    source = AYA + 'struct aya m SEC("maps") = {2, 4, 8, 1, 0, 0, 1};' + USING.format("&m")
    member = objects.member(compiled(tmp_path, source))
    assert member.source is not None
    assert member.source.pins
    with pytest.raises(BadObjectError, match="not a usable") as caught:
        objects.member(compiled(tmp_path, source.replace("1, 0, 0, 1}", "1, 4, 0, 1}")))
    assert "map m: pinning is 1" in caught.value.why


def test_symbols_that_are_hidden(tmp_path: Path) -> None:
    """As linkers leave them that link for one file; libbpf takes such a map for a static one."""
    source = PLAIN + '__attribute__((visibility("hidden"))) struct plain m SEC("maps") = '
    shapes = {"m": MapShape(2, 4, 8, 1, 0)}
    assert of(tmp_path, f"{source}{ONE};" + USING.format("&m")) == shapes


def test_only_what_may_be_legacy_costs_time() -> None:
    """An object is looked into if the name of such a section is in it; not for .maps."""
    names = ("legacies", "g0_legacies", "legacy", "legacyjumps")
    assert all(re.search(loading.MAY_BE_LEGACY, Path(built(name)).read_bytes()) for name in names)
    for name in ("count", "tailcall", "stripped_count", "maps40"):
        assert not re.search(loading.MAY_BE_LEGACY, Path(built(name)).read_bytes())


def test_the_run_configuration_is_read(tmp_path: Path) -> None:
    source = PLAIN + f'struct plain m SEC("maps") = {ONE};' + USING.format("&m")
    member = objects.member(compiled(tmp_path, source + "CONFIG(f, UINT(priority, 7));"))
    assert (member.name, member.priority) == ("f", 7)


# --- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "inner maps": ("elf", "{12, 4, 4, 1, 0, 0, 0, 3}", "map m: it holds maps"),
    "an inner map": ("elf", "{1, 4, 4, 1, 0, 0, 0, 3}", "map m: inner_id is 3"),
    "its place": ("elf", "{1, 4, 4, 1, 0, 0, 0, 0, 2}", "map m: inner_idx is 2"),
    "a pin of iproute2's": ("elf", "{1, 4, 4, 1, 0, 0, 2}", "map m: pinning is 2"),
    "a pin of its object": ("elf", "{1, 4, 4, 1, 0, 0, 1}", "map m: pinning is 1"),
    "another pin": ("aya", "{1, 4, 4, 1, 0, 0, 2}", "map m: pinning is 2"),
    "no type": ("plain", "{0, 4, 8, 1}", "map m: its definition has no type"),
    "a fragment": ("brief", "{1, 4, 8}", "map m: its definition has 12 bytes"),
    "half of the flags": ("half", "{{1, 4, 8, 1}, {1}}", "map m: its definition has 18 bytes"),
    "a novel": ("novel", "{1, 4, 8, 1}", "map m: its definition has 9000 bytes"),
    "a path": ("path", '{1, 4, 8, 1, 0, 0, "tc"}', "map m: byte 24 is 116"),
    "an address": ("address", "{1, 4, 8, 1, 0, 0, &m}", "maps has addresses in its definitions"),
}
ODD = (
    DEFINITION.format("brief", "type, key, value")
    + DEFINITION.format("novel", "all[2250]")
    + "struct half { unsigned all[4]; char rest[2]; } __attribute__((packed)); "
    + "struct path { unsigned all[6]; char where[256]; }; "
    + "struct address { unsigned all[6]; void *where; }; "
)


@pytest.mark.parametrize("flags", [(), ("-g0",)])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plain(tmp_path: Path, case: str, flags: tuple[str, ...]) -> None:
    """The map and what it wants are named, and what there is to do."""
    name, definition, why = REFUSED[case]
    definition = definition.replace("{1, 4, 8, 1, 0, 0, ", "{{1, 4, 8, 1, 0, 0}, ")
    source = PLAIN + AYA + ELF + ODD
    source += f'extern struct {name} m; struct {name} m SEC("maps") = {definition};'
    path = compiled(tmp_path, source + USING.format("&m"), "-Wno-missing-braces", *flags)
    with pytest.raises(BadObjectError, match="is not a usable BPF object") as caught:
        objects.member(path)
    assert why in caught.value.why
    assert '".maps"' in caught.value.hint
    assert caught.value.exit_code == 4


def test_every_map_that_is_not_plain_is_named(tmp_path: Path) -> None:
    source = ELF + 'struct elf m SEC("maps") = {1, 4, 4, 1, 0, 0, 2}, n SEC("maps") = {0};'
    with pytest.raises(BadObjectError) as caught:
        objects.member(compiled(tmp_path, source + USING.format("&m")))
    assert [line[:6] for line in caught.value.why.splitlines()] == ["map m:", "map n:"]


@pytest.mark.parametrize("section", ["3/0", "4/0"])
def test_a_program_array_that_iproute2_fills(tmp_path: Path, section: str) -> None:
    """By programs in sections that begin with its id; else the id means nothing."""
    source = ELF + 'struct elf m SEC("maps") = {3, 4, 4, 1, 0, 3};' + USING.format("&m")
    source += f'SEC("{section}") int g(struct xdp_md *c) {{ return 2; }}'
    path = compiled(tmp_path, source)
    if section == "4/0":
        assert opened(Path(path).read_bytes()) == {"m": MapShape(3, 4, 4, 1, 0)}
        return
    with pytest.raises(BadObjectError) as caught:
        objects.member(path, program="f")
    assert "programs of sections 3/..." in caught.value.why


def test_names_that_two_have(tmp_path: Path) -> None:
    """libbpf finds a map's symbol by the name, and that of a static one may be another's, too."""
    source = PLAIN + f'static struct plain m SEC("maps") = {ONE}; int other SEC(".data") = 1;'
    path = compiled(tmp_path, source + USING.format("&m"), "-g0")
    assert set(opened(Path(path).read_bytes())) == {"m", "x.data"}
    subprocess.run(["llvm-objcopy", "--redefine-sym=other=m", path], check=True)
    with pytest.raises(KernelError) as caught:
        legacy_maps.translated(Path(path).read_bytes())
    assert caught.value.log == "map m: something else in the object has this name, too"


def test_maps_without_symbols(tmp_path: Path) -> None:
    path = compiled(tmp_path, PLAIN + f'struct plain m SEC("maps") = {ONE};', "-g0")
    subprocess.run(["llvm-objcopy", "--strip-symbol=m", path], check=True)
    with pytest.raises(KernelError, match="translating") as caught:
        legacy_maps.translated(Path(path).read_bytes())
    assert caught.value.log == "section maps has something in it that no symbol names"


def test_type_information_that_cannot_be_read() -> None:
    data = Path(built("legacy")).read_bytes()
    start = data.index(struct.pack("=HBBI", 0xEB9F, 1, 0, 24))
    with pytest.raises(KernelError) as caught:
        legacy_maps.translated(data[: start + 4] + b"\0" + data[start + 5 :])
    assert "(BTF) of the object cannot be read" in caught.value.log


def test_sections_far_behind_the_file_are_not_made_room_for() -> None:
    data = bytearray(Path(built("legacy")).read_bytes())
    with Elf(bytes(data)) as elf:
        start = elf.head.e_shoff
        (empty,) = (one.index for one in elf.sections if one.name == b".text")
    data[start + 64 * empty + 24 : start + 64 * empty + 32] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(KernelError, match="libelf") as caught:
        legacy_maps.translated(bytes(data))
    assert caught.value.log == "elf: a section is not in the file"


@pytest.mark.long
@pytest.mark.usefixtures("quiet_crashes")
@pytest.mark.parametrize("seed", range(4))
def test_objects_that_chance_has_changed(seed: int) -> None:
    """Each is taken, or refused as objects are; tests/kernel/test_fuzz.py tries more of them."""
    bases = [Path(built(name)).read_bytes() for name in ("legacies", "g0_legacies", "legacy")]
    chance = random.Random(seed)
    taken = 0
    for number in range(60):
        data = bytearray(bases[number % len(bases)])
        for _change in range(chance.choice((1, 1, 4))):
            at = chance.randrange(4, len(data) - 4)
            data[at] ^= 1 << chance.randrange(8)
            word = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, at, len(data)))
            at = chance.randrange(4, len(data)) & ~3
            data[at : at + 4] = word.to_bytes(4, "little")
        with contextlib.suppress(BadObjectError, NotFoundError, UnsupportedError, UsageError):
            objects.member("changed.o", bytes(data))
            taken += 1
    assert taken
