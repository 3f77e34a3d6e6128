"""xdpctl.programs.bcc: which program is meant, what stands in the way, and who pays for BCC."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.unit.machine import insn
from tests.unit.samples import ROOT, needs_root
from xdpctl.api.attach import attach
from xdpctl.errors import (
    BadObjectError,
    KernelError,
    NotFoundError,
    UnsupportedError,
    UsageError,
    XdpctlError,
)
from xdpctl.kernel import libbpf, uapi
from xdpctl.kernel.asm import LD_IMM64, PASS
from xdpctl.model.source import Image, Source
from xdpctl.programs import bcc, loading, objects
from xdpctl.programs.clang import Build
from xdpctl.programs.image import Tables

SEEN = str(ROOT / "tests/bcc/seen.c")


def test_nobody_pays_for_bcc_who_does_not_use_it() -> None:
    code = (
        "import sys, xdpctl; xdpctl.attach; import xdpctl.cli.commands.load; "
        "print('bcc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"False\n"


def test_importing_costs_less_than_click() -> None:
    """In modules, each in an interpreter of its own: times vary with what else is done."""

    def modules(name: str) -> int:
        code = f"import sys; had = len(sys.modules); import {name}; print(len(sys.modules) - had)"
        return int(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))

    assert modules("xdpctl") < modules("click")


def test_remove_xdp_takes_out_what_is_its_own() -> None:
    """On another interface it is BCC's, which takes off whatever is there."""

    class Module:
        remove_xdp = staticmethod(lambda dev, flags=0: said.append((dev, flags)))

    class Held:
        def __init__(self, name: str) -> None:
            self.name = name

        def detach(self) -> None:
            said.append(self.name)

    said: list[object] = []
    module, other = Module(), Module()
    for interface, name in (("eth0", "one"), ("eth1", "two"), ("eth0", "three")):
        bcc.keep(module, interface, Held(name))  # type: ignore[arg-type]
    for dev in (b"eth0", "eth0", "eth1", "eth2"):
        module.remove_xdp(dev, 4)
    other.remove_xdp("eth0")
    assert said == ["one", "three", "one", "three", "two", ("eth2", 4), ("eth0", 0)]


@pytest.mark.parametrize(
    ("found", "program", "name"), [(["one"], None, "one"), (["one", "two"], "two", "two")]
)
def test_the_program_that_is_meant(found: list[str], program: str | None, name: str) -> None:
    assert bcc._chosen("it", found, program) == name


@pytest.mark.parametrize(
    ("found", "program", "error", "text"),
    [
        ([], None, BadObjectError, "no XDP program in it"),
        ([], "one", NotFoundError, "no program one in it"),
        (["one", "two"], None, UsageError, "it has several programs"),
        (["one", "two"], "three", NotFoundError, "no program three in it"),
    ],
)
def test_a_program_that_is_not_there(
    found: list[str], program: str | None, error: type[XdpctlError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        bcc._chosen("it", found, program)
    assert caught.value.why in ("", "one, two", "it has one, two", "it has none")


@needs_root
@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("module", [None, ModuleType("bcc")], ids=["none", "another project's"])
def test_without_bcc(module: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", module)
    with pytest.raises(UnsupportedError, match=r"seen\.c needs BCC") as caught:
        objects.member(SEEN)
    assert "python3-bpfcc" in caught.value.hint
    assert "PyPI" in caught.value.hint


@needs_root
@pytest.mark.usefixtures("nothing_is_left")
def test_without_headers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One message, and nothing of BCC's own beside it."""
    pytest.importorskip("bcc")
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nonexistent")
    with pytest.raises(UnsupportedError, match=r"BCC cannot compile .*seen\.c") as caught:
        objects.member(SEEN)
    assert os.uname().release in caught.value.why
    assert "linux-headers" in caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_what_its_compiler_says_is_shown() -> None:
    said = "/virtual/main.c:4:2: error: no"
    error = bcc._explained("a.c", KernelError(bcc._COMPILING, 22, said))
    assert isinstance(error, BadObjectError)
    assert error.why == "a.c:4:2: error: no"


def test_there_are_no_sections() -> None:
    with pytest.raises(UsageError, match="no section xdp in"):
        objects.member(SEEN, section="xdp")


@pytest.mark.parametrize("how", ["forgotten", "let go"])
def test_descriptors_of_tables_are_closed_at_last(how: str) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    source = Source("a.c", b"", "f", image=Image(PASS, False, True), tables=Tables({"t": fd}))
    member = objects.of_image(source, None, None)
    assert (member.name, member.size, member.priority, member.actions) == ("f", 16, 50, 1 << 2)
    del source
    os.fstat(fd)
    if how == "forgotten":
        del member
    else:
        with objects.letting_go([member]):
            os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_such_a_program_shares_no_maps() -> None:
    source = Source("a.c", b"", "f", maps_of=11, image=Image(PASS, False, True))
    with pytest.raises(UnsupportedError, match="cannot share the maps of program 11") as caught:
        loading.load(source, frags=False)
    assert "--maps new" in caught.value.hint


class _Library:
    """BCC's C interface, with two functions."""

    licence = b"GPL"

    def bpf_num_functions(self, _module: object) -> int:
        return 2

    def bpf_function_name(self, _module: object, number: int) -> bytes:
        return (b"one", b"two")[number]

    def bpf_module_license(self, _module: object) -> bytes:
        return self.licence


class _BPF:
    module = 7

    def dump_func(self, name: bytes) -> bytes:
        assert name == b"two"
        return libbpf_map(5) + PASS


def libbpf_map(fd: int) -> bytes:
    return insn(LD_IMM64, dst=1, src=uapi.BPF_PSEUDO_MAP_FD, imm=fd) + insn(0)


@pytest.mark.parametrize(
    ("licence", "gpl"), [(b"GPL", True), (b"Dual BSD/GPL", True), (b"X", False)]
)
def test_a_module_at_hand(licence: bytes, gpl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    package, inner = ModuleType("bcc"), ModuleType("bcc.libbcc")
    library = _Library()
    library.licence = licence
    values: dict[str, Any] = {"BPF": _BPF, "__path__": []}
    package.__dict__.update(values)
    inner.__dict__["lib"] = library
    monkeypatch.setitem(sys.modules, "bcc", package)
    monkeypatch.setitem(sys.modules, "bcc.libbcc", inner)
    monkeypatch.setattr(libbpf, "map_info", lambda fd: type("", (), {"id": fd + 100}))
    module = _BPF()
    assert bcc.is_module(module)
    assert not bcc.is_module("prog.o")
    assert bcc.of_module(module, "two") == ("two", Image(libbpf_map(105) + PASS, False, gpl))
    with pytest.raises(UsageError, match=r"the bcc\.BPF object has several programs"):
        bcc.of_module(module, None)


def test_what_attach_takes() -> None:
    assert not bcc.is_module(object())
    with pytest.raises(TypeError, match="a list is no source"):
        attach([], "lo")  # type: ignore[arg-type]
    with pytest.raises(BadObjectError, match="<bytes> is not an ELF"):
        attach(b"text", "lo")
    assert Build() == Build((), None)
