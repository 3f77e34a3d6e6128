"""xdpctl.programs.vmlinux: the types of the running kernel for C sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.samples import needs_root
from xdpctl.errors import BadObjectError, UnsupportedError
from xdpctl.programs import clang, objects, vmlinux

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int mine(struct xdp_md *ctx) {
    return sizeof(struct sk_buff) > sizeof(struct ethhdr) ? XDP_PASS : XDP_ABORTED;
}
"""

needs_types = pytest.mark.skipif(not vmlinux._BTF.exists(), reason="missing: kernel BTF")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "dir/mine.c"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


@needs_root
@needs_types
@pytest.mark.long
def test_it_is_made_once_for_a_source_that_includes_it(
    source: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it but in the cache."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    first = clang.compiled(str(source))
    assert objects.member(str(source)).name == "mine"
    assert sorted(one.name.partition("-")[0] for one in cache.iterdir()) == ["source", "vmlinux"]
    monkeypatch.setattr(vmlinux, "_made", None)
    assert clang.compiled(str(source)) == first
    assert list((tmp_path / "tmp").iterdir()) == []


@needs_types
@pytest.mark.long
def test_a_header_that_is_there_goes_before(source: Path, tmp_path: Path) -> None:
    """One beside the source, or in a directory that -I names."""
    source.write_text(
        '#include "vmlinux.h"\n'
        + SOURCE.partition("helpers.h>")[2]
        .partition("{")[0]
        .replace('SEC("xdp")', '__attribute__((section("xdp"), used))')
        + "{ return VERDICT; }"
    )
    header = tmp_path / "include/vmlinux.h"
    header.parent.mkdir()
    header.write_text("struct xdp_md;\n#define VERDICT 1\n")
    assert clang.compiled(str(source), [f"-I{header.parent}"])
    with pytest.raises(BadObjectError, match="clang cannot compile") as caught:
        clang.compiled(str(source))
    assert "VERDICT" in caught.value.why
    header.rename(source.parent / "vmlinux.h")
    assert clang.compiled(str(source))


def test_a_kernel_without_its_types(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmlinux, "_BTF", Path("/nonexistent/vmlinux"))
    with pytest.raises(UnsupportedError, match=r"no vmlinux\.h for") as caught:
        clang.compiled(str(source))
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint
    assert "-I DIR" in caught.value.hint


@needs_types
def test_the_types_are_those_of_the_kernel() -> None:
    text = vmlinux.header("mine.c").decode()
    for line in ("struct xdp_md {", "XDP_PASS = 2,", "struct task_struct {", "#pragma once"):
        assert line in text
