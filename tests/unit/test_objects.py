"""xdpctl.programs.objects: what is in users' object files, good, odd and corrupt."""

from __future__ import annotations

import glob
import os
import random
import struct
import time
from pathlib import Path

import pytest

from tests.unit.samples import DROP, PASS, built, compiled, some
from xdpctl.errors import BadObjectError, NotFoundError, UsageError, XdpctlError
from xdpctl.kernel import libbpf
from xdpctl.model.chain import MAX_PRIORITY
from xdpctl.programs import objects

RETURNS = 'SEC("xdp") int {0}(struct xdp_md *ctx) {{ return 2; }}'

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.heavy]


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


@pytest.mark.parametrize(
    "section", some(2, ["prog", "?prog", "xdp_prog", "xdp/filter", "classifier1"])
)
def test_the_only_one_in_a_section_that_libbpf_does_not_know(tmp_path: Path, section: str) -> None:
    """It is taken; beside one that is known, or another such, it has to be named."""
    odd = RETURNS.format("odd").replace('"xdp"', f'"{section}"')
    entry = RETURNS.format("entry").replace('"xdp"', '"xdp/devmap"')
    assert objects.member(compiled(tmp_path, odd)).name == "odd"
    assert objects.member(compiled(tmp_path, entry + odd)).name == "odd"
    assert objects.member(compiled(tmp_path, odd + RETURNS.format("plain"))).name == "plain"
    other = RETURNS.format("other").replace('"xdp"', '"prog2"')
    with pytest.raises(BadObjectError, match="no XDP program") as caught:
        objects.member(compiled(tmp_path, odd + other))
    assert "-n PROGRAM" in caught.value.hint


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
    assert caught.value.why == "it is a directory, and not a regular file"


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


@pytest.mark.long
@pytest.mark.parametrize("name", ["count", "config"])
def test_every_truncated_object_is_refused(name: str, tmp_path: Path) -> None:
    data = Path(built(name)).read_bytes()
    for length in range(0, len(data), 64):
        error = outcome(data[:length], tmp_path / "cut.o")
        assert error is not None, length
        assert error.exit_code == 4
        assert error.hint or "corrupt" in error.what


@pytest.mark.long
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


@pytest.mark.long
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


def test_maps_that_want_btf() -> None:
    """Libbpf's words, and what to do about them."""
    with pytest.raises(BadObjectError) as caught:
        objects.member(built("stripped_count"))
    assert "BTF is required" in caught.value.details
    assert "BTF, which it lacks" in caught.value.why
    assert "clang -g" in caught.value.hint
