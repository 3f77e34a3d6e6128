"""xdpctl.objects: what is in users' object files, good, odd and corrupt."""

from __future__ import annotations

import errno
import glob
import os
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import DROP, PASS, built, compiled
from xdpctl import objects
from xdpctl.chain import MAX_PRIORITY, Source
from xdpctl.errors import (
    BadObjectError,
    KernelError,
    NotFoundError,
    UnsupportedError,
    UsageError,
    VerifierError,
    XdpctlError,
)
from xdpctl.kernel import abi, libbpf

RETURNS = 'SEC("xdp") int {0}(struct xdp_md *ctx) {{ return 2; }}'

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# --- good objects -------------------------------------------------------------------------------

# xdp-tools' own programs and the run configuration in their published sources.
PACKAGED = {
    **{
        f"xdpfilt_{policy}_{what}": (f"xdpfilt_{policy}_{what}", 10, PASS)
        for policy in ("alw", "dny")
        for what in ("all", "eth", "ip", "tcp", "udp")
    },
    "xsk_def_xdp_prog": ("xsk_def_prog", 20, PASS),
    "xsk_def_xdp_prog_5.3": ("xsk_def_prog", 20, PASS),
    "xdpdump_xdp": ("xdpdump", 50, PASS),  # it has none: the defaults
}


@pytest.mark.parametrize(("name", "expected"), PACKAGED.items())
def test_objects_of_xdp_tools(name: str, expected: tuple[str, int, int]) -> None:
    paths = [path for where in ("/usr/lib/*/bpf", "/usr/lib*/bpf") for path in glob.glob(where)]
    found = [path for path in paths if os.path.exists(f"{path}/{name}.o")]
    if not found:
        pytest.skip(f"missing: {name}.o of xdp-tools")
    member = objects.member(f"{found[0]}/{name}.o")
    assert (member.name, member.priority, member.actions) == expected
    assert member.size % 8 == 0
    assert member.size > 80
    assert not member.frags
    assert not member.id


def test_a_member_knows_its_source() -> None:
    path = built("count")
    member = objects.member(path, pin_path="/pins")
    assert (member.name, member.priority, member.actions) == ("count", 50, PASS)
    assert member.source is not None
    assert (member.source.path, member.source.program) == (path, "count")
    assert member.source.data == Path(path).read_bytes()
    assert member.source.pin_path == "/pins"


def test_the_run_configuration_and_what_overrides_it() -> None:
    path = built("config")
    read = objects.member(path)
    assert (read.priority, read.actions) == (10, PASS | DROP)
    given = objects.member(path, priority=0, actions=0)
    assert (given.priority, given.actions) == (0, 0)
    partly = objects.member(path, actions=DROP)
    assert (partly.priority, partly.actions) == (10, DROP)


@pytest.mark.parametrize(
    ("config", "priority", "actions"),
    [
        ("CONFIG(f, UINT(XDP_PASS, 0));", 50, 0),
        # As xdp-loader reads it: what is not named keeps its default.
        ("CONFIG(f, UINT(XDP_DROP, 1));", 50, DROP | PASS),
        ("CONFIG(f, UINT(XDP_TX, 7) UINT(XDP_ABORTED, 1) UINT(XDP_DROP, 0));", 50, 0b1101),
        ("CONFIG(f, UINT(priority, 0));", 0, PASS),
        (f"CONFIG(f, UINT(priority, {MAX_PRIORITY}u));", MAX_PRIORITY, PASS),
        ("CONFIG(g, UINT(priority, 3) UINT(XDP_DROP, 1));", 50, PASS),
        ("CONFIG(g, UINT(priority, 3)); CONFIG(f, UINT(priority, 4));", 4, PASS),
        ("CONFIG(ff, UINT(nonsense, 1));", 50, PASS),
        ("", 50, PASS),
    ],
)
def test_run_configurations(tmp_path: Path, config: str, priority: int, actions: int) -> None:
    member = objects.member(compiled(tmp_path, RETURNS.format("f") + config))
    assert (member.priority, member.actions) == (priority, actions)


@pytest.mark.parametrize(
    "config",
    [
        "CONFIG(f, UINT(priority, 1) UINT(XDP_MAYBE, 1));",
        "CONFIG(f, UINT(Priority, 1));",
        "CONFIG(f, int priority;);",
        "CONFIG(f, int *priority;);",
        "CONFIG(f, int XDP_PASS[1];);",
    ],
)
def test_run_configurations_that_are_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(BadObjectError, match=r"run configuration of f in .* unknown member"):
        objects.member(compiled(tmp_path, RETURNS.format("f") + config))


