"""xdpctl.programs.clang: C that clang compiles, once for the same text and flags."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.samples import ROOT, needs_root
from xdpctl.errors import BadObjectError, NotFoundError, UnsupportedError, UsageError
from xdpctl.host import cache as kept
from xdpctl.programs import clang, objects
from xdpctl.programs.clang import Build
from xdpctl.roots import dispatcher

pytestmark = pytest.mark.heavy

PROGRAM = """
#include <stddef.h>
#include <stdint.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <netinet/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "verdict.h"
SEC("xdp") int mine(struct xdp_md *ctx) { return VERDICT; }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "dir/mine.c"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    (path.parent / "verdict.h").write_text("#define VERDICT XDP_PASS\n")
    return path


def tree(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path)) for one in path.rglob("*"))


def test_a_source_is_a_program_like_an_object(source: Path) -> None:
    member = objects.member(str(source))
    assert (member.name, member.size) == ("mine", 16)
    assert member.source
    assert (member.source.path, member.source.image) == (str(source), None)
    assert member.source.data.startswith(b"\x7fELF")


@needs_root
def test_the_same_is_compiled_once(
    source: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the text with all that it includes, and the flags."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    first = clang.compiled(str(source))
    (file,) = cache.iterdir()
    assert file.name.startswith("source-")
    assert file.read_bytes().startswith(first)
    taken = b"taken from here"
    file.write_bytes(taken + kept._seal(file.read_bytes()[-64:-32], taken))
    assert clang.compiled(str(source)) == b"taken from here"
    source.touch()
    assert clang.compiled(str(source)) == b"taken from here"
    (source.parent / "verdict.h").write_text("#define VERDICT XDP_DROP\n")
    second = clang.compiled(str(source))
    assert second not in (first, b"taken from here")
    (source.parent / "verdict.h").write_text("#ifndef VERDICT\n#define VERDICT XDP_PASS\n#endif\n")
    assert clang.compiled(str(source), ["-DVERDICT=XDP_TX"]) != clang.compiled(str(source))
    assert len(list(cache.iterdir())) == 4
    assert tree(tmp_path / "tmp") == []
    assert tree(source.parent) == ["mine.c", "verdict.h"]


def test_flags_of_the_user(source: Path, tmp_path: Path) -> None:
    header = tmp_path / "elsewhere/verdict.h"
    header.parent.mkdir()
    (source.parent / "verdict.h").rename(header)
    with pytest.raises(BadObjectError, match="clang cannot compile") as caught:
        clang.compiled(str(source))
    assert "mine.c:10:10: fatal error: 'verdict.h' file not found" in caught.value.why
    assert caught.value.hint.startswith("-I DIR")
    assert clang.compiled(str(source), [f"-I{header.parent}"])
    assert clang.compiled(str(source), ["-DVERDICT=0", f"-I{header.parent}"])


def test_errors_are_the_compiler_s(source: Path) -> None:
    """With the lines, files and macros of the source, as if it had compiled the file itself."""
    (source.parent / "verdict.h").write_text("#define VERDICT PASS + \\\n nothing\n")
    with pytest.raises(BadObjectError) as caught:
        clang.compiled(str(source))
    command = ["clang", "-target", "bpf", *clang._system(), "-c", str(source), "-o", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert caught.value.why == said.strip()
    assert "expanded from macro 'VERDICT'" in said


def test_what_cannot_be_compiled(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match=r"no such file: .*none\.c"):
        objects.member(str(tmp_path / "none.c"))
    (tmp_path / "dir.c").mkdir()
    with pytest.raises(BadObjectError, match="cannot read"):
        objects.member(str(tmp_path / "dir.c"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError) as caught:
        objects.member(str(source))
    assert "apt install clang" in caught.value.hint


@pytest.mark.parametrize("name", ["-DX=.c", "@x.c", "--.c", "-.c"])
def test_a_name_that_looks_like_an_option(
    source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Or like a file of options, which may have a compiler run anything."""
    monkeypatch.chdir(source.parent)
    Path("x.c").write_text("-DNAMED")
    source.rename(name)
    assert objects.member(name).name == "mine"


def test_the_environment_of_the_user_adds_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers, flags and libraries are those of the machine and of the command line."""
    header = tmp_path / "elsewhere/verdict.h"
    header.parent.mkdir()
    (source.parent / "verdict.h").rename(header)
    for name in ("CPATH", "C_INCLUDE_PATH"):
        monkeypatch.setenv(name, str(header.parent))
    monkeypatch.setenv("CCC_OVERRIDE_OPTIONS", f"+-I{header.parent}")
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent.so")
    with pytest.raises(BadObjectError, match="clang cannot compile") as caught:
        clang.compiled(str(source))
    assert "verdict.h' file not found" in caught.value.why
    assert "ld.so" not in caught.value.why


def fake_clang(directory: Path, script: str) -> None:
    directory.mkdir(exist_ok=True)
    clang = directory / "clang"
    clang.write_text(f"#!/bin/sh\n{script}\n")
    clang.chmod(0o755)


def test_no_compiler_of_the_working_directory_is_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the user's source and for the dispatcher alike: PATH may have names that are relative."""
    fake_clang(tmp_path / "here", "echo planted")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", ".")
    monkeypatch.setenv("XDPCTL_CACHE", "/dev/null")
    with pytest.raises(UnsupportedError, match="cannot compile") as caught:
        clang.compiled(str(source))
    assert caught.value.why == "clang: No such file or directory"
    with pytest.raises(clang.NoClangError):
        dispatcher.compile_c(b"")


def test_a_compiler_that_does_not_end(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_clang(tmp_path / "bin", "exec /bin/sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(clang, "LIMIT", 0.1)
    with pytest.raises(BadObjectError, match="clang cannot compile") as caught:
        clang.compiled(str(source))
    assert caught.value.why == "it did not end in 0.1 s"
    with pytest.raises(UnsupportedError, match="clang cannot compile the dispatcher"):
        dispatcher.compile_c(b"")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("#include <linux/bpf.h>\nint f(void) { return nonesuch(); }", "the header that declares"),
        ("#include <uapi/linux/bpf.h>\nint f(struct xdp_md *ctx) { return 2; }", "--bcc"),
        ('BPF_HASH(a, int);\n#define S SEC("xdp")\nS int f(void) { a.x(); }', "--bcc"),
        ('#include "none.h"', "-I DIR"),
        ("int f(void) { return }", ""),
    ],
)
def test_what_may_help(source: Path, text: str, hint: str) -> None:
    source.write_text(text)
    with pytest.raises(BadObjectError, match="clang cannot compile") as caught:
        clang.compiled(str(source))
    assert hint in caught.value.hint
    assert bool(caught.value.hint) is bool(hint)


@pytest.mark.parametrize("build", [Build(("-DX",)), Build(("-Ix",)), Build(bcc=True)])
def test_options_that_do_nothing(build: Build) -> None:
    """Flags for a compiler with files that are compiled already."""
    build.check_used(["x.o", "y.c"])
    Build(bcc=None).check_used(["x.o"])
    with pytest.raises(UsageError, match="nothing is compiled"):
        build.check_used(["x.o", "y.o"])


def test_options_without_a_value() -> None:
    """The compiler would take the next word for it."""
    for flag in ("-I", "-D"):
        with pytest.raises(UsageError, match=f"{flag} has no value"):
            Build((flag,)).check_used(["y.c"])


@pytest.mark.parametrize("name", ["count", "core", "subprogs", "tailcall", "timer", "xsk"])
def test_the_test_programs_compile_without_flags(name: str) -> None:
    assert clang.compiled(str(ROOT / f"tests/bpf/{name}.c")).startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("text", "bcc"),
    [
        ("BPF_ARRAY(a, u64, 1);\nint f(struct xdp_md *c) { return 2; }", True),
        ('BPF_TABLE("percpu_array", u32, long, dropcnt, 256);', True),
        ("\n  BPF_DEVMAP(tx, 1);", True),
        ("// BPF_ARRAY(a, u64, 1);", False),
        ("/*\nBPF_ARRAY(a, u64, 1);\n*/", False),
        ("/* not SEC( */ // section(\nBPF_ARRAY(a, u64, 1);", True),
        ('BPF_ARRAY(a, u64, 1);\nSEC("xdp") int f(void);', False),
        ('BPF_ARRAY(a, u64, 1);\n__attribute__((section("xdp"))) int f(void);', False),
        ("#define BPF_ARRAY(name) x\n", False),
        ("#define BPF_ARRAY(name) x\nBPF_ARRAY(a);", False),
        ("#define S(n) __attribute__((section(n)))\nBPF_ARRAY(a, u64, 1);", True),
        ('#define S(n) \\\n section(n)\nBPF_ARRAY(a, u64, 1);\nS("xdp") int f(void);', False),
        ("#define SEC(n) x\nBPF_ARRAY(a, u64, 1);", True),
        ('BPF_ARRAY(a, u64, 1);\n__attribute__((__section__("xdp"))) int f(void);', False),
        ('BPF_ARRAY(a, u64, 1);\n__section("xdp") int f(void);', False),
        ("int f(struct xdp_md *c) { return 2; }", False),
        ("", False),
    ],
)
def test_which_sources_are_for_bcc(text: str, bcc: bool) -> None:
    """Recognised only where libbpf could find no program at all."""
    assert clang.is_bcc(text.encode()) is bcc
    assert Build().is_bcc(text.encode()) is bcc
    assert Build(bcc=True).is_bcc(text.encode())
    assert not Build(bcc=False).is_bcc(text.encode())


def test_no_test_program_is_taken_for_bcc_s() -> None:
    for path in (ROOT / "tests/bpf").glob("*.c"):
        assert not clang.is_bcc(path.read_bytes()), path
    assert clang.is_bcc((ROOT / "tests/bcc/seen.c").read_bytes())
