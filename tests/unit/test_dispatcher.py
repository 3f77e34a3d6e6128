"""xdpctl.roots.dispatcher: the compiled root and its cache."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.unit.samples import DROP, PASS, ROOT, fresh, needs_clang, needs_root
from xdpctl.errors import UnsupportedError
from xdpctl.host.cache import kept
from xdpctl.kernel import abi, libbpf, uapi
from xdpctl.kernel.btf import (
    BTF_FUNC_GLOBAL,
    BTF_KIND_ARRAY,
    BTF_KIND_DATASEC,
    BTF_KIND_FUNC,
    BTF_KIND_PTR,
    Btf,
)
from xdpctl.kernel.object import Object
from xdpctl.model.chain import Rules
from xdpctl.model.record import PROTOCOLS, Config, root_name
from xdpctl.roots import dispatcher

pytestmark = [needs_clang, pytest.mark.heavy]
SOURCE = ROOT / "bpf/dispatcher.c"


# --- which function a member replaces -----------------------------------------------------------


@pytest.mark.parametrize(
    ("masks", "names"),
    [
        ([PASS], ["xdp_dispatcher"]),
        ([0], ["xdp_dispatcher"]),
        ([PASS | DROP], ["prog0"]),
        ([DROP], ["prog0"]),
        ([PASS, PASS], ["prog0", "prog1"]),
    ],
)
def test_only_a_lone_program_whose_verdict_is_final_takes_the_entry(
    masks: list[int], names: list[str]
) -> None:
    members = [fresh(f"m{slot}", actions=mask) for slot, mask in enumerate(masks)]
    slots = range(len(members))
    assert [dispatcher.slot_function(members, slot) for slot in slots] == names


def test_other_rules_keep_a_lone_program_from_the_entry() -> None:
    for rules in (Rules(on_end=1), Rules(on_vacant=1)):
        assert dispatcher.slot_function([fresh()], 0, rules) == "prog0"


# --- the compiled root --------------------------------------------------------------------------


@functools.cache
def image_of(masks: tuple[int, ...]) -> bytes:
    return dispatcher.object_for(masks)


def opened(image: bytes) -> Object:
    return Object.parsed(image, abi.ObjectOpenOpts(object_name=b"xdp_dispatcher"))


def functions_of(btf: Btf, parsed: Object) -> set[str]:
    """The names of the functions in an object's BTF that are global."""
    count = libbpf.lib().btf__type_cnt(libbpf.lib().bpf_object__btf(parsed.handle))
    kinds = [(number, btf.type(number)) for number in range(1, count)]
    return {
        btf.name(number)
        for number, found in kinds
        if found.kind == BTF_KIND_FUNC and found.vlen == BTF_FUNC_GLOBAL
    }


def check_object(image: bytes, count: int, protocol: int = 2) -> int:
    """Check what libxdp's tools and the kernel want of a root; returns its entry's instructions.

    Of a wide one libxdp's tools want nothing.
    """
    wide, entry = count > 10, root_name(count)
    own = ctypes.CDLL("libbpf.so.1")
    own.bpf_map__value_size.argtypes = [ctypes.c_void_p]
    with opened(image) as parsed:
        (program,) = parsed.programs
        assert program.name == entry
        assert program.type == uapi.BPF_PROG_TYPE_XDP
        assert program.attach_type == uapi.BPF_XDP
        (config_map,) = parsed.maps
        size = own.bpf_map__value_size(config_map.handle)
        assert size == (16 + 12 * count if wide else {1: 84, 2: 124, 3: 128}[protocol])
        # What is written into it is as long.
        assert len(Config.of([fresh()] * count, protocol).pack()) == size
        btf = parsed.btf
        assert btf is not None
        slots = {f"prog{slot}" for slot in range(count)}
        assert functions_of(btf, parsed) == {entry, *slots}
        if wide:
            assert not btf.find("xdp_metadata", BTF_KIND_DATASEC)
            return program.size // 8
        metadata = btf.type(btf.find("xdp_metadata", BTF_KIND_DATASEC))
        ((variable, _offset, _size),) = btf.records(metadata, metadata.vlen, 3)
        assert btf.name(variable) == "dispatcher_version"
        pointer = btf.type(btf.type(variable).size_or_type)
        array = btf.type(pointer.size_or_type)
        assert (pointer.kind, array.kind) == (BTF_KIND_PTR, BTF_KIND_ARRAY)
        ((_element, _index, version),) = btf.records(array, 1, 3)
        assert version == protocol
        return program.size // 8


