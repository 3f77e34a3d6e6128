"""xdpctl.programs.words: what libbpf and the verifier say, as what failed, why and what to do."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from tests.unit.samples import compiled
from xdpctl import errors
from xdpctl.errors import BadObjectError, KernelError, UnsupportedError, VerifierError
from xdpctl.kernel import libbpf
from xdpctl.programs import objects, words

pytestmark = pytest.mark.usefixtures("nothing_is_left")

PROGRAM = 'SEC("xdp") {0} int f(struct xdp_md *ctx) {{ return {1}; }}'
MAP = "struct { int (*type)[2]; int (*key_size)[4]; int (*value_size)[8]; int (*max_entries)[1]; }"

# A source, flags of its own, what the reason says and what there is to do.
OPENING: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "undeclared": (PROGRAM.format("", "nonesuch(ctx)"), ("-w",), "uses nonesuch, which", "header"),
    "undeclared, no BTF": (
        PROGRAM.format("", "nonesuch(ctx)"),
        ("-w", "-g0"),
        "uses nonesuch, which",
        "header",
    ),
    "not linked": (
        "extern int other(void *);" + PROGRAM.format("", "other(ctx)"),
        (),
        "uses other, which",
        "link the object",
    ),
    "a variable that is not linked": (
        "extern int limit;" + PROGRAM.format("", "limit"),
        (),
        "uses limit, which",
        "link the object",
    ),
    "static": (PROGRAM.format("static", "2"), (), "f is a static function", "leave out static"),
    "byte order": (
        PROGRAM.format("", "2"),
        ("-target", words._TARGET.replace("el", "xx").replace("eb", "el").replace("xx", "eb")),
        "other byte order",
        f"-target {words._TARGET}",
    ),
    "another machine": (
        PROGRAM.format("", "2"),
        ("-target", "x86_64"),
        "another machine",
        "-target bpf",
    ),
    "maps without BTF": (
        f'{MAP} packets SEC(".maps");' + PROGRAM.format("", "(long)&packets"),
        ("-g0", "-w"),
        "lacks",
        "clang -g",
    ),
}


@pytest.mark.parametrize("case", OPENING)
def test_what_libbpf_does_not_open(tmp_path: Path, case: str) -> None:
    source, flags, why, hint = OPENING[case]
    with pytest.raises(BadObjectError, match="is not a usable BPF object") as caught:
        objects.member(compiled(tmp_path, source, *flags))
    assert why in caught.value.why
    assert hint in caught.value.hint
    assert "{" not in caught.value.why + caught.value.hint
    assert caught.value.details  # what libbpf said is kept


@pytest.mark.parametrize("more", ["", "int g(struct xdp_md *ctx) { return 1; }"])
def test_a_program_without_a_section(tmp_path: Path, more: str) -> None:
    """It is not taken for one that means XDP, as the only one in another section is.

    libbpf calls neither of two such functions a program, and newer ones not the only one either.
    """
    path = compiled(tmp_path, f"int f(struct xdp_md *ctx) {{ return 2; }} {more}")
    with pytest.raises(BadObjectError, match="no XDP program") as caught:
        objects.member(path)
    assert caught.value.why.startswith("it has f (")
    assert caught.value.hint == 'f has no section of its own: write SEC("xdp") before it'


# What a libbpf says on loading (1.1, and others where they differ), what the error is then.
LOADING = (
    (
        "libbpf: extern (func ksym) 'bpf_none': not found in kernel or module BTFs\n"
        "libbpf: failed to load object 'x'\nlibbpf: failed to load BPF skeleton\n",
        UnsupportedError,
        "no bpf_none",
        "__weak",
    ),
    (
        "libbpf: extern (var ksym) 'none': not found in kernel BTF\n",
        UnsupportedError,
        "no none",
        "__weak",
    ),
    (
        "libbpf: extern (func ksym) 'bpf_x': func_proto [7] incompatible with kernel [66151]\n",
        UnsupportedError,
        "bpf_x has other arguments",
        "vmlinux.h",
    ),
    (
        "libbpf: extern (func ksym) 'bpf_x': func_proto [7] incompatible with vmlinux [66151]\n",
        UnsupportedError,
        "bpf_x has other arguments",
        "vmlinux.h",
    ),
    (
        "libbpf: extern 'CONFIG_NONE' (strong): not resolved\n",
        UnsupportedError,
        "CONFIG_NONE",
        "/proc/config.gz",
    ),
    (
        "libbpf: extern 'none' (strong): not resolved\n",
        UnsupportedError,
        "no symbol none",
        "another kernel",
    ),
    (
        "libbpf: map 'flows': failed to create: Invalid argument(-22)\n"
        "libbpf: failed to load object 'x'\nmap 'flows' has 0 entries",
        BadObjectError,
        "map flows has 0 entries",
        "--entries flows=N",
    ),
    (
        "libbpf: failed to find valid kernel BTF\nlibbpf: Error loading vmlinux BTF: -3\n",
        UnsupportedError,
        "types of the kernel",
        "CONFIG_DEBUG_INFO_BTF",
    ),
    (
        "libbpf: failed to open system Kconfig\n",
        UnsupportedError,
        "not to be read here",
        "/proc/config.gz",
    ),
    (
        "libbpf: kernel BTF is missing at '/sys/kernel/btf/vmlinux', was CONFIG_DEBUG_INFO_BTF "
        "enabled?\n",
        UnsupportedError,
        "types of the kernel",
        "CONFIG_DEBUG_INFO_BTF",
    ),
)


@pytest.mark.parametrize(("said", "kind", "why", "hint"), LOADING)
def test_what_is_not_loaded(said: str, kind: type[Exception], why: str, hint: str) -> None:
    error = words.refused("f of x.o", KernelError("bpf_object__load", errno.EINVAL, said), ext=True)
    assert type(error) is kind
    assert error.what == "cannot load f of x.o"
    assert why in error.why
    assert hint in error.hint


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_shortage_is_no_fault_of_the_object(number: int) -> None:
    error = KernelError("bpf_map_create", number)
    for found, what in (
        (words.refused("f of x.o", error, ext=True), "cannot load f of x.o"),
        (words.unusable("x.o", error), "cannot open x.o"),
    ):
        assert type(found) is errors.XdpctlError
        assert (found.what, found.number) == (what, number)
        assert found.hint


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        ("cannot call GPL-restricted function from non-GPL compatible program\n", '"license"'),
        (
            "1: <invalid CO-RE relocation>\n"
            "failed to resolve CO-RE relocation <byte_off> [7] struct sk_buff.none (0:0 @ offset "
            "0)",
            "has no struct sk_buff.none:",
        ),
        ("0: (85) call unknown#9999\ninvalid func unknown#9999\n", "helper 9999"),
        ("R1 invalid mem access\n", "-v shows"),
    ],
)
def test_what_the_verifier_refuses(log: str, hint: str) -> None:
    error = words.refused("f of x.o", KernelError("verifier", errno.EACCES, log), ext=False)
    assert type(error) is VerifierError
    assert hint in error.hint


def test_what_says_nothing_is_left_out() -> None:
    """The verifier's log of type information that a program can do without, and the like."""
    log = (
        "libbpf: BTF loading error: -22\nlibbpf: -- BEGIN BTF LOAD LOG ---\nmagic: 0xeb9f\n"
        "-- END BTF LOAD LOG --\n"
        "libbpf: Error loading .BTF into kernel: -22. BTF is optional, ignoring.\n"
        "libbpf: map 'flows': failed to create: Argument list too long(-7)\n"
        "libbpf: failed to load object 'huge'\n"
    )
    said = words.libbpf_words(KernelError("bpf_object__load", errno.E2BIG, log))
    assert said == "map 'flows': failed to create: Argument list too long(-7)"
    only = KernelError("bpf_object__load", errno.EINVAL, "libbpf: failed to load object 'x'\n")
    assert words.libbpf_words(only) == "failed to load object 'x'"


def test_numbers_of_libbpf_have_words() -> None:
    """All that this libbpf knows; it has no words itself for those that it does not."""
    for number, text in errors._LIBBPF.items():
        assert (
            str(KernelError("bpf_object__open", number)) == f"bpf_object__open: {text} ({number})"
        )
        buffer = ctypes.create_string_buffer(256)
        function = libbpf.lib().libbpf_strerror
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
        assert function(number, buffer, len(buffer)) == 0
        assert b"Unknown" not in buffer.value
    assert "Unknown" not in str(KernelError("x", errno.EINVAL))
