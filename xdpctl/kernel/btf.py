"""BTF, the type information of programs: read as libbpf parsed it, written by libbpf's writer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterator, Sequence
from ctypes import c_uint32

from ..errors import KernelError
from . import abi, libbpf

BTF_KIND_PTR, BTF_KIND_ARRAY, BTF_KIND_FUNC = 2, 3, 12
BTF_KIND_DATASEC = 15
BTF_INT_SIGNED = 1 << 0
BTF_FUNC_STATIC, BTF_FUNC_GLOBAL = 0, 1

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

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._borrowed:
            libbpf.lib().btf__free(self._handle)

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


@contextlib.contextmanager
def of_functions(names: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
    """BTF for a program of these functions, in the kernel: its descriptor and the functions' ids.

    The first function is one of an XDP program, `int f(struct xdp_md *ctx)`. The others are static
    ones: the verifier looks at their code where they are called, not at their types.
    """
    library = libbpf.lib()
    handle = libbpf.pointer("btf__new_empty")

    def add(what: str, *values: object) -> int:
        return libbpf.call(f"btf__add_{what}", handle, *values)

    try:
        number = add("int", b"int", 4, BTF_INT_SIGNED)
        word = add("int", b"unsigned int", 4, 0)
        context = add("struct", b"xdp_md", 4 * len(_CONTEXT))
        for index, name in enumerate(_CONTEXT):
            add("field", name.encode(), word, 32 * index, 0)
        pointer = add("ptr", context)
        entry = add("func_proto", number)
        add("func_param", b"ctx", pointer)
        other = add("func_proto", number)
        ids = [add("func", names[0].encode(), BTF_FUNC_GLOBAL, entry)]
        ids += [add("func", name.encode(), BTF_FUNC_STATIC, other) for name in names[1:]]
        libbpf.call("btf__load_into_kernel", handle)
        yield library.btf__fd(handle), ids
    finally:
        library.btf__free(handle)  # closes the descriptor, too