def test_an_unknown_member_of_a_built_object() -> None:
    with pytest.raises(BadObjectError, match=r"config_bad .*unknown member") as caught:
        objects.member(built("config_bad"))
    assert "priority" in caught.value.hint
    assert "XDP_REDIRECT" in caught.value.hint


def test_an_object_without_btf(tmp_path: Path) -> None:
    path = compiled(tmp_path, RETURNS.format("bare"), "-g0")
    assert b".BTF" not in Path(path).read_bytes()
    member = objects.member(path)
    assert (member.name, member.priority, member.actions) == ("bare", 50, PASS)


def test_frags() -> None:
    assert objects.member(built("frags")).frags
    assert not objects.member(built("count")).frags


def test_names_longer_than_the_kernel_keeps() -> None:
    member = objects.member(built("longname"))
    assert member.name == "a_program_with_a_rather_long_name"
    assert objects.member(built("longname"), program=member.name).name == member.name
    with pytest.raises(NotFoundError):
        objects.member(built("longname"), program=member.name[:15])


def test_a_subprogram_is_no_program() -> None:
    assert objects.member(built("subprogs")).name == "subprogs"
    with pytest.raises(NotFoundError, match="no program verdict_of in"):
        objects.member(built("subprogs"), program="verdict_of")


# --- which program ------------------------------------------------------------------------------


def test_several_programs_and_none_named() -> None:
    with pytest.raises(UsageError, match="several XDP programs") as caught:
        objects.member(built("tailcall"))
    for name in ("callee_pass", "callee_drop", "tailcall"):
        assert f"{name} (section xdp)" in caught.value.why
    assert "-n" in caught.value.hint


def test_sections_that_libbpf_does_not_know_are_listed() -> None:
    with pytest.raises(XdpctlError) as caught:
        objects.member(built("several"))
    for name in ("first", "second", "third"):
        assert f"{name} (section xdp/{name})" in caught.value.why


@pytest.mark.parametrize(
    ("file", "choice", "name"),
    [
        ("tailcall", {"program": "callee_drop"}, "callee_drop"),
        ("several", {"program": "second"}, "second"),
        ("several", {"section": "xdp/third"}, "third"),
        ("count", {"section": "xdp"}, "count"),
        ("frags", {"section": "xdp.frags"}, "frags"),
        ("ret", {"program": "ret_minus_1"}, "ret_minus_1"),
    ],
)
def test_a_choice(file: str, choice: dict[str, str], name: str) -> None:
    member = objects.member(built(file), **choice)  # type: ignore[arg-type]
    assert member.name == name
    assert member.source is not None
    assert member.source.program == name


def test_a_section_with_several_programs_is_no_choice() -> None:
    with pytest.raises(UsageError, match="several XDP programs") as caught:
        objects.member(built("tailcall"), section="xdp")
    assert "callee_drop" in caught.value.why


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        ({"program": "fourth"}, "no program fourth in"),
        ({"section": "xdp/fourth"}, "no section xdp/fourth in"),
        ({"program": "xdp/first"}, "no program xdp/first in"),
        ({"section": "first"}, "no section first in"),
        ({"program": ""}, "no "),
    ],
)
def test_a_choice_that_is_not_there(choice: dict[str, str], what: str) -> None:
    with pytest.raises(NotFoundError, match=what) as caught:
        objects.member(built("several"), **choice)  # type: ignore[arg-type]
    assert "first (section xdp/first)" in caught.value.why


def test_programs_of_other_types_are_refused(tmp_path: Path) -> None:
    other = built("wrongtype")
    with pytest.raises(BadObjectError, match="no XDP program") as caught:
        objects.member(other)
    assert "wrongtype (section tc)" in caught.value.why
    with pytest.raises(BadObjectError, match=r"wrongtype in .* is not a program for"):
        objects.member(other, program="wrongtype")
    # Beside one of another type, the XDP program is meant.
    mixed = RETURNS.format("good") + 'SEC("tc") int other(void *ctx) { return 0; }'
    assert objects.member(compiled(tmp_path, mixed)).name == "good"


