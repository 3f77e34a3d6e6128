"""BTF, the type information of programs: read as libbpf parsed it, written by libbpf's writer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Collection, Iterator, Sequence
from ctypes import c_uint32

from ..errors import KernelError
from . import abi, libbpf, libc

BTF_KIND_PTR, BTF_KIND_ARRAY, BTF_KIND_FUNC = 2, 3, 12
BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_TYPEDEF, BTF_KIND_FUNC_PROTO = 4, 5, 8, 13
BTF_KIND_INT, BTF_KIND_ENUM, BTF_KIND_VOLATILE, BTF_KIND_CONST = 1, 6, 9, 10
BTF_KIND_VAR, BTF_KIND_DATASEC, BTF_KIND_ENUM64 = 14, 15, 19
BTF_INT_SIGNED = 1 << 0
BTF_FUNC_STATIC, BTF_FUNC_GLOBAL = 0, 1
BTF_VAR_GLOBAL_ALLOCATED = 1

_CONTEXT = ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
"""The words of struct xdp_md (<linux/bpf.h>)."""


class Btf:
    """A view of type information that libbpf parsed; frees it unless an object owns it."""

    def __init__(self, handle: int, *, borrowed: bool = False) -> None:
        self._handle = handle
        self._borrowed = borrowed

    @classmethod
    def from_kernel(cls, btf_id: int) -> Btf:
        return cls(libbpf.pointer("btf__load_from_kernel_by_id", btf_id))

    @classmethod
    def of_kernel(cls) -> Btf:
        """The types of the running kernel (/sys/kernel/btf/vmlinux)."""
        return cls(libbpf.pointer("btf__load_vmlinux_btf"))

    @classmethod
    def of_bytes(cls, data: bytes) -> Btf:
        """What an object has in its section .BTF, or a beginning without types of no bytes."""
        if not data:
            return cls(libbpf.pointer("btf__new_empty"))
        return cls(libbpf.pointer("btf__new", data, len(data)))

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._borrowed:
            libbpf.lib().btf__free(self._handle)

    @property
    def count(self) -> int:
        """One more than the last id of a type; the first is 1."""
        number: int = libbpf.lib().btf__type_cnt(self._handle)
        return number

    def find(self, name: str, kind: int) -> int:
        """The id of a named type; 0 where there is none."""
        found: int = libbpf.lib().btf__find_by_name_kind(self._handle, name.encode(), kind)
        return max(found, 0)

    def type(self, type_id: int) -> abi.BtfType:
        pointer = libbpf.lib().btf__type_by_id(self._handle, type_id)
        if not pointer:
            raise KernelError("btf__type_by_id", errno.EINVAL)
        found: abi.BtfType = pointer.contents
        return found

    def name(self, type_id: int) -> str:
        return self.string(self.type(type_id).name_off)

    def string(self, offset: int) -> str:
        text: bytes | None = libbpf.lib().btf__name_by_offset(self._handle, offset)
        return (text or b"").decode(errors="replace")

    def records(self, found: abi.BtfType, count: int, words: int) -> list[tuple[int, ...]]:
        """The `count` records of `words` 32-bit words that follow a type's head."""
        start = ctypes.addressof(found) + ctypes.sizeof(abi.BtfType)
        flat = (c_uint32 * (count * words)).from_address(start)
        return [tuple(flat[i : i + words]) for i in range(0, count * words, words)]

    def offset(self, structure: str, member: str) -> int:
        """Where a member of a structure lies, in bytes. Raises KernelError where it has none."""
        found = self._bits(self.find(structure, BTF_KIND_STRUCT), member)
        if found is None:
            raise KernelError(f"BTF: struct {structure} has no {member}", errno.ENOENT)
        return found // 8

    def _bits(self, type_id: int, member: str) -> int | None:
        """The same in bits; members of structures and unions without a name are its own."""
        found = self.type(type_id)
        if found.kind not in (BTF_KIND_STRUCT, BTF_KIND_UNION):
            return None
        for name, inner, place in self.records(found, found.vlen, 3):
            place &= 0xFFFFFF  # above it stands the size of a bit field
            if name and self.string(name) == member:
                return place
            if not name and (deeper := self._bits(inner, member)) is not None:
                return place + deeper
        return None

    def add(self, what: str, *values: object) -> int:
        """Add a type, or a part of the last one: btf__add_<what>; returns a new type's id.

        What `type` and `records` gave before may be elsewhere afterwards.
        """
        return libbpf.call(f"btf__add_{what}", self._handle, *values)

    def packed(self) -> bytes:
        """All of it, as a section .BTF has it."""
        size = c_uint32(0)
        start = libbpf.pointer("btf__raw_data", self._handle, ctypes.byref(size))
        return ctypes.string_at(start, size.value)

    def take_out(self, section: int, kept: Collection[int] = ()) -> None:
        """Have a section of data, and its variables but those to be `kept`, mean nothing.

        Other types of the same length take their place, so the numbers of all stay. libbpf does
        the same for kernels without these kinds: a structure in place of the section, a number of
        one byte in place of each variable.
        """
        found = self.type(section)
        start = ctypes.addressof(found) + ctypes.sizeof(abi.BtfType)
        members = (c_uint32 * (3 * found.vlen)).from_address(start)
        for index in range(found.vlen):
            variable = self.type(members[3 * index])
            if variable.kind == BTF_KIND_VAR and members[3 * index] not in kept:
                variable.info, variable.size_or_type = BTF_KIND_INT << 24, 1
                linkage = ctypes.addressof(variable) + ctypes.sizeof(abi.BtfType)
                c_uint32.from_address(linkage).value = 8  # bits
            members[3 * index : 3 * index + 3] = [0, members[3 * index], 8 * index]
        found.name_off, found.size_or_type = 0, found.vlen
        found.info = BTF_KIND_STRUCT << 24 | found.vlen

    def load(self) -> int:
        """Load it into the kernel; returns its descriptor, which closes with it."""
        libbpf.call("btf__load_into_kernel", self._handle)
        fd: int = libbpf.lib().btf__fd(self._handle)
        return fd

    def write_c(self, fd: int) -> None:
        """Write all types to a file, as C. Raises KernelError.

        libbpf calls a function as vfprintf(3) is: that one is handed to it.
        """
        library, system = libbpf.lib(), libc.lib()
        file = system.fdopen(os.dup(fd), b"w")
        if not file:
            raise KernelError("fdopen", ctypes.get_errno())
        try:
            printer = ctypes.cast(system.vfprintf, ctypes.c_void_p)
            dump = libbpf.pointer("btf_dump__new", self._handle, printer, file, None)
            try:
                for number in range(1, self.count):
                    libbpf.call("btf_dump__dump_type", dump, number)
            finally:
                library.btf_dump__free(dump)
        finally:
            failed = system.fclose(file)
        if failed:
            raise KernelError("fclose", ctypes.get_errno())

    def arguments(self, tracepoint: str) -> list[int] | None:
        """The kinds of a tracepoint's arguments; None where there is no such tracepoint.

        Linux kernel commit e8c423fb31fa "bpf: Add typecast to raw_tracepoints to help BTF
        generation" (in v5.5).
        """
        typedef = self.find(f"btf_trace_{tracepoint}", BTF_KIND_TYPEDEF)
        if not typedef:
            return None
        prototype = self.type(self.type(self.type(typedef).size_or_type).size_or_type)
        given = self.records(prototype, prototype.vlen, 2)
        return [self.type(type_id).kind if type_id else 0 for _name, type_id in given[1:]]


@contextlib.contextmanager
def of_functions(names: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
    """BTF for a program of these functions, in the kernel: its descriptor and the functions' ids.

    The first function is one of an XDP program, `int f(struct xdp_md *ctx)`. The others are static
    ones: the verifier looks at their code where they are called, not at their types.
    """
    with Btf.of_bytes(b"") as btf:
        number = btf.add("int", b"int", 4, BTF_INT_SIGNED)
        word = btf.add("int", b"unsigned int", 4, 0)
        context = btf.add("struct", b"xdp_md", 4 * len(_CONTEXT))
        for index, name in enumerate(_CONTEXT):
            btf.add("field", name.encode(), word, 32 * index, 0)
        pointer = btf.add("ptr", context)
        entry = btf.add("func_proto", number)
        btf.add("func_param", b"ctx", pointer)
        other = btf.add("func_proto", number)
        ids = [btf.add("func", names[0].encode(), BTF_FUNC_GLOBAL, entry)]
        ids += [btf.add("func", name.encode(), BTF_FUNC_STATIC, other) for name in names[1:]]
        yield btf.load(), ids
