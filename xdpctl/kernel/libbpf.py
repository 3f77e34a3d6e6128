"""libbpf, through ctypes.

A wrapper is one call: it returns a descriptor, a number or a record, and raises KernelError with
the name of what failed. Kernel constants keep their kernel names.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from _thread import get_ident  # threading is dear to import
from collections.abc import Callable, Iterator
from ctypes import c_uint32
from functools import cache
from typing import Any

from ..errors import KernelError, UnsupportedError
from . import abi, libc, uapi
from .records import LinkInfo, MapInfo, ProgInfo

LIBBPF_WARN = 0
LIBBPF_ERRNO__LIBELF, LIBBPF_ERRNO__FORMAT, LIBBPF_ERRNO__ENDIAN = 4000, 4001, 4003


# libbpf's words, for each thread by itself.
_messages: dict[int, list[str]] = {}


def _collect(level: int, text: int, arguments: int) -> int:
    if level > LIBBPF_WARN:
        return 0
    buffer = ctypes.create_string_buffer(4096)
    libc.lib().vsnprintf(buffer, len(buffer), text, arguments)
    _messages.setdefault(get_ident(), []).append(buffer.value.decode(errors="replace"))
    return 0


_PRINT = abi.PRINT_FN(_collect)


@cache
def lib() -> ctypes.CDLL:
    """libbpf, loaded once, its messages collected instead of printed."""
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise UnsupportedError(
            "libbpf is not there",
            why=str(error),
            hint="install libbpf 1.1 or newer (Debian: apt install libbpf1)",
        ) from error
    for name, (result, arguments) in abi.PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_PRINT)
    return library


def call(name: str, *arguments: Any) -> int:
    """Call a libbpf function that answers with a number; raise KernelError where it is negative."""
    function: Callable[..., int] = getattr(lib(), name)
    _messages.pop(get_ident(), None)
    result = function(*arguments)
    if result < 0:
        raise KernelError(name, -result, "".join(_messages.pop(get_ident(), ())))
    return result


def pointer(name: str, *arguments: Any) -> int:
    """Call a libbpf function that answers with a pointer; raise KernelError where it is NULL."""
    function: Callable[..., int | None] = getattr(lib(), name)
    _messages.pop(get_ident(), None)
    result = function(*arguments)
    if not result:
        raise KernelError(
            name, ctypes.get_errno() or errno.EINVAL, "".join(_messages.pop(get_ident(), ()))
        )
    return result


@contextlib.contextmanager
def owned(fd: int) -> Iterator[int]:
    """A descriptor for the length of a block."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def absent_is_fine() -> Iterator[None]:
    """End a block where a program, link or map is gone, or an element is not there."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise


# --- ids and descriptors ------------------------------------------------------------------------


def _ids(name: str, after: int = 0) -> Iterator[int]:
    """All ids that BPF_*_GET_NEXT_ID gives after one (needs CAP_SYS_ADMIN)."""
    current = c_uint32(after)
    while True:
        try:
            call(name, current, ctypes.byref(current))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield current.value


def link_ids(after: int = 0) -> Iterator[int]:
    return _ids("bpf_link_get_next_id", after)


def prog_ids() -> Iterator[int]:
    return _ids("bpf_prog_get_next_id")


def prog_fd(program_id: int) -> int:
    return _fd_by_id("bpf_prog_get_fd_by_id", program_id)


def wait_gone(program_id: int, seconds: float = 1.0) -> bool:
    """Whether a program leaves the kernel within a time; it does so a little after its last use."""
    import time

    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline  # it is looked for once more after that
        try:
            os.close(prog_fd(program_id))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return True
            raise
        if late:
            return False
        time.sleep(0.005)


def link_fd(link_id: int) -> int:
    return _fd_by_id("bpf_link_get_fd_by_id", link_id)


def map_ids() -> Iterator[int]:
    return _ids("bpf_map_get_next_id")


def map_fd(map_id: int) -> int:
    return _fd_by_id("bpf_map_get_fd_by_id", map_id)


def _fd_by_id(function: str, number: int) -> int:
    # ctypes would cut a number of a broken record down to one that something else has.
    if not 0 <= number < 1 << 32:
        raise KernelError(function, errno.ENOENT)
    return call(function, number)


def _info(fd: int, info: ctypes.Structure) -> None:
    size = c_uint32(ctypes.sizeof(info))
    call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))


def prog_info(fd: int) -> ProgInfo:
    info, maps = abi.BpfProgInfo(), (c_uint32 * 128)()
    info.nr_map_ids, info.map_ids = len(maps), ctypes.addressof(maps)
    _info(fd, info)
    return ProgInfo(
        id=info.id,
        type=info.type,
        name=info.name.decode(errors="replace"),
        tag=bytes(info.tag).hex(),
        load_time=info.load_time,
        size=info.xlated_prog_len,
        btf_id=info.btf_id,
        map_ids=tuple(maps[: min(info.nr_map_ids, len(maps))]),
        gpl=bool(info.gpl_compatible & 1),
    )


def prog_main_function(fd: int) -> int:
    """The BTF type id of a program's first function, 0 where it has no BTF."""
    info, record = abi.BpfProgInfo(), (c_uint32 * 2)()
    _info(fd, info)
    if not info.nr_func_info or info.func_info_rec_size != ctypes.sizeof(record):
        return 0
    info = abi.BpfProgInfo(
        nr_func_info=1, func_info_rec_size=ctypes.sizeof(record), func_info=ctypes.addressof(record)
    )
    _info(fd, info)
    return int(record[1])