@pytest.mark.parametrize("kind", ["devmap", "cpumap"])
def test_programs_for_map_entries_are_refused(tmp_path: Path, kind: str) -> None:
    source = RETURNS.format("entry").replace("xdp", f"xdp/{kind}", 1)
    path = built("devmap") if kind == "devmap" else compiled(tmp_path, source)
    name = "devmap" if kind == "devmap" else "entry"
    with pytest.raises(BadObjectError, match="no XDP program") as caught:
        objects.member(path)
    assert f"{name} (section xdp/{kind})" in caught.value.why
    with pytest.raises(BadObjectError, match="not a program for an interface") as caught:
        objects.member(path, program=name)
    assert f"{kind} entry" in caught.value.why


def test_an_object_without_programs() -> None:
    with pytest.raises(BadObjectError, match="no XDP program") as caught:
        objects.member(built("noprog"))
    assert "no program at all" in caught.value.why


# --- files that are no objects ------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"int f(void);\n", b"\xff" * 5000, bytes(64)])
def test_files_that_are_not_elf(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "file.o"
    file.write_bytes(data)
    with pytest.raises(BadObjectError, match=r"file\.o is not an ELF object file"):
        objects.member(str(file))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        objects.member(str(tmp_path / "missing.o"))
    with pytest.raises(BadObjectError, match="cannot read") as caught:
        objects.member(str(tmp_path))
    assert caught.value.why == "Is a directory"


def test_elf_files_of_other_machines() -> None:
    with pytest.raises(BadObjectError):
        objects.member("/bin/true")


# --- corrupt objects ----------------------------------------------------------------------------


def outcome(data: bytes, file: Path) -> BadObjectError | None:
    """None where the object is taken; any error but BadObjectError fails the test, as a hang does.

    The others that the choice of a program gives mean that the object itself was readable.
    """
    file.write_bytes(data)
    started = time.monotonic()
    found = None
    try:
        objects.member(str(file))
    except BadObjectError as error:
        found = error
    except (UsageError, NotFoundError):
        pass
    assert time.monotonic() - started < 10
    return found


@pytest.mark.parametrize("name", ["count", "config"])
def test_every_truncated_object_is_refused(name: str, tmp_path: Path) -> None:
    data = Path(built(name)).read_bytes()
    for length in range(0, len(data), 64):
        error = outcome(data[:length], tmp_path / "cut.o")
        assert error is not None, length
        assert error.exit_code == 4
        assert error.hint or "corrupt" in error.what


@pytest.mark.usefixtures("quiet_crashes")
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits(seed: int, tmp_path: Path) -> None:
    """50 damaged copies a seed; what matters is that nothing else than these outcomes happens."""
    chance = random.Random(seed)
    good = Path(built(chance.choice(("count", "config", "big")))).read_bytes()
    for _ in range(50):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 1, 4, 16))):
            data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        outcome(bytes(data), tmp_path / "flipped.o")


@pytest.mark.usefixtures("quiet_crashes")
def test_an_object_that_kills_libbpf_is_called_corrupt(tmp_path: Path) -> None:
    """Each word of the BTF types in turn as a number that no type has.

    libbpf checks such references only since 1.3 ("libbpf: Add basic BTF sanity validation").
    """
    good = Path(built("count")).read_bytes()
    start = good.index(struct.pack("=HBBI", 0xEB9F, 1, 0, 24))
    (length,) = struct.unpack_from("=I", good, start + 12)
    errors = []
    for offset in range(start + 24, start + 24 + length, 4):
        data = bytearray(good)
        struct.pack_into("=I", data, offset, 0xFFFFFF)
        errors.append(outcome(bytes(data), tmp_path / "types.o"))
    killed = [error for error in errors if error and "SIGSEGV" in error.why]
    assert {error.what for error in killed} <= {f"{tmp_path}/types.o is corrupt"}
    assert len([error for error in errors if error]) > 10
    if libbpf.lib().libbpf_minor_version() >= 3:
        pytest.skip("missing: a libbpf that dies of such objects")
    assert killed


# --- the maps of a program that runs ------------------------------------------------------------

MAPS = """
#define MAP(name, kind, value, entries) struct { \\
    int (*type)[kind]; int (*key_size)[4]; int (*value_size)[value]; int (*max_entries)[entries]; \\
    } name SEC(".maps");
MAP(packets, 2, 8, 1) MAP(a_rather_long_name, 1, 8, 64)
int counter;
const volatile int limit = 5;
"""
SHAPE = libbpf.MapInfo(0, 2, "packets", 8)
LONG = libbpf.MapInfo(0, 1, "a_rather_long_n", 8, max_entries=64)
BSS = libbpf.MapInfo(0, 2, "theirs.bss", 4, flags=0x400)
RODATA = libbpf.MapInfo(0, 2, "theirs.rodata", 4, flags=0x480)


