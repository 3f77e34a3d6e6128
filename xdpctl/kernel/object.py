"""Object files that libbpf has open: their programs and maps, before and after the load."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from . import abi, asm, libbpf, uapi
from .btf import Btf
from .records import MapShape


class ObjectMap(NamedTuple):
    """A map of an object, by libbpf's handle, which is the object's."""

    handle: int

    @property
    def name(self) -> str:
        """The whole name: the kernel cuts long ones."""
        return os.fsdecode(self.raw_name)

    @property
    def raw_name(self) -> bytes:
        name: bytes = libbpf.lib().bpf_map__name(self.handle)
        return name

    @property
    def type(self) -> int:
        kind: int = libbpf.lib().bpf_map__type(self.handle)
        return kind

    @property
    def kind(self) -> str:
        """The word for its type, such as hash; empty for one that this libbpf does not know."""
        word: bytes | None = libbpf.lib().libbpf_bpf_map_type_str(self.type)
        return word.decode() if word else ""

    @property
    def fd(self) -> int:
        """The descriptor, which is the object's; negative unless it is loaded."""
        fd: int = libbpf.lib().bpf_map__fd(self.handle)
        return fd

    @property
    def shape(self) -> MapShape:
        """As the file has it."""
        names = ("type", "key_size", "value_size", "max_entries", "map_flags")
        return MapShape(*(getattr(libbpf.lib(), f"bpf_map__{name}")(self.handle) for name in names))

    @property
    def inner(self) -> ObjectMap | None:
        """What a map of maps is to have in it."""
        handle: int | None = libbpf.lib().bpf_map__inner_map(self.handle)
        return ObjectMap(handle) if handle else None

    @property
    def pin_path(self) -> str | None:
        """Where it is to be pinned."""
        path: bytes | None = libbpf.lib().bpf_map__pin_path(self.handle)
        return os.fsdecode(path) if path else None

    def leave_unpinned(self) -> None:
        """Have libbpf neither pin it nor use what is pinned."""
        libbpf.lib().bpf_map__set_pin_path(self.handle, None)

    def reuse(self, fd: int) -> None:
        """Use a map that is there. Raises KernelError."""
        libbpf.call("bpf_map__reuse_fd", self.handle, fd)

    def offload_to(self, ifindex: int) -> None:
        """Make it on a card."""
        libbpf.lib().bpf_map__set_ifindex(self.handle, ifindex)

    @property
    def contents(self) -> bytes:
        """Of a data map, before the object is loaded; empty for any other map."""
        size = ctypes.c_size_t(0)
        start = libbpf.lib().bpf_map__initial_value(self.handle, ctypes.byref(size))
        return ctypes.string_at(start, size.value) if start else b""

    def resize(self, entries: int) -> int:
        """Give it room for so many; returns 0 or the errno of a refusal."""
        result: int = libbpf.lib().bpf_map__set_max_entries(self.handle, entries)
        return -result

    def fill(self, value: bytes) -> None:
        """The contents of a data map, before the object is loaded. Raises KernelError."""
        libbpf.call("bpf_map__set_initial_value", self.handle, value, len(value))


class ObjectProgram(NamedTuple):
    """A program of an object, by libbpf's handle, which is the object's."""

    handle: int

    @property
    def name(self) -> str:
        name: bytes = libbpf.lib().bpf_program__name(self.handle)
        return os.fsdecode(name)

    @property
    def section(self) -> str:
        name: bytes = libbpf.lib().bpf_program__section_name(self.handle)
        return os.fsdecode(name)

    @property
    def type(self) -> int:
        kind: int = libbpf.lib().bpf_program__type(self.handle)
        return kind

    @property
    def attach_type(self) -> int:
        kind: int = libbpf.lib().bpf_program__expected_attach_type(self.handle)
        return kind

    @property
    def size(self) -> int:
        """Bytes of its code."""
        count: int = libbpf.lib().bpf_program__insn_cnt(self.handle)
        return count * asm.INSN_SIZE

    @property
    def code(self) -> bytes:
        """Its instructions, as libbpf relocated them."""
        return ctypes.string_at(libbpf.lib().bpf_program__insns(self.handle), self.size)

    @property
    def fd(self) -> int:
        """The descriptor, which is the object's; negative unless it is loaded."""
        fd: int = libbpf.lib().bpf_program__fd(self.handle)
        return fd

    def autoload(self, wanted: bool) -> None:
        libbpf.lib().bpf_program__set_autoload(self.handle, wanted)

    def set_type(self, kind: int) -> None:
        libbpf.lib().bpf_program__set_type(self.handle, kind)

    def set_attach_type(self, kind: int) -> None:
        libbpf.lib().bpf_program__set_expected_attach_type(self.handle, kind)

    def set_flags(self, flags: int) -> None:
        libbpf.lib().bpf_program__set_flags(self.handle, flags)

    def set_target(self, root_fd: int, function: str) -> None:
        """What it is to replace. Raises KernelError."""
        call = "bpf_program__set_attach_target"
        libbpf.call(call, self.handle, root_fd, function.encode())

    def set_log(self, buffer: Any) -> None:
        """Where the verifier's log goes; `buffer` is one of libbpf.log_buffer."""
        libbpf.lib().bpf_program__set_log_buf(self.handle, buffer, len(buffer))

    def offload_to(self, ifindex: int) -> None:
        """Load it onto a card."""
        libbpf.lib().bpf_program__set_ifindex(self.handle, ifindex)

    def bind_to(self, ifindex: int, flags: int = 0) -> None:
        """Load it for a device alone, with other flags that it is to have."""
        self.set_flags(flags | uapi.BPF_F_XDP_DEV_BOUND_ONLY)
        libbpf.lib().bpf_program__set_ifindex(self.handle, ifindex)


class Object:
    """An object file that libbpf has parsed; all that was loaded of it goes when it is closed."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @classmethod
    def parsed(cls, data: bytes, options: abi.ObjectOpenOpts) -> Self:
        """Raises KernelError, its log libbpf's words."""
        call = "bpf_object__open_mem"
        return cls(libbpf.pointer(call, data, len(data), ctypes.byref(options)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        handle, self.handle = self.handle, 0
        if handle:
            libbpf.lib().bpf_object__close(handle)

    @property
    def programs(self) -> Iterator[ObjectProgram]:
        handle = None
        while handle := libbpf.lib().bpf_object__next_program(self.handle, handle):
            yield ObjectProgram(handle)

    @property
    def maps(self) -> Iterator[ObjectMap]:
        handle = None
        while handle := libbpf.lib().bpf_object__next_map(self.handle, handle):
            yield ObjectMap(handle)

    @property
    def btf(self) -> Btf | None:
        """Its types, for as long as it is open; None if it has none."""
        handle: int | None = libbpf.lib().bpf_object__btf(self.handle)
        return Btf(handle, borrowed=True) if handle else None

    def load(self) -> None:
        """Raises KernelError."""
        libbpf.call("bpf_object__load", self.handle)
