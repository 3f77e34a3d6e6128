"""xdpctl.kernel, and the instructions that others write, against the system's headers."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.machine import insn
from xdpctl.errors import KernelError
from xdpctl.kernel import abi, asm, btf, libbpf, libc, records, uapi
from xdpctl.kernel.asm import R1, R2
from xdpctl.kernel.object import Object

pytestmark = pytest.mark.heavy

_HEADERS = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/fs.h>
#include <linux/if_link.h>
#include <linux/membarrier.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#define IN_CHANGES (IN_MOVE | IN_CREATE | IN_DELETE)
#define END(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))
"""

BIT_FIELD = ""  # has no offset in C; its neighbours' offsets tell enough

# ctypes structure: its name in C, and C's name for those members that have another here.
STRUCTURES: dict[type[ctypes.Structure], tuple[str, dict[str, str]]] = {
    abi.ObjectOpenOpts: ("struct bpf_object_open_opts", {}),
    abi.MapCreateOpts: ("struct bpf_map_create_opts", {}),
    abi.ProgLoadOpts: ("struct bpf_prog_load_opts", {}),
    abi.LinkCreateOpts: ("struct bpf_link_create_opts", {}),
    abi.LinkUpdateOpts: ("struct bpf_link_update_opts", {}),
    abi.XdpAttachOpts: ("struct bpf_xdp_attach_opts", {}),
    abi.XdpQueryOpts: ("struct bpf_xdp_query_opts", {}),
    abi.TestRunOpts: ("struct bpf_test_run_opts", {}),
    abi.BpfProgInfo: ("struct bpf_prog_info", {"gpl_compatible": BIT_FIELD}),
    abi.BpfLinkInfo: ("struct bpf_link_info", {"word": "tracing"}),
    abi.BpfMapInfo: ("struct bpf_map_info", {}),
    abi.XdpMd: ("struct xdp_md", {}),
    abi.BtfType: ("struct btf_type", {"size_or_type": "type"}),
}


