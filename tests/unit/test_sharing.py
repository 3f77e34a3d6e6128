"""xdpctl.programs.sharing: which maps of a program that runs another one takes."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import compiled
from xdpctl.errors import KernelError
from xdpctl.kernel import abi, libbpf, maps, records
from xdpctl.kernel.asm import PASS
from xdpctl.kernel.object import Object
from xdpctl.model.source import Image, Source, Tuning
from xdpctl.programs import sharing

RETURNS = 'SEC("xdp") int {0}(struct xdp_md *ctx) {{ return 2; }}'

pytestmark = pytest.mark.usefixtures("nothing_is_left")

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
    order: dict[int, str] | None = None,
    numbers: dict[str, int] | None = None,
    **wishes: Any,
) -> dict[str, str]:
    """The maps of a file that take the place of a running program's, each with that one's name."""
    there = {number: info._replace(id=number) for number, info in enumerate(running, 20)}
    path = compiled(
        directory, MAPS + source + RETURNS.format("f").replace("2;", "counter += limit;")
    )
    options = abi.ObjectOpenOpts(object_name=b"ours")
    info = records.ProgInfo(11, 6, "f", "", 0, 0, 0, tuple(there), gpl=True)
    found: dict[str, str] = {}

    def call(name: str, handle: int, number: int = 0) -> int:
        if name == "bpf_obj_get":
            raise KernelError(name, errno.ENOENT)
        assert name == "bpf_map__reuse_fd"
        called = libbpf.lib().bpf_map__name(handle).decode()
        found[called] = there[number].name
        if numbers is not None:
            numbers[called] = number
        return 0

    patch.setattr(libbpf, "prog_fd", lambda _number: os.open(os.devnull, os.O_RDONLY))
    patch.setattr(libbpf, "prog_info", lambda _fd: info)
    patch.setattr(libbpf, "map_fd", lambda number: number)
    patch.setattr(libbpf, "map_info", there.__getitem__)
    patch.setattr(sharing, "shape_in_kernel", lambda _handle, shape: shape)
    source_of = Source(path, b"", "f", maps_of=11, forced=forced, **wishes)
    with Object.parsed(Path(path).read_bytes(), options) as parsed:
        patch.setattr(libbpf, "call", call)
        sharing.share_maps(parsed, source_of, lambda: order or {})
    return found


def test_maps_are_shared_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the kernel keeps a name; those of sections whatever the file was called."""
    other = records.MapInfo(0, 2, "xdpctl_image", 0, flags=128)
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
        SHAPE._replace(flags=1),
    ],
    ids=["type", "key", "value", "flags"],
)
def test_a_map_of_another_shape_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: records.MapInfo
) -> None:
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, LONG, other)
    assert caught.value.call == sharing.SHARING
    assert caught.value.log == f"map packets: {SHAPE.shape} in the file, {other.shape} as it runs"


def test_a_file_that_stands_for_a_program_does_not_say_how_large_its_maps_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loader may have set that. It counts in a replacement, and if somebody says it."""
    larger = SHAPE._replace(max_entries=2)
    assert shared(tmp_path, monkeypatch, larger) == {"packets": "packets"}
    as_said: list[dict[str, Any]] = [
        {"tuning": Tuning(entries=(("packets", 1),))},
        {"replaces": True},
    ]
    for said in as_said:
        with pytest.raises(KernelError) as caught:
            shared(tmp_path, monkeypatch, larger, **said)
        assert caught.value.log.startswith(
            f"map packets: {SHAPE.shape} in the file, {larger.shape}"
        )


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
    twin = LONG._replace(value_size=4)
    with pytest.raises(KernelError) as caught:
        shared(tmp_path, monkeypatch, LONG, twin, RODATA._replace(value_size=8))
    lines = caught.value.log.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "map a_rather_long_name",
        "map ours.rodata",
    ]


# --- names that the kernel cuts -----------------------------------------------------------------

TWINS = """
struct { int (*type)[1]; int (*key_size)[4]; int (*value_size)[8]; int (*max_entries)[64]; }
    a_rather_long_other SEC(".maps");
"""
FULL = {20: "a_rather_long_other", 21: "a_rather_long_name"}
IMAGE = records.MapInfo(0, 2, "xdpctl_image", 500, flags=128)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "by order"])
def test_names_alike_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """By the full names that are kept with the program, else by the order of references."""
    record = Image(PASS, frags=False, gpl=True, names=tuple(FULL.items())).pack()
    monkeypatch.setattr(maps, "record", lambda *_map: record)
    one, other = LONG, LONG._replace(btf_id=9)
    given: dict[str, int] = {}
    order = None if kept else FULL
    running = (one, other, IMAGE) if kept else (one, other)
    seen = shared(tmp_path, monkeypatch, *running, source=TWINS, order=order, numbers=given)
    assert sorted(seen) == ["a_rather_long_name", "a_rather_long_other"]
    assert given == {"a_rather_long_other": 20, "a_rather_long_name": 21}


def test_names_alike_that_nothing_tells_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KernelError, match="sharing maps") as caught:
        shared(tmp_path, monkeypatch, LONG, LONG, source=TWINS)
    assert "2 maps of that name run" in caught.value.log


def test_an_image_keeps_names() -> None:
    image = Image(PASS, frags=True, gpl=False, names=((7, "a_rather_long_name"),))
    assert Image.unpack(image.pack()) == image
    assert Image.unpack(image.pack()[:-1]) is None
    assert Image.unpack(replace(image, names=()).pack() + b"[]") is None
    for names in (b"[1]", b"7", b"[[1, 2, 3]]", b"[" * 100_000):
        packed = image.pack().partition(PASS)[0] + PASS + names
        assert Image.unpack(packed) is None