@pytest.mark.parametrize("count", range(12))
def test_shape(count: int) -> None:
    # Besides the slots: keep the context, the verdict past the last slot, exit.
    assert check_object(image_of((PASS,) * count), count) - 3 <= 5 * count


@pytest.mark.parametrize(
    "masks", [(0,), (0b11111,) * 10, (DROP, PASS, 0, DROP | PASS, 1 << 4), (PASS,) * 200]
)
def test_shape_with_other_masks(masks: tuple[int, ...]) -> None:
    check_object(image_of(masks), len(masks))


def clang(*flags: str) -> bytes:
    """The dispatcher's source compiled by hand."""
    command = ["clang", *dispatcher.cflags(), *flags, str(SOURCE), "-o", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_general_shape(protocol: int) -> None:
    """Without a shape: ten slots and the same record, for machines without a clang."""
    check_object(clang("-c", f"-DPROTOCOL={protocol}"), 10, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("masks", [(PASS,), (0b11111,) * 10])
def test_every_protocol_has_its_record(protocol: int, masks: tuple[int, ...]) -> None:
    """The number that BTF gives, and the size, by which libxdp's readers go; the same code."""
    count = check_object(dispatcher.object_for(masks, protocol), len(masks), protocol)
    assert count == check_object(image_of(masks), len(masks))


def test_the_package_carries_a_general_object_of_each_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hatch_build.py makes, in a copy of the source."""
    hooks = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    hooks.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, hooks.__name__, hooks)
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "bpf").mkdir()
    shutil.copy(SOURCE, tmp_path / "bpf")
    hook = object.__new__(module.DispatcherHook)
    hook.root = str(tmp_path)
    data: dict[str, list[str]] = {"artifacts": []}
    hook.initialize("standard", data)
    names = [f"dispatcher-{protocol}.o" for protocol in (1, 2, 3)]
    assert data["artifacts"] == [f"/bpf/{name}" for name in names]
    assert sorted(os.listdir(tmp_path / "bpf")) == [*names, SOURCE.name]
    for protocol, name in zip(PROTOCOLS, names, strict=True):
        assert name == dispatcher.general(protocol)
        check_object((tmp_path / "bpf" / name).read_bytes(), 10, protocol)


@pytest.mark.parametrize("rules", [Rules(on_end=0), Rules(on_end=1), Rules(on_vacant=1)])
def test_other_rules_are_other_code_with_the_same_record(rules: Rules) -> None:
    image = dispatcher.object_for((PASS, DROP), rules=rules)
    check_object(image, 2)
    assert image != image_of((PASS, DROP))


def test_no_header_is_needed() -> None:
    check_object(clang("-c", "-nostdinc", "-DSLOTS=SLOT(0, 0x4)"), 1)


def test_each_slot_answers_31_and_may_change_packets() -> None:
    assembly = clang("-S", "-DSLOTS=SLOT(0, 0x4) SLOT(1, 0x4)").decode()
    for name in ("prog0", "prog1"):
        match = re.search(rf"^{name}:.*?^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
        assert match, name
        body = match.group()
        assert re.search(r"= 31\b", body), name
        assert re.search(r"\bcall 65\b", body), name


# --- the cache ----------------------------------------------------------------------------------


def without_clang(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))


@needs_root
def test_the_second_time_no_compiler_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dispatcher.object_for((PASS, DROP))
    (file,) = cache.iterdir()
    assert file.read_bytes().startswith(first)
    assert not cache.stat().st_mode & 0o077
    without_clang(tmp_path / "empty", monkeypatch)
    assert dispatcher.object_for((PASS, DROP)) == first


@needs_root
def test_every_shape_and_every_source_has_a_file_of_its_own(cache: Path) -> None:
    shapes = [(PASS,), (DROP,), (PASS, PASS), (PASS, DROP), (DROP, PASS)]
    assert len({dispatcher.object_for(masks) for masks in shapes}) == len(shapes)
    assert len(list(cache.iterdir())) == len(shapes)
    source, shape = SOURCE.read_bytes(), ("-DSLOTS=SLOT(0, 0x4)", "-DPROTOCOL=2")
    assert dispatcher._cached(source, *shape) == dispatcher.object_for((PASS,))
    assert len(list(cache.iterdir())) == len(shapes)
    dispatcher._cached(source + b"/* newer */", *shape)
    assert len(list(cache.iterdir())) == len(shapes) + 1


@needs_root
def test_every_protocol_has_a_file_of_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {protocol: dispatcher.object_for((PASS,), protocol) for protocol in PROTOCOLS}
    assert len(set(images.values())) == len(list(cache.iterdir())) == len(PROTOCOLS)
    without_clang(tmp_path / "empty", monkeypatch)
    for protocol, image in images.items():
        assert dispatcher.object_for((PASS,), protocol) == image
        check_object(image, 1, protocol)


@needs_root
def test_a_wide_dispatcher_is_the_same_for_every_protocol(cache: Path) -> None:
    assert len({dispatcher.object_for((PASS,) * 11, protocol) for protocol in PROTOCOLS}) == 1
    assert len(list(cache.iterdir())) == 1


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner"),
    [(0o777, 0), (0o1777, 0), (0o770, 0), (0o700, 65534)],
    ids=["writable", "sticky", "group", "foreign"],
)
def test_a_directory_that_others_can_write_is_not_used(
    cache: Path, tmp_path: Path, mode: int, owner: int
) -> None:
    cache.mkdir()
    image = dispatcher.object_for((PASS,))
    (planted,) = cache.iterdir()
    planted.unlink()
    source, shape = SOURCE.read_bytes(), ("-DSLOTS=SLOT(0, 0x4)", "-DPROTOCOL=2")
    key = "\0".join([*dispatcher.cflags(), *shape, ""]).encode() + source
    kept("dispatcher", key, lambda: b"evil")
    assert dispatcher.object_for((PASS,)) == b"evil"  # it is this file that would be taken
    evil = planted.read_bytes()
    cache.chmod(mode)
    os.chown(cache, owner, -1)
    assert dispatcher.object_for((PASS,)) == image
    assert dispatcher.object_for((DROP,)) != b"evil"
    assert list(cache.iterdir()) == [planted]
    assert planted.read_bytes() == evil


@pytest.mark.parametrize("path", ["/proc/xdpctl", "/dev/null", "/dev/null/cache"])
def test_a_cache_that_cannot_be_made_is_done_without(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDPCTL_CACHE", path)
    assert dispatcher.object_for((PASS,)) == image_of((PASS,))


# --- without a working compiler -----------------------------------------------------------------


def test_without_clang_the_packaged_object_serves(tmp_path: Path) -> None:
    """On a copy of the package, with and without a general object beside the source."""
    shutil.copytree(ROOT / "xdpctl", tmp_path / "xdpctl")
    bpf = tmp_path / "xdpctl/bpf"
    bpf.mkdir(exist_ok=True)
    shutil.copy(SOURCE, bpf)
    code = (
        "import sys\n"
        "from xdpctl import errors\nfrom xdpctl.roots import dispatcher\n"
        "try:\n"
        "    protocol, count = map(int, sys.argv[1:])\n"
        "    print(dispatcher.object_for((4,) * count, protocol).decode())\n"
        "except errors.UnsupportedError as error:\n"
        "    print(error.exit_code, error.what, error.why, error.hint, sep='|')\n"
    )

    def answer(protocol: int, count: int = 1) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(protocol), str(count)],
            env={"PATH": str(bpf), "PYTHONPATH": str(tmp_path), "XDPCTL_CACHE": "/dev/null"},
            cwd=bpf,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    exit_code, _what, why, hint = answer(2).split("|")
    assert exit_code == "7"
    assert "clang is not installed" in why
    assert "apt install clang" in hint
    for protocol in PROTOCOLS:
        (bpf / dispatcher.general(protocol)).write_bytes(b"the general object %d" % protocol)
    for protocol in PROTOCOLS:
        assert answer(protocol, 10) == f"the general object {protocol}"
    exit_code, what, why, hint = answer(2, 11).split("|")
    assert (exit_code, what) == ("7", "no dispatcher for this chain")
    assert why.endswith("carries no compiled dispatcher for more than 10 programs")
    assert "--root fused" in hint


def test_a_clang_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\ncat > /dev/null\necho unknown target triple >&2\nexit 1\n")
    clang.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnsupportedError, match="clang cannot compile") as caught:
        dispatcher.object_for((PASS,))
    assert caught.value.why == "unknown target triple"
