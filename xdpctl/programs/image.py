"""A member's code, kept with it: what fused roots are made of, and an EXT program made anew.

The kernel does not give back what it was given: it shows a program's instructions as it rewrote
them. So a map that is bound to the program holds them as libbpf relocated them, with the ids of
maps in the place of descriptors. It lives as long as the program does, wherever the object file is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import struct
import weakref
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import KernelError, UnsupportedError
from ..kernel import abi, asm, libbpf, maps, records, uapi
from ..kernel.btf import of_functions

NAME = "xdpctl_image"
"""The name of the map."""

_MAGIC, _VERSION = b"xdpi", 1
# Magic, version, flags, length of the code in bytes. The code follows, and the names of maps.
_HEAD = struct.Struct("=4sHHI")
_FRAGS, _GPL, _NAMED = 1 << 0, 1 << 1, 1 << 2
_KEPT = 15
"""How many bytes of a map's name the kernel keeps."""
LOG_SIZE = (1 << 24) - 1
# The verifier's log: with each step, or errors and statistics alone (BPF_LOG_STATS).
_STEPS, _BRIEF = 1, 4


def array_of_another_kind(what: str, kind: str) -> UnsupportedError:
    """Why a member that makes tail calls stays on its kind of root.

    Linux kernel commit 4540aed51b12 "bpf: Enforce expected_attach_type for tailcall compatibility"
    (in v6.18 and stable releases).
    """
    return UnsupportedError(
        f"{what} cannot go to a root of the {kind} kind",
        why="it makes tail calls, and this kernel keeps its program array for callers of the kind "
        "that it was loaded for",
        hint="unload it, change the kind, and load it again",
    )


class Image(NamedTuple):
    """A program's code, its maps named by id; whether it takes fragments, and its licence.

    `names` has the full names of maps by id, of those that the kernel may have cut.
    """

    code: bytes
    frags: bool
    gpl: bool
    names: tuple[tuple[int, str], ...] = ()

    def pack(self) -> bytes:
        flags = _FRAGS * self.frags | _GPL * self.gpl | _NAMED * bool(self.names)
        names = json.dumps(self.names).encode() if self.names else b""
        return _HEAD.pack(_MAGIC, _VERSION, flags, len(self.code)) + self.code + names

    @classmethod
    def unpack(cls, record: bytes) -> Image | None:
        """None where the record is no image, or one of a later xdpctl."""
        if len(record) < _HEAD.size:
            return None
        magic, version, flags, size = _HEAD.unpack_from(record)
        code, rest = record[_HEAD.size :][:size], record[_HEAD.size + size :]
        if (magic, version, size) != (_MAGIC, _VERSION, len(code)):
            return None
        if size % asm.INSN_SIZE or not size:
            return None
        if rest and not flags & _NAMED:
            return None
        try:
            names = tuple((int(number), str(name)) for number, name in json.loads(rest or b"[]"))
        except (ValueError, TypeError, RecursionError):
            return None
        return cls(code, bool(flags & _FRAGS), bool(flags & _GPL), names)

    @classmethod
    def of(cls, program_fd: int) -> Image | None:
        """The image that is bound to a program; None where there is none."""
        record = kept(libbpf.prog_info(program_fd), NAME)
        return cls.unpack(record) if record is not None else None

    def load_ext(self, name: str, root_fd: int, function: int) -> int:
        """Load the code as EXT for a function (a BTF id) of a root; returns its descriptor."""
        fd = load(uapi.BPF_PROG_TYPE_EXT, name, self.code, gpl=self.gpl, target=(root_fd, function))
        return self.bound_to(fd)

    def load_xdp(self, name: str) -> int:
        """Load the code as an XDP program of its own; returns its descriptor."""
        fd = load(uapi.BPF_PROG_TYPE_XDP, name, self.code, gpl=self.gpl, frags=self.frags)
        return self.bound_to(fd)

    def bound_to(self, program_fd: int) -> int:
        """Keep the image with a program, whose descriptor is returned, or else closed."""
        try:
            keep(program_fd, NAME, self.pack())
        except BaseException:
            os.close(program_fd)
            raise
        return program_fd