def shared(
    directory: Path,
    patch: pytest.MonkeyPatch,
    *running: libbpf.MapInfo,
    source: str = "",
    forced: bool = False,
    **wishes: Any,
) -> dict[str, str]:
    """The maps of a file that take the place of a running program's, each with that one's name."""
    there = {number: info._replace(id=number) for number, info in enumerate(running, 20)}
    path = compiled(
        directory, MAPS + source + RETURNS.format("f").replace("2;", "counter += limit;")
    )
    handle = libbpf.open_object(Path(path).read_bytes(), abi.ObjectOpenOpts(object_name=b"ours"))
    info = libbpf.ProgInfo(11, 6, "f", "", 0, 0, 0, tuple(there), gpl=True)
    found: dict[str, str] = {}

    def call(name: str, handle: int, number: int = 0) -> int:
        if name == "bpf_obj_get":
            raise KernelError(name, errno.ENOENT)
        assert name == "bpf_map__reuse_fd"
        found[libbpf.lib().bpf_map__name(handle).decode()] = there[number].name
        return 0

    patch.setattr(libbpf, "prog_fd", lambda _number: os.open(os.devnull, os.O_RDONLY))
    patch.setattr(libbpf, "prog_info", lambda _fd: info)
    patch.setattr(libbpf, "map_fd", lambda number: number)
    patch.setattr(libbpf, "map_info", there.__getitem__)
    patch.setattr(libbpf, "call", call)
    try:
        objects._share_maps(handle, Source(path, b"", "f", maps_of=11, forced=forced, **wishes))
    finally:
        libbpf.lib().bpf_object__close(handle)
    return found


def test_maps_are_shared_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the kernel keeps a name; those of sections whatever the file was called."""
    other = libbpf.MapInfo(0, 2, "xdpctl_image", 500, flags=128)
    assert shared(tmp_path, monkeypatch, BSS, LONG, SHAPE, RODATA, other) == {
        "packets": "packets",
        "a_rather_long_name": "a_rather_long_n",
        "ours.bss": "theirs.bss",
        "ours.rodata": "theirs.rodata",
    }


def test_a_map_that_the_program_does_not_use_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared(tmp_path, monkeypatch, SHAPE, BSS) == {
        "packets": "packets",
        "ours.bss": "theirs.bss",
    }
    assert shared(tmp_path, monkeypatch) == {}


@pytest.mark.parametrize(
    "other",
    [
        SHAPE._replace(type=1),
        SHAPE._replace(key_size=8),
        SHAPE._replace(value_size=16),
        SHAPE._replace(max_entries=2),
        SHAPE._replace(flags=1),
    ],
    ids=["type", "key", "value", "entries", "flags"],
)
def test_a_map_of_another_shape_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: libbpf.MapInfo
) -> None:
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, LONG, other)
    assert caught.value.call == objects._SHARING
    assert caught.value.log == f"map packets: {SHAPE.shape} in the file, {other.shape} as it runs"


def test_a_map_that_the_file_lacks_is_left_out_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = SHAPE._replace(name="frames")
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, BSS, renamed)
    assert caught.value.log == "map frames runs, and is not in the file"
    assert shared(tmp_path, monkeypatch, BSS, renamed, forced=True) == {"ours.bss": "theirs.bss"}


def test_a_replacement_has_its_own_constants_and_program_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are code; unless they are asked for, as any map may be by name or section."""
    calls = libbpf.MapInfo(0, 3, "calls", 4)
    source = (
        "struct { int (*type)[3], (*key_size)[4], (*value_size)[4], (*max_entries)[1]; } calls "
    )
    running = SHAPE, BSS, RODATA, calls
    wishes: dict[str, Any] = {"source": source + 'SEC(".maps");', "forced": True, "replaces": True}

    def names(*maps: tuple[str, str]) -> set[str]:
        return set(shared(tmp_path, monkeypatch, *running, maps=maps, **wishes).values())

    assert names() == {"packets", "theirs.bss"}
    assert names(("calls", "keep"), (".rodata", "keep"), ("packets", "new")) == {
        *("theirs.bss", "theirs.rodata", "calls"),
    }
    with pytest.raises(KernelError) as caught:
        names(("nothing", "new"), ("a_rather_long_name", "keep"), ("packets", "/nowhere"))
    assert sorted(caught.value.log.splitlines()) == [
        "map a_rather_long_name: the running program has none of that name",
        "map nothing is not in the file",
        "map packets: /nowhere: No such file or directory",
    ]