@functools.cache
def c_output(body: str, *flags: str) -> str:
    """What a C program prints."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "program")
        subprocess.run(
            [shutil.which("cc") or "clang", *flags, "-x", "c", "-", "-o", program],
            input=f"{_HEADERS}int main(void)\n{{\n{body}\n}}\n",
            text=True,
            capture_output=True,
            check=True,
        )
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def numbers(expressions: list[str], *flags: str) -> list[int]:
    lines = [f'printf("%lld\\n", (long long)({expression}));' for expression in expressions]
    return [int(line) for line in c_output("\n".join(lines), *flags).split()]


def test_every_structure_is_checked() -> None:
    known = {
        value
        for value in vars(abi).values()
        if isinstance(value, type)
        and issubclass(value, ctypes.Structure)
        and hasattr(value, "_fields_")
    }
    assert known == set(STRUCTURES)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
def test_layout(structure: type[ctypes.Structure]) -> None:
    name, renamed = STRUCTURES[structure]
    members = [
        field[0]
        for field in structure._fields_
        if not field[0].startswith("_pad") and renamed.get(field[0]) != BIT_FIELD
    ]
    expressions = []
    for member in members:
        c_member = renamed.get(member, member)
        expressions += [f"offsetof({name}, {c_member})", f"END({name}, {c_member})"]
    *layout, size = numbers([*expressions, f"sizeof({name})"])
    for member, offset, end in zip(members, layout[::2], layout[1::2], strict=True):
        field = getattr(structure, member)
        assert field.offset == offset, member
        if member != "word":  # as many words as the kernel tells of any link that we look at
            assert field.offset + field.size == end, member
    # Both sides take a structure that ends earlier than they know, but not inside a member.
    assert ctypes.sizeof(structure) <= size


def test_words_of_a_links_information() -> None:
    start = abi.BpfLinkInfo.word.offset
    wanted = [
        "xdp.ifindex",
        "tracing.attach_type",
        "tracing.target_obj_id",
        "tracing.target_btf_id",
    ]
    found = numbers([f"offsetof(struct bpf_link_info, {member})" for member in wanted])
    assert [(offset - start) // 4 for offset in found] == [0, 0, 1, 2]
    info = records.LinkInfo(id=1, type=uapi.BPF_LINK_TYPE_TRACING, prog_id=2, word=(0, 30, 40, 0))
    assert (info.ifindex, info.target, info.function, info.is_ext) == (0, 30, 40, True)
    fentry = records.LinkInfo(id=1, type=uapi.BPF_LINK_TYPE_TRACING, prog_id=2, word=(24, 30, 40))
    assert not fentry.is_ext


NEWER = {"BPF_F_XDP_DEV_BOUND_ONLY", "BPF_JCOND"}
"""Of Linux 6.3 and 6.9: later than the headers that these tests are for."""

CONSTANTS = {
    name: value
    for module in (uapi, asm, libbpf, libc, btf)
    for name, value in vars(module).items()
    if re.fullmatch(r"[A-Z][A-Z0-9_]+|BPF_FUNC_\w+", name) and isinstance(value, int)
    if name not in NEWER and (module is not asm or name.startswith("BPF_"))
}


@functools.cache
def in_headers() -> dict[str, int]:
    """The numbers of those constants that the installed headers have."""
    names = list(CONSTANTS)
    try:
        return dict(zip(names, numbers(names), strict=True))
    except subprocess.CalledProcessError as error:
        missing = set(re.findall(r"(\w+)\W* undeclared", error.stderr))
    names = [name for name in names if name not in missing]
    return dict(zip(names, numbers(names), strict=True))


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name: str) -> None:
    if name not in in_headers():
        pytest.skip(f"missing: {name} in the installed headers")
    assert in_headers()[name] == CONSTANTS[name]


def test_constants_are_found_in_the_headers() -> None:
    """Lest all of them be skipped: Linux 5.10, our oldest, has these."""
    old = {"BPF_PROG_TYPE_EXT", "BPF_XDP", "BPF_F_REPLACE", "XDP_FLAGS_DRV_MODE", "BTF_KIND_FUNC"}
    assert old <= set(in_headers())


def test_number_of_membarrier() -> None:
    machine = os.uname().machine
    if machine not in libc.SYS_MEMBARRIER:
        pytest.skip(f"missing: a number for {machine}, where a sleep serves")
    assert numbers(["SYS_membarrier"]) == [libc.SYS_MEMBARRIER[machine]]


# --- instructions -------------------------------------------------------------------------------

HERE = asm.Label()
OPCODES = {
    "BPF_LD | BPF_IMM | BPF_DW": asm.constant(R1, 2),
    "BPF_ALU | BPF_MOV | BPF_K": asm.mov32(R1, 2),
    "BPF_ALU64 | BPF_MOV | BPF_X": asm.mov64(R1, R2),
    "BPF_ALU | BPF_ADD | BPF_X": asm.add32(R1, R2),
    "BPF_ALU64 | BPF_ADD | BPF_K": asm.add64(R1, 2),
    "BPF_ALU64 | BPF_SUB | BPF_X": asm.sub64(R1, R2),
    "BPF_ALU | BPF_MUL | BPF_K": asm.mul32(R1, 2),
    "BPF_ALU | BPF_OR | BPF_X": asm.or32(R1, R2),
    "BPF_ALU64 | BPF_OR | BPF_X": asm.or64(R1, R2),
    "BPF_ALU | BPF_AND | BPF_K": asm.and32(R1, 2),
    "BPF_ALU64 | BPF_AND | BPF_X": asm.and64(R1, R2),
    "BPF_ALU | BPF_RSH | BPF_X": asm.rsh32(R1, R2),
    "BPF_ALU64 | BPF_RSH | BPF_K": asm.rsh64(R1, 2),
    "BPF_ALU64 | BPF_LSH | BPF_K": asm.lsh64(R1, 2),
    "BPF_ALU64 | BPF_MOD | BPF_K": asm.mod64(R1, 2),
    "BPF_ALU | BPF_XOR | BPF_X": asm.xor32(R1, R2),
    "BPF_LDX | BPF_MEM | BPF_W": asm.load32(R1, R2, 0),
    "BPF_LDX | BPF_MEM | BPF_DW": asm.load64(R1, R2, 0),
    "BPF_STX | BPF_MEM | BPF_W": asm.store32(R1, 0, R2),
    "BPF_STX | BPF_MEM | BPF_DW": asm.store64(R1, 0, R2),
    "BPF_ST | BPF_MEM | BPF_W": asm.store32(R1, 0, 2),
    "BPF_ST | BPF_MEM | BPF_DW": asm.store64(R1, 0, 2),
    "BPF_JMP | BPF_JA": asm.ja(HERE),
    "BPF_JMP32 | BPF_JEQ | BPF_K": asm.jeq32(R1, 2, HERE),
    "BPF_JMP | BPF_JEQ | BPF_K": asm.jeq64(R1, 2, HERE),
    "BPF_JMP32 | BPF_JNE | BPF_K": asm.jne32(R1, 2, HERE),
    "BPF_JMP | BPF_JNE | BPF_K": asm.jne64(R1, 2, HERE),
    "BPF_JMP32 | BPF_JLE | BPF_K": asm.jle32(R1, 2, HERE),
    "BPF_JMP | BPF_JLE | BPF_K": asm.jle64(R1, 2, HERE),
    "BPF_JMP32 | BPF_JGT | BPF_K": asm.jgt32(R1, 2, HERE),
    "BPF_JMP | BPF_CALL": asm.call(HERE),
    "BPF_JMP | (BPF_CALL)": asm.call_helper(1),
    "BPF_JMP | BPF_EXIT": asm.exit_(),
}


def test_opcodes() -> None:
    found = {name: one.opcode for name, one in OPCODES.items()}
    assert dict(zip(OPCODES, numbers(list(OPCODES)), strict=True)) == found


def test_an_instruction_as_the_compiler_lays_it_out() -> None:
    values = [(0x85, 1, 2, -3, -4), (0x18, 10, 4, 0x7FFF, 2**31 - 1), (0xFF, 15, 15, -1, -1)]
    printed = c_output(
        "\n".join(
            f"{{ struct bpf_insn one = {{ {code}, {dst}, {src}, {off}, {imm} }};"
            'for (unsigned i = 0; i < sizeof(one); i++) printf("%02x", ((uint8_t *)&one)[i]);'
            'printf("\\n"); }'
            for code, dst, src, off, imm in values
        )
    )
    assert printed.split() == [insn(*one).hex() for one in values]
    assert numbers(["sizeof(struct bpf_insn)"]) == [asm.INSN_SIZE]


def test_the_record_of_a_function() -> None:
    """Two words a function for bpf_prog_load: where it begins, and its type."""
    record = "struct bpf_func_info"
    expressions = [
        f"sizeof({record})",
        *(f"offsetof({record}, {x})" for x in ("insn_off", "type_id")),
    ]
    assert numbers(expressions) == [8, 0, 4]


def test_the_words_of_the_context() -> None:
    offsets = numbers([f"offsetof(struct xdp_md, {name})" for name in btf._CONTEXT])
    assert offsets == [4 * place for place in range(len(btf._CONTEXT))]
    assert numbers(["sizeof(struct xdp_md)"]) == [4 * len(btf._CONTEXT)]


# --- prototypes ---------------------------------------------------------------------------------


def c_type(kind: Any) -> str:
    """The C type of what ctypes passes."""
    if kind in (ctypes.c_int, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_bool):
        signed = "int" if kind(-1).value == -1 else "uint"
        return f"{signed}{8 * ctypes.sizeof(kind)}_t"
    return "void *"


def test_prototypes() -> None:
    """Calls with our argument types compile without a conversion; results have our sizes."""
    lines, expected = [], []
    for name, (result, arguments) in abi.PROTOTYPES.items():
        declared = [f"{c_type(kind)} a{place} = 0;" for place, kind in enumerate(arguments)]
        call = f"{name}({', '.join(f'a{place}' for place in range(len(arguments)))})"
        is_void = f"__builtin_types_compatible_p(__typeof__({call}), void)"
        # Enumerations are unsigned in C and int here: the sign does not matter, the size does.
        is_pointer = f"__builtin_classify_type({call}) == 5"
        if result is None:
            lines.append(f'{{ {" ".join(declared)} printf("{name} %d\\n", {is_void}); }}')
            expected.append(f"{name} 1")
            continue
        pointer = c_type(result) == "void *"
        lines.append(
            f'{{ {" ".join(declared)} printf("{name} %zu %d\\n", sizeof({call}), {is_pointer}); }}'
        )
        expected.append(f"{name} {ctypes.sizeof(result)} {pointer:d}")
    try:
        output = c_output("\n".join(lines), "-Werror", "-Wconversion", "-Wno-sign-conversion")
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr, pytrace=False)
    assert output.splitlines() == expected


# --- calls that fail ----------------------------------------------------------------------------


def test_a_failed_call_names_itself_and_what_libbpf_said() -> None:
    with pytest.raises(KernelError) as caught:
        Object.parsed(b"\x7fELF and nothing else", abi.ObjectOpenOpts(object_name=b"x"))
    assert caught.value.call == "bpf_object__open_mem"
    assert caught.value.errno
    assert "libbpf: elf:" in caught.value.log
    assert str(caught.value).startswith("bpf_object__open_mem: ")


def test_options_carry_their_own_size() -> None:
    assert abi.XdpQueryOpts().sz == ctypes.sizeof(abi.XdpQueryOpts)
    options = abi.LinkUpdateOpts(flags=uapi.BPF_F_REPLACE, old_prog_fd=9)
    assert (options.sz, options.flags, options.old_prog_fd) == (ctypes.sizeof(options), 4, 9)


def test_owned_closes_also_after_an_error() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with contextlib.suppress(ZeroDivisionError), libbpf.owned(reading):
        assert 1 / (os.fstat(reading).st_size)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