class Tables(dict[str, int]):
    """Descriptors of maps by name, which are closed at the latest when nobody has them any more."""

    def __init__(self, fds: Mapping[str, int]) -> None:
        super().__init__(fds)
        self.close = weakref.finalize(self, _close, tuple(fds.values()))


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def capture(handle: int, program: int, program_fd: int, frags: bool) -> Image | None:
    """The image of a program of an object that libbpf has just loaded.

    None for a program that names something of a kernel module: a descriptor of the module's, which
    means nothing later.
    """
    code = libbpf.instructions(program)
    if asm.names_module(code):
        return None
    found = {libbpf.object_map_fd(one): libbpf.object_map_name(one) for one in libbpf.maps(handle)}
    ids = {fd: libbpf.map_info(fd).id for fd in found if fd >= 0}
    used = asm.maps_of(code)
    names = tuple(
        (ids[fd], name.decode(errors="replace"))
        for fd, name in found.items()
        if fd in used and len(name) >= _KEPT
    )
    return Image(asm.with_maps(code, ids), frags, libbpf.prog_info(program_fd).gpl, names)


def keep(program_fd: int, name: str, record: bytes) -> None:
    """Bind a record to a program for as long as that lives: a map that nobody can change."""
    fd = libbpf.map_create(uapi.BPF_MAP_TYPE_ARRAY, name, len(record), uapi.BPF_F_RDONLY_PROG)
    with libbpf.owned(fd):
        libbpf.map_update(fd, bytes(4), record)
        libbpf.map_freeze(fd)
        libbpf.bind_map(program_fd, fd)


def kept(program: records.ProgInfo, name: str) -> bytes | None:
    """The record of a name that was bound to a program; None where there is none.

    What is bound comes behind the maps that the program's code names.
    """
    for number in reversed(program.map_ids):
        with libbpf.owned(libbpf.map_fd(number)) as fd:
            info = libbpf.map_info(fd)
            record = maps.record(fd, info, uapi.BPF_F_RDONLY_PROG) if info.name == name else None
            if record is not None:
                return record
    return None


def load(
    kind: int,
    name: str,
    code: bytes,
    names: Mapping[int, str] | None = None,
    *,
    gpl: bool,
    frags: bool = False,
    target: tuple[int, int] | None = None,
    attach_type: int | None = None,
) -> int:
    """Load a program from code that names its maps by id; returns its descriptor.

    `names` calls functions by the number of their first instruction; those between are numbered.
    `target` is what an EXT program replaces, or with an `attach_type` a tracing program traces: a
    program's descriptor and a function's BTF id. Raises KernelError with the verifier's log.
    """
    found = asm.starts(code)
    with contextlib.ExitStack() as closing:
        fds = {number: libbpf.map_fd(number) for number in asm.maps_of(code)}
        for fd in fds.values():
            closing.callback(os.close, fd)
        btf, types = closing.enter_context(of_functions(_function_names(found, names or {0: name})))
        records = [value for pair in zip(found, types, strict=True) for value in pair]
        functions = (ctypes.c_uint32 * len(records))(*records)
        root_fd, function = target or (0, 0)
        if attach_type is None:
            attach_type = 0 if target else uapi.BPF_XDP
        options = abi.ProgLoadOpts(
            expected_attach_type=attach_type,
            prog_btf_fd=btf,
            prog_flags=uapi.BPF_F_XDP_HAS_FRAGS * frags,
            attach_prog_fd=root_fd,
            attach_btf_id=function,
            func_info=ctypes.addressof(functions),
            func_info_cnt=len(found),
            func_info_rec_size=8,
        )
        values = (
            kind,
            name.encode()[:15],
            b"GPL" if gpl else b"Proprietary",
            asm.with_maps(code, fds),
            len(code) // asm.INSN_SIZE,
            ctypes.byref(options),
        )
        try:
            return libbpf.call("bpf_prog_load", *values)
        except KernelError as error:
            # A limit is hit: a log of each of a million steps takes long, and before Linux 6.4 is
            # itself too large.
            options.log_level = _BRIEF if error.errno == errno.E2BIG else _STEPS
        # Once more, to hear why.
        log = libbpf.log_buffer(LOG_SIZE)
        options.log_buf, options.log_size = ctypes.addressof(log), len(log)
        try:
            return libbpf.call("bpf_prog_load", *values)
        except KernelError as error:
            text = log.value.decode(errors="replace")
            call = "verifier" if text else error.call
            raise KernelError(call, error.errno or errno.EINVAL, text) from error


def _function_names(found: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """What functions are called: letters, digits and _ alone, as BTF wants it."""
    given, last, count = [], "", 0
    for start in found:
        if start in names:
            last, count = re.sub(r"\W", "_", names[start], flags=re.ASCII), 0
            given.append(last)
        else:
            count += 1
            given.append(f"{last}_{count}")
    return given
