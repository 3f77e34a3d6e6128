"""xdpctl.programs.loading: shared maps, the second way to load as EXT, and what refusals say."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import compiled
from xdpctl.errors import KernelError, UnsupportedError, VerifierError, XdpctlError
from xdpctl.kernel import abi, libbpf, records
from xdpctl.model.chain import Source
from xdpctl.programs import loading

RETURNS = 'SEC("xdp") int {0}(struct xdp_md *ctx) {{ return 2; }}'

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# --- the maps of a program that runs ------------------------------------------------------------

MAPS = """
#define MAP(name, kind, value, entries) struct { \\
    int (*type)[kind]; int (*key_size)[4]; int (*value_size)[value]; int (*max_entries)[entries]; \\
    } name SEC(".maps");
MAP(packets, 2, 8, 1) MAP(a_rather_long_name, 1, 8, 64)
int counter;
const volatile int limit = 5;
"""
SHAPE = records.MapInfo(0, 2, "packets", 8)
LONG = records.MapInfo(0, 1, "a_rather_long_n", 8, max_entries=64)
BSS = records.MapInfo(0, 2, "theirs.bss", 4, flags=0x400)
RODATA = records.MapInfo(0, 2, "theirs.rodata", 4, flags=0x480)


def shared(
    directory: Path,
    patch: pytest.MonkeyPatch,
    *running: records.MapInfo,
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
    info = records.ProgInfo(11, 6, "f", "", 0, 0, 0, tuple(there), gpl=True)
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
        loading._share_maps(handle, Source(path, b"", "f", maps_of=11, forced=forced, **wishes))
    finally:
        libbpf.lib().bpf_object__close(handle)
    return found


def test_maps_are_shared_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the kernel keeps a name; those of sections whatever the file was called."""
    other = records.MapInfo(0, 2, "xdpctl_image", 500, flags=128)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: records.MapInfo
) -> None:
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, LONG, other)
    assert caught.value.call == loading._SHARING
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
    calls = records.MapInfo(0, 3, "calls", 4)
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
        raise KernelError(loading._SHARING, 22, "map packets: this, that")

    monkeypatch.setattr(loading, "_share_maps", share)
    path = compiled(tmp_path, RETURNS.format("f"))
    source = Source(path, Path(path).read_bytes(), "f", maps_of=11)
    with pytest.raises(UnsupportedError, match="cannot share the maps of program 11") as caught:
        loading.load(source, frags=False)
    assert caught.value.why == "map packets: this, that"
    assert "loaded from" in caught.value.hint


# --- a second way, where libbpf's is refused ----------------------------------------------------

Attempt = tuple[tuple[int, str] | None, KernelError | None]


def loaded(
    patch: pytest.MonkeyPatch,
    first: KernelError | None,
    second: KernelError | None = None,
    target: tuple[int, str] | None = (5, "prog0"),
) -> tuple[loading.Loaded | XdpctlError, list[Attempt]]:
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

    patch.setattr(loading, "_load", load)
    patch.setattr(loading, "in_child", lambda _path, work: work())
    try:
        return loading.load(Source("/old.o", b"", "old"), False, target), tried
    except XdpctlError as error:
        return error, tried


INVALID = KernelError("verifier", errno.EINVAL, "Program extension requires BTF\n")


def test_one_way_is_enough_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, None)
    assert result == loading.Loaded(71, {}, {})
    assert tried == [((5, "prog0"), None)]


def test_what_btf_is_refused_for_is_loaded_without(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, INVALID)
    assert result == loading.Loaded(72, {}, {})
    assert tried == [((5, "prog0"), None), ((5, "prog0"), INVALID)]


@pytest.mark.parametrize(
    "fault",
    [
        KernelError("bpf_prog_load", errno.EPERM),
        KernelError("verifier", errno.EACCES, "invalid access to packet"),
        KernelError("bpf_object__load", errno.ENOMEM),
        KernelError(loading._SHARING, errno.EINVAL, "map packets: 2 maps of that name run"),
        KernelError(loading._FILLING, errno.EINVAL),
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
    result, _tried = loaded(monkeypatch, INVALID, KernelError(loading._CALLING, errno.EINVAL))
    assert isinstance(result, UnsupportedError)
    assert result.what == "old of /old.o cannot replace a function of a dispatcher"
    assert "tail calls" in result.why
    assert "--root fused" in result.hint