def test_every_map_that_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that cannot be told from another, by as much of its name as there is."""
    twin = LONG._replace(max_entries=1)
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, LONG, twin, RODATA._replace(value_size=8))
    lines = caught.value.log.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "map a_rather_long_name",
        "map ours.rodata",
    ]


def test_maps_that_cannot_be_shared_are_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child says of them comes back as a refusal with the reason."""

    def share(_handle: int, _source: Source) -> None:
        raise KernelError(objects._SHARING, 22, "map packets: this, that")

    monkeypatch.setattr(objects, "_share_maps", share)
    path = compiled(tmp_path, RETURNS.format("f"))
    source = Source(path, Path(path).read_bytes(), "f", maps_of=11)
    with pytest.raises(UnsupportedError, match="cannot share the maps of program 11") as caught:
        objects.load(source, frags=False)
    assert caught.value.why == "map packets: this, that"
    assert "loaded from" in caught.value.hint


# --- a second way, where libbpf's is refused ----------------------------------------------------

Attempt = tuple[tuple[int, str] | None, KernelError | None]


def loaded(
    patch: pytest.MonkeyPatch,
    first: KernelError | None,
    second: KernelError | None = None,
    target: tuple[int, str] | None = (5, "prog0"),
) -> tuple[objects.Loaded | XdpctlError, list[Attempt]]:
    """What becomes of a load whose attempts end so; the attempts, each with why it is made."""
    tried: list[Attempt] = []

    def load(
        _source: Source,
        _frags: bool,
        target: tuple[int, str] | None,
        refused: KernelError | None = None,
        **_apart: bool,
    ) -> tuple[Any, list[int]]:
        fault = second if tried else first
        tried.append((target, refused))
        if fault:
            raise fault
        return {"arrays": [], "maps": []}, [70 + len(tried)]

    patch.setattr(objects, "_load", load)
    patch.setattr(objects, "in_child", lambda _path, work: work())
    try:
        return objects.load(Source("/old.o", b"", "old"), False, target), tried
    except XdpctlError as error:
        return error, tried


INVALID = KernelError("verifier", errno.EINVAL, "Program extension requires BTF\n")


def test_one_way_is_enough_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, None)
    assert result == objects.Loaded(71, {}, {})
    assert tried == [((5, "prog0"), None)]


def test_what_btf_is_refused_for_is_loaded_without(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, INVALID)
    assert result == objects.Loaded(72, {}, {})
    assert tried == [((5, "prog0"), None), ((5, "prog0"), INVALID)]


@pytest.mark.parametrize(
    "fault",
    [
        KernelError("bpf_prog_load", errno.EPERM),
        KernelError("verifier", errno.EACCES, "invalid access to packet"),
        KernelError("bpf_object__load", errno.ENOMEM),
        KernelError(objects._SHARING, errno.EINVAL, "map packets: 2 maps of that name run"),
        KernelError(objects._FILLING, errno.EINVAL),
    ],
)
def test_other_refusals_are_final(fault: KernelError, monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, fault)
    assert isinstance(result, XdpctlError)
    assert len(tried) == 1


def test_a_program_of_its_own_has_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, INVALID, target=None)
    assert isinstance(result, VerifierError)
    assert len(tried) == 1


def test_the_reason_is_that_of_the_second_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's own fault, rather than what the kernel looks at before it."""
    fault = KernelError("verifier", errno.EACCES, "R1 invalid mem access\n")
    result, _tried = loaded(monkeypatch, INVALID, fault)
    assert isinstance(result, VerifierError)
    assert result.why == "R1 invalid mem access"
    result, _tried = loaded(monkeypatch, INVALID, KernelError(objects._CALLING, errno.EINVAL))
    assert isinstance(result, UnsupportedError)
    assert result.what == "old of /old.o cannot replace a function of a dispatcher"
    assert "tail calls" in result.why
    assert "--root fused" in result.hint


def test_maps_that_want_btf() -> None:
    """Libbpf's words, and what to do about them."""
    with pytest.raises(BadObjectError) as caught:
        objects.member(built("stripped_count"))
    assert "BTF is required" in caught.value.why
    assert "clang -g" in caught.value.hint