def link_info(fd: int) -> LinkInfo:
    info = abi.BpfLinkInfo()
    _info(fd, info)
    return LinkInfo(info.id, info.type, info.prog_id, tuple(info.word))


def links() -> Iterator[LinkInfo]:
    """Every link of the kernel; one that is just coming or going is left out."""
    for number in link_ids():
        try:
            with owned(link_fd(number)) as fd:
                info = link_info(fd)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN):
                continue
            raise
        yield info


def map_info(fd: int) -> MapInfo:
    info = abi.BpfMapInfo()
    _info(fd, info)
    return MapInfo(
        info.id,
        info.type,
        info.name.decode(errors="replace"),
        info.value_size,
        info.key_size,
        info.max_entries,
        info.map_flags,
        info.btf_id,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def map_create(
    kind: int, name: str, value_size: int, flags: int = 0, elements: int = 1, key_size: int = 4
) -> int:
    """Make a map of one element or more; returns its descriptor."""
    options = ctypes.byref(abi.MapCreateOpts(map_flags=flags))
    return call("bpf_map_create", kind, name.encode(), key_size, value_size, elements, options)


def map_update(fd: int, key: bytes, value: bytes) -> None:
    call("bpf_map_update_elem", fd, key, value, 0)


def map_delete(fd: int, key: bytes) -> None:
    call("bpf_map_delete_elem", fd, key)


def map_freeze(fd: int) -> None:
    """Let nobody change a map through bpf(2) any more."""
    call("bpf_map_freeze", fd)


def bind_map(program_fd: int, map_fd: int) -> None:
    """Have a program keep a map that its code does not use.

    Linux kernel commit ef15314aa5de "bpf: Add BPF_PROG_BIND_MAP syscall" (in v5.10).
    """
    call("bpf_prog_bind_map", program_fd, map_fd, None)


# --- pins and links -----------------------------------------------------------------------------


def pin(fd: int, path: str) -> None:
    call("bpf_obj_pin", fd, os.fsencode(path))


def get(path: str) -> int:
    """Open a pin."""
    return call("bpf_obj_get", os.fsencode(path))


def link_ext(program_fd: int, root_fd: int, function: int) -> int:
    """Hook an EXT program onto a function (a BTF id) of a root; returns the link's descriptor.

    Linux kernel commit 4a1e7c0c63e0 "bpf: Support attaching freplace programs to multiple attach
    points" (in v5.10).
    """
    return call(
        "bpf_link_create",
        program_fd,
        root_fd,
        0,
        ctypes.byref(abi.LinkCreateOpts(target_btf_id=function)),
    )


def link_tracing(program_fd: int) -> int:
    """Attach a tracing program to what it was loaded for; returns the link's descriptor."""
    return call("bpf_raw_tracepoint_open", None, program_fd)


def link_tracepoint(program_fd: int, name: str) -> int:
    """Attach a program to a tracepoint of the kernel; returns the link's descriptor."""
    return call("bpf_raw_tracepoint_open", name.encode(), program_fd)


def link_xdp(program_fd: int, ifindex: int, flags: int) -> int:
    """Attach a root to an interface by a bpf_link; returns the link's descriptor."""
    return call(
        "bpf_link_create",
        program_fd,
        ifindex,
        uapi.BPF_XDP,
        ctypes.byref(abi.LinkCreateOpts(flags=flags)),
    )


def link_update(link: int, new_program: int, expected_program: int) -> None:
    """Exchange the program of an XDP link; EPERM where it does not run the expected one."""
    options = abi.LinkUpdateOpts(flags=uapi.BPF_F_REPLACE, old_prog_fd=expected_program)
    call("bpf_link_update", link, new_program, ctypes.byref(options))


def link_detach(link: int) -> None:
    call("bpf_link_detach", link)


def prog_test_run(
    program_fd: int, packet: bytes, repeat: int = 1, context: abi.XdpMd | None = None
) -> tuple[int, bytes, int]:
    """Run an XDP program on a packet; returns its verdict, the packet after it, mean ns a run.

    With a `context`, which the run changes, metadata stands before the packet, its length in
    `data` (Linux kernel commits ec94670fcb3b "bpf: Support specifying ingress via xdp_md context in
    BPF_PROG_TEST_RUN" and 47316f4a3053 "bpf: Support input xdp_md context in BPF_PROG_TEST_RUN", in
    v5.14).
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    out = ctypes.create_string_buffer(len(packet) + 512)
    options = abi.TestRunOpts(
        data_in=ctypes.addressof(data),
        data_out=ctypes.addressof(out),
        data_size_in=len(packet),
        data_size_out=len(out),
        repeat=repeat,
    )
    if context is not None:
        context.data_meta, context.data_end = 0, len(packet)
        options.ctx_in = options.ctx_out = ctypes.addressof(context)
        options.ctx_size_in = options.ctx_size_out = ctypes.sizeof(context)
    call("bpf_prog_test_run_opts", program_fd, ctypes.byref(options))
    return options.retval, out.raw[: options.data_size_out], options.duration


def log_buffer(size: int) -> Any:
    """A buffer for the verifier's log, whose memory is taken as it fills."""
    import mmap

    return (ctypes.c_char * size).from_buffer(mmap.mmap(-1, size))


def version() -> str:
    """libbpf's own version, such as v1.1."""
    text: bytes = lib().libbpf_version_string()
    return text.decode(errors="replace")


def prog_is_jited(fd: int) -> bool:
    """Whether a program runs as machine code."""
    info = abi.BpfProgInfo()
    _info(fd, info)
    return bool(info.jited_prog_len)
